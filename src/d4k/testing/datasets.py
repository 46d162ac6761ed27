"""The contract of a dataset."""

from __future__ import annotations

from d4k.images import open_picture
from d4k.protocols import Dataset, Sample
from d4k.testing.attempt import attempt, check_options

__all__ = ["check_dataset"]


def check_dataset(dataset: Dataset) -> None:
    """Check a dataset: length, samples with unique ids and captions, pictures that open twice, IndexError past the end.

    All samples are asked for; the first, the middle and the last picture are opened.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(dataset)
    count = attempt("the length of a dataset", lambda: len(dataset))
    assert count > 0, "the dataset to check holds at least one picture"
    samples = [_sample(dataset, index) for index in range(count)]
    assert all(isinstance(s, Sample) for s in samples), "a dataset yields d4k.Sample"
    assert all(isinstance(s.id, str) and s.id for s in samples), "ids are strings that are not empty"
    assert len({s.id for s in samples}) == count, "ids are unique"
    assert all(isinstance(s.caption, str) for s in samples), "captions are strings"
    assert _sample(dataset, 0) == samples[0], "asking twice gives the same sample"
    for index in sorted({0, count // 2, count - 1}):
        _check_picture(samples[index])
    try:
        dataset[count]
    except IndexError:
        return
    except Exception as error:
        raise AssertionError(f"an index past the end raises IndexError, got {type(error).__name__}") from error
    raise AssertionError("an index past the end raises IndexError")


def _sample(dataset: Dataset, index: int) -> Sample:
    return attempt(f"sample {index} of a dataset", lambda: dataset[index])


def _check_picture(sample: Sample) -> None:
    first, again = (
        attempt(
            f"opening the picture of sample '{sample.id}'{time}", lambda: open_picture(sample.source, label=sample.id)
        )
        for time in ("", " a second time, as every epoch does,")
    )
    assert first.mode == "RGB", "pictures open as RGB"
    assert first.tobytes() == again.tobytes(), f"the picture of sample '{sample.id}' is the same whenever it is opened"
