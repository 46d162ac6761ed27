"""A tokenizer without its files is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from d4k import CheckpointError, Pipeline
from d4k.models import ModelRef, find_model
from d4k.models.tokenizers import check_tokenizers


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_model(ModelRef("tiny-sd3")).location, tmp_path / "model"))


def folder(tmp_path: Path, kind: str, *files: str) -> Path:
    """A model that is one tokenizer of a class of transformers."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"tokenizer": ["transformers", kind]}))
    for name in files:
        (tmp_path / "tokenizer" / name).write_text("{}")
    return tmp_path


def test_a_whole_model_passes(model: Path) -> None:
    """Each tokenizer has its settings and its vocabulary."""
    check_tokenizers(model)


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2", "tokenizer_3"])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_each_file_is_missed_by_name(model: Path, part: str, file: str, how: str) -> None:
    """Transformers would go on with a vocabulary of two tokens."""
    path = model / part / file
    path.unlink()
    if how == "emptied" and file == "tokenizer.json":
        path.touch()
    with pytest.raises(CheckpointError, match=rf"{part} lacks .*{file}"):
        check_tokenizers(model)


def test_such_a_model_is_not_loaded(model: Path) -> None:
    """The pipeline refuses it before any weights are read."""
    (model / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer lacks the vocabulary of its CLIPTokenizer"):
        Pipeline.from_pretrained(model)


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("CLIPTokenizer", ("vocab.json", "merges.txt")),
        ("CLIPTokenizer", ("tokenizer.json",)),
        ("T5Tokenizer", ("spiece.model",)),
        ("T5TokenizerFast", ("tokenizer.json",)),
        ("Qwen2Tokenizer", ("vocab.json", "merges.txt")),
        ("GemmaTokenizer", ("tokenizer.model",)),
        ("GemmaTokenizerFast", ("tokenizer.json",)),
        ("PreTrainedTokenizerFast", ("tokenizer.json",)),
        ("ByT5Tokenizer", ()),
    ],
)
def test_every_way_to_keep_a_vocabulary_passes(tmp_path: Path, kind: str, files: tuple[str, ...]) -> None:
    """One file, the files of the class, or sentence pieces."""
    check_tokenizers(folder(tmp_path, kind, "tokenizer_config.json", *files))


@pytest.mark.parametrize(
    ("kind", "files", "words"),
    [
        ("CLIPTokenizer", ("vocab.json",), "tokenizer.json, or vocab.json with merges.txt"),
        ("T5Tokenizer", (), "tokenizer.json, or spiece.model"),
    ],
)
def test_half_a_vocabulary_is_none(tmp_path: Path, kind: str, files: tuple[str, ...], words: str) -> None:
    """The message names what would do."""
    with pytest.raises(CheckpointError, match=words):
        check_tokenizers(folder(tmp_path, kind, "tokenizer_config.json", *files))
