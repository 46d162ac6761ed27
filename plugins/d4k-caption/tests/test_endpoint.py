"""The captioner `openai` against a real HTTP server that throttles, fails, lies, refuses and says nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_cases import KEY, Endpoint, Reply, chat
from PIL import Image

from d4k import Caption, ConfigError, DataError
from d4k.datasets.captions import Captioning, caption_folder
from d4k.plugins import build, discover
from d4k.testing import check_captioner
from d4k_caption.endpoint import OpenAI


def make(server: Endpoint, **options: Any) -> OpenAI:
    """A loaded captioner that waits for nothing."""
    given = {"model": "m", "endpoint": server.address, "key_variable": "LOOPBACK_KEY", "backoff": 0.0, **options}
    captioner = OpenAI(**given)
    captioner.load(torch.device("cpu"))
    return captioner


def test_the_plugin_registers_both_captioners() -> None:
    """Through the door that d4k finds plugins by."""
    found = discover([EntryPoint("caption", "d4k_caption", "d4k")])
    assert found.failures == {}
    assert build(found.get("captioner", "openai"), {"model": "m"}) == OpenAI(model="m")
    assert found.get("captioner", "transformers").load().__name__ == "Transformers"


def test_it_keeps_the_contract_of_a_captioner(endpoint: Endpoint) -> None:
    """With prices and without, where it refuses, too; the key of the environment shows nowhere."""
    check_captioner(make(endpoint, price_in=2.5, price_out=10.0))
    endpoint.usual = lambda: Reply(chat(None, refusal="It shows a person."))
    check_captioner(make(endpoint))


def test_a_request_holds_instruction_and_picture(
    endpoint: Endpoint, square: Image.Image, pictures_sent: Callable[[], list[Image.Image]]
) -> None:
    """As chat completions have it; the picture is a JPEG of the size that was asked for."""
    caption = make(endpoint, size=64, max_tokens=50, temperature=0.5).caption(square, "What is it?")
    assert caption == Caption("a red square", tokens_in=100, tokens_out=10, model="loopback-1")
    (request,) = endpoint.requests
    assert (request["path"], request["model"]) == ("/v1/chat/completions", "m")
    assert (request["max_tokens"], request["temperature"]) == (50, 0.5)
    assert request["headers"]["Authorization"] == f"Bearer {KEY}"
    assert request["messages"][0]["content"][0] == {"type": "text", "text": "What is it?"}
    (sent,) = pictures_sent()
    assert (sent.format, sent.size) == ("JPEG", (64, 32))
    red = sent.getpixel((16, 16))
    assert isinstance(red, tuple)
    assert red[0] > 200 > red[2]


def test_costs_are_those_of_the_tokens(endpoint: Endpoint, square: Image.Image) -> None:
    captioner = make(endpoint, price_in=2.5, price_out=10.0)
    assert captioner.caption(square, "?").cost == pytest.approx((100 * 2.5 + 10 * 10) / 1e6)


@pytest.mark.parametrize(
    "usage", [None, {}, "many", {"prompt_tokens": -5, "completion_tokens": 1e99}, [1], {"prompt_tokens": True}]
)
def test_a_server_that_lies_about_tokens_costs_what_they_are_at_most(
    endpoint: Endpoint, square: Image.Image, usage: Any
) -> None:
    """So that a budget is kept all the same."""
    endpoint.replies = [Reply(chat(usage=usage))]
    caption = make(endpoint, price_in=1.0, price_out=10.0, max_tokens=300).caption(square, "?")
    assert (caption.tokens_in, caption.tokens_out) == (0, 0)
    assert caption.cost == pytest.approx((200 * 100 // 196 + 1 + 300 * 10) / 1e6)


PASSING = {
    "throttled": Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0"}),
    "throttled without a word": Reply(b"", 429),
    "broken": Reply(b"<html>oops</html>", 500),
    "overloaded": Reply({"error": {"message": "overloaded"}}, 503, {"Retry-After": "0.001"}),
    "reset": Reply(cut=0),
    "cut in the body": Reply(cut=20),
    "half a JSON": Reply(b'{"choices": [{"mess'),
    "no JSON": Reply(b"\xff\xfe\x00"),
    "a list": Reply([1, 2]),
    "no choices": Reply({"model": "m"}),
    "empty choices": Reply({"choices": []}),
    "choices of numbers": Reply({"choices": [7]}),
    "message of another type": Reply(chat(7)),
    "an error in a success": Reply({"error": {"message": "upstream"}}),
    "too deep": Reply(b"[" * 100_000),
    "too long": Reply(b" " * (4 * 2**20 + 1)),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(endpoint: Endpoint, square: Image.Image, reply: Reply) -> None:
    """Twice the same, then a good answer: the caption is there, and was asked for three times."""
    endpoint.replies = [reply, reply]
    assert make(endpoint).caption(square, "?").text == "a red square"
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_what_does_not_pass_is_an_error_of_this_picture(endpoint: Endpoint, square: Image.Image, reply: Reply) -> None:
    """After as many attempts as are allowed; another picture may still be captioned."""
    endpoint.usual = lambda: reply
    with pytest.raises(DataError, match=r"the endpoint 127\.0\.0\.1:\d+ gave no answer in 2 attempts: "):
        make(endpoint, attempts=2).caption(square, "?")
    assert len(endpoint.requests) == 2


REFUSALS = {
    "refusal": (Reply(chat(None, refusal="It shows a person.")), "It shows a person."),
    "filter on the answer": (Reply(chat("a", finish_reason="content_filter")), "a content filter stopped the answer"),
    "filter on the request": (
        Reply({"error": {"message": "not allowed", "code": "content_policy_violation"}}, 400),
        "not allowed",
    ),
}


@pytest.mark.parametrize(("reply", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_are_captions_with_a_reason(
    endpoint: Endpoint, square: Image.Image, reply: Reply, reason: str
) -> None:
    """They are not asked for again."""
    endpoint.replies = [reply]
    caption = make(endpoint).caption(square, "?")
    assert (caption.text, caption.refused, caption.usable) == ("", True, False)
    assert reason in caption.reason
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("content", [None, "", "  \n", []])
def test_an_empty_answer_is_no_caption(endpoint: Endpoint, square: Image.Image, content: Any) -> None:
    endpoint.replies = [Reply(chat(content))]
    caption = make(endpoint).caption(square, "?")
    assert (caption.refused, caption.usable, caption.reason) == (False, False, "the answer was empty")


def test_an_answer_that_was_cut_off_is_no_caption(endpoint: Endpoint, square: Image.Image) -> None:
    """Half a sentence is not trained on; its end is in the reason."""
    endpoint.replies = [Reply(chat("a red square on a", finish_reason="length"))]
    caption = make(endpoint).caption(square, "?")
    assert (caption.text, caption.reason) == ("", "the answer was cut off at max_tokens: 'a red square on a'")


def test_parts_of_an_answer_are_put_together(endpoint: Endpoint, square: Image.Image) -> None:
    parts = [{"type": "text", "text": "a red "}, {"type": "odd"}, 5, {"type": "text", "text": "square"}]
    endpoint.replies = [Reply(chat(parts))]
    assert make(endpoint).caption(square, "?").text == "a red square"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}),
        (403, {"message": "no access"}),
        (404, {"message": "no such model"}),
        (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}),
    ],
)
def test_what_concerns_every_picture_ends_it_at_once(
    endpoint: Endpoint, square: Image.Image, status: int, error: dict[str, str]
) -> None:
    """One request, and a sentence without the key, which the server repeats."""
    endpoint.replies = [Reply({"error": error}, status)]
    with pytest.raises(ConfigError, match=f"answered {status}: .*Check endpoint, model, key and account") as caught:
        make(endpoint).caption(square, "?")
    assert len(endpoint.requests) == 1
    assert KEY not in repr(caught.getrepr(style="long"))


def test_a_request_that_the_server_does_not_understand_is_an_error_of_this_picture(
    endpoint: Endpoint, square: Image.Image
) -> None:
    endpoint.replies = [Reply({"detail": "picture too small"}, 422)]
    with pytest.raises(DataError, match="answered 422: picture too small"):
        make(endpoint).caption(square, "?")
    assert len(endpoint.requests) == 1


def test_the_limit_of_tokens_is_named_as_the_model_wants_it(endpoint: Endpoint, square: Image.Image) -> None:
    """Found out once."""
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    endpoint.replies = [Reply({"error": {"message": words}}, 400)]
    captioner = make(endpoint)
    for _ in range(2):
        assert captioner.caption(square, "?").usable
    named = [[name for name in request if name.startswith("max")] for request in endpoint.requests]
    assert named == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


def test_a_redirect_is_not_followed(endpoint: Endpoint, square: Image.Image) -> None:
    """The key would go along."""
    for status in (301, 302, 307, 308):
        endpoint.replies = [Reply(b"", status, {"Location": f"{endpoint.address}/elsewhere"})]
        with pytest.raises(ConfigError, match="redirects to .*/elsewhere; d4k does not follow"):
            make(endpoint).caption(square, "?")
    assert {request["path"] for request in endpoint.requests} == {"/v1/chat/completions"}


def test_a_server_that_is_not_there_is_an_error_of_this_picture(endpoint: Endpoint, square: Image.Image) -> None:
    captioner = make(endpoint, endpoint="http://127.0.0.1:9/v1", attempts=2)
    with pytest.raises(DataError, match="the endpoint 127.0.0.1:9 gave no answer in 2 attempts: it cannot be reached"):
        captioner.caption(square, "?")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    endpoint: Endpoint, square: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert make(endpoint).caption(square, "?").usable


def test_the_key_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of OpenAI goes to OpenAI alone, unless it is named; without it nothing begins."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for options, wanted in (({}, KEY), ({"endpoint": "http://localhost:8000/v1"}, "")):
        captioner = OpenAI(model="m", **options)
        captioner.load(torch.device("cpu"))
        assert captioner._client is not None
        assert captioner._client.key == wanted
        assert KEY not in repr(captioner)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(
        ConfigError, match="environment variable OPENAI_API_KEY, which holds the key for api.openai.com"
    ):
        OpenAI(model="m").load(torch.device("cpu"))


@pytest.mark.parametrize("key", ["two words", "käse", "a\nb"])
def test_a_key_that_cannot_be_one_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """It would break the header, whose error shows it."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds no key") as caught:
        OpenAI(model="m").load(torch.device("cpu"))
    assert key not in str(caught.value)


def test_a_key_that_would_go_unencrypted_is_warned_of(endpoint: Endpoint) -> None:
    with pytest.warns(UserWarning, match=r"the key goes to 192\.0\.2\.1 unencrypted"):
        make(endpoint, endpoint="http://192.0.2.1/v1")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"key_variable": KEY}, "must be the name of an environment variable"),
        ({"endpoint": f"https://user:{KEY}@host/v1"}, "no name and no password"),
        ({"endpoint": f"https://host/v1?key={KEY}"}, "without . and #"),
        ({"endpoint": "host:8000"}, "endpoint must be an address"),
        ({"price_in": 1.0}, "price_in and price_out are given together"),
        ({"size": 0}, "size must be a whole number"),
        ({"temperature": 3.0}, "temperature must be a number"),
    ],
)
def test_options_out_of_range_are_refused_and_a_misplaced_key_is_not_repeated(
    options: dict[str, Any], reason: str
) -> None:
    found = discover([EntryPoint("caption", "d4k_caption", "d4k")])
    with pytest.raises(ConfigError, match=reason) as caught:
        build(found.get("captioner", "openai"), {"model": "m", **options})
    assert KEY not in str(caught.value)


def test_a_dataset_is_captioned_and_the_key_is_nowhere_on_the_disk(
    endpoint: Endpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With several requests at once, throttled, broken and refused ones among them."""
    for number in range(12):
        Image.new("RGB", (32, 24), (number * 20, 0, 0)).save(tmp_path / f"{number:02}.png")
    endpoint.replies = [*list(PASSING.values())[:8], Reply(chat(f"I'm sorry, but I can't. {KEY}"))]
    done = caption_folder(tmp_path, make(endpoint), Captioning(name="openai", concurrency=4), quiet=True)
    assert (done.captioned, done.refused, done.failures) == (11, 1, {})
    assert (done.tokens_in, done.tokens_out) == (1200, 120)
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert sorted(row.get("text", "") for row in rows) == ["", *["a red square"] * 11]
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
    log = (tmp_path / "captions.jsonl").read_text()
    assert '"endpoint": "127.0.0.1:' in log
    assert not [path for path in tmp_path.rglob("*.jsonl") if KEY in path.read_text()]


def test_a_budget_stops_the_spending(endpoint: Endpoint, tmp_path: Path) -> None:
    """Each answer costs a tenth of a cent; five are within half a cent, with four requests at once."""
    for number in range(20):
        Image.new("RGB", (32, 24), (number * 10, 0, 0)).save(tmp_path / f"{number:02}.png")
    endpoint.usual = lambda: Reply(chat(usage={"prompt_tokens": 500, "completion_tokens": 50}))
    captioner = make(endpoint, price_in=1.0, price_out=10.0)
    settings = Captioning(name="openai", concurrency=4, budget=0.005)
    done = caption_folder(tmp_path, captioner, settings, quiet=True)
    assert (done.captioned, len(endpoint.requests)) == (5, 5)
    assert done.total == pytest.approx(0.005)
    assert "does not cover another answer" in done.stopped
