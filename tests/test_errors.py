"""The error tree: one root, messages that say what to do, values as attributes."""

from __future__ import annotations

import pytest

from d4k import errors
from d4k.errors import D4KError, DataError, PluginError, UnknownNameError, did_you_mean


def test_every_error_is_a_d4k_error() -> None:
    """`except D4KError` catches all that d4k raises on purpose."""
    tree = {name: getattr(errors, name) for name in errors.__all__}
    assert all(issubclass(cls, D4KError) for cls in tree.values())
    assert len(tree) == 7


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ConfigError", ValueError),
        ("UnknownNameError", errors.ConfigError),
        ("UnknownNameError", LookupError),
        ("DataError", ValueError),
        ("OutputError", OSError),
    ],
)
def test_an_error_is_also_what_python_would_raise(name: str, base: type[Exception]) -> None:
    """Callers who know nothing of d4k catch a bad value as ValueError and a failed write as OSError."""
    assert issubclass(getattr(errors, name), base)


def test_docstring_draws_the_whole_tree() -> None:
    """The page a reader opens first names every class."""
    assert errors.__doc__
    assert all(name in errors.__doc__ for name in errors.__all__)


def test_unknown_name_says_what_is_known_and_what_was_meant() -> None:
    """The message has the form that the command line shows; the values are attributes."""
    error = UnknownNameError("loss", "wavelt", ["wavelet", "mse"], "Try: d4k plugins")
    assert str(error) == "unknown loss 'wavelt'; did you mean 'wavelet'? Known: mse, wavelet. Try: d4k plugins"
    assert (error.kind, error.name, error.known) == ("loss", "wavelt", ["mse", "wavelet"])


def test_unknown_name_without_anything_known() -> None:
    """An empty list of names reads as 'none', without trailing space."""
    assert str(UnknownNameError("model", "x", [])) == "unknown model 'x'. Known: none."


def test_plugin_and_data_errors_carry_their_values() -> None:
    """The distributions, the file and the line can be read without parsing the message."""
    assert PluginError("two", ["d4k-a", "d4k-b"]).plugins == ("d4k-a", "d4k-b")
    error = DataError("bad line", "captions.jsonl", 3)
    assert (str(error), error.path, error.line) == ("bad line", "captions.jsonl", 3)
    assert (DataError("x").path, DataError("x").line) == (None, None)


def test_did_you_mean_is_silent_when_nothing_is_close() -> None:
    """A far-fetched suggestion is worse than none: the sentence just ends."""
    assert did_you_mean("zebra", ["mse", "wavelet"]) == "."
    assert did_you_mean("wavelt", ["mse", "wavelet"]) == "; did you mean 'wavelet'?"
