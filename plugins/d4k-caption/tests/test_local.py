"""The captioner `transformers` on a LLaVA of true architecture: CLIP that sees, Llama that writes, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from d4k import CheckpointError, ConfigError
from d4k.datasets.captions import Captioning, caption_folder
from d4k.testing import check_captioner
from d4k_caption.local import Transformers

SPECIAL = ["<pad>", "</s>", "<unk>", "<image>"]
WORDS = [*SPECIAL, "user", "assistant", "describe", "what", "a", "red", "blue", "square", "circle", "harbour", "dusk"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def processor() -> Any:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    side = {"height": 28, "width": 28}
    pictures = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=side)
    return LlavaProcessor(
        pictures, tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip


def network() -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    seeing = CLIPVisionConfig(**sizes, image_size=28, patch_size=14)
    writing = LlamaConfig(**sizes, vocab_size=len(WORDS), eos_token_id=1, pad_token_id=0, bos_token_id=None)
    config = LlavaConfig(vision_config=seeing, text_config=writing, image_token_index=WORDS.index("<image>"))
    torch.manual_seed(3)
    made = LlavaForConditionalGeneration(config)
    with torch.no_grad():  # larger than usual, so that what is seen decides what is written
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.6)
        for number in (0, 2, 3):  # always less likely than "</s>": of what is special, nothing else is written
            made.lm_head.weight[number] = 0.5 * made.lm_head.weight[1]
    return made


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` leaves it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    network().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def make(folder: Path, **options: Any) -> Transformers:
    captioner = Transformers(model=str(folder), max_tokens=options.pop("max_tokens", 4), **options)
    captioner.load(torch.device("cpu"))
    return captioner


def colours() -> list[Image.Image]:
    return [Image.new("RGB", (64, 48), colour) for colour in ("red", "navy", "white", "black", "green", "orange")]


def said(reading: Any, model: Any, image: Image.Image, count: int) -> tuple[str, bool]:
    """What transformers itself writes for the same conversation, token by token, and whether it ended."""
    given = reading(images=image, text="user <image> describe assistant ", return_tensors="pt")
    tokens = given["input_ids"]
    with torch.no_grad():
        for _ in range(count):
            logits = model(input_ids=tokens, pixel_values=given["pixel_values"]).logits
            tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], 1)
            if tokens[0, -1] == 1:
                break
    written = tokens[0, given["input_ids"].shape[1] :]
    return reading.decode(written, skip_special_tokens=True).strip(), int(written[-1]) == 1


def test_captions_are_what_the_model_writes_greedily(llava: Path) -> None:
    """Against a loop over the logits; an answer that does not end is cut off, and no caption."""
    captioner = make(llava)
    answers = {captioner.caption(image, "describe") for image in colours()}
    reading, model = AutoProcessor.from_pretrained(llava), AutoModelForImageTextToText.from_pretrained(llava)
    for image in colours():
        words, ended = said(reading, model, image, 4)
        caption = captioner.caption(image, "describe")
        if ended:
            assert caption.text == words
        else:
            assert (caption.text, caption.reason) == ("", f"the answer was cut off at max_tokens: {words!r}")
    assert len(answers) > 1  # the picture matters


def test_tokens_of_picture_and_answer_are_counted(llava: Path) -> None:
    """The picture is four patches of 14 pixels."""
    caption = make(llava, max_tokens=3).caption(colours()[0], "describe")
    assert caption.tokens_in == len(["user", *[0] * 4, "describe", "assistant"])
    assert 1 <= caption.tokens_out <= 3
    assert caption.model == str(llava)


def test_it_keeps_the_contract_of_a_captioner(llava: Path) -> None:
    check_captioner(Transformers(model=str(llava), max_tokens=3))
    assert Transformers(model=str(llava)).identity["model"] == "tiny-llava"


def test_a_dataset_is_captioned(llava: Path, tmp_path: Path) -> None:
    """Every answer is in the log; what is cut off or empty is no text."""
    for number, image in enumerate(colours()):
        image.save(tmp_path / f"{number}.png")
    captioner = Transformers(model=str(llava), max_tokens=4)
    done = caption_folder(tmp_path, captioner, Captioning(name="transformers", device="cpu"), quiet=True)
    assert (done.captioned + done.empty, done.failures, done.cost) == (6, {}, None)
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [bool(row["text"]) for row in rows].count(True) == done.captioned


@pytest.mark.parametrize("damage", ["gone", "empty", "template", "weights"])
def test_what_cannot_be_loaded_is_an_error_before_anything_is_asked(llava: Path, tmp_path: Path, damage: str) -> None:
    """No folder, nothing in it, no chat template, damaged weights."""
    folder = tmp_path / "model"
    if damage != "gone":
        folder.mkdir()
    if damage in ("template", "weights"):
        for file in llava.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    if damage == "template":
        (folder / "chat_template.jinja").unlink()
    if damage == "weights":
        (folder / "model.safetensors").write_bytes(b"nothing")
    captioner = Transformers(model=str(folder))
    with pytest.raises(CheckpointError, match=r"model' (cannot be loaded|has no chat)"):
        captioner.load(torch.device("cpu"))


def test_it_says_what_is_missing(llava: Path) -> None:
    """Weights before load, and options that suit."""
    with pytest.raises(ConfigError, match="has no weights yet"):
        Transformers(model=str(llava)).caption(colours()[0], "describe")
    with pytest.raises(ConfigError, match="dtype must be one of auto, float32, bfloat16, float16"):
        Transformers(model="m", dtype="int3")
