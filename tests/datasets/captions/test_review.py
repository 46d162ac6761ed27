"""The page of captions holds everything, runs nothing but its own script, and what it saves is read back."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from caption_cases import Told, dataset, log_rows, metadata, picture
from PIL import Image

from d4k import Caption, ConfigError, DataError
from d4k.datasets.captions import Captioning, caption_folder, read_corrections, write_review

HTML = '</script><img src=x onerror="alert(1)"> & \u2028 @@SCRIPT@@ café'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pictures: captioned, refused, with a text of its own, and captioned in words that look like HTML."""
    rows: dict[str, dict[str, Any]] = {"a.png": {}, "b.png": {}, "c.png": {"text": "its own"}, "d.png": {}}
    root = dataset(tmp_path / "data", rows)
    picture(root / "a.png", 0, (1000, 500))
    answers = {1: Caption("", True, "it will not"), 3: HTML}
    caption_folder(root, Told(answers), Captioning(name="told"), quiet=True)
    return root


def content(page: Path) -> dict[str, Any]:
    """What the script of a page reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def items(page: Path) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in content(page)["items"]}


def save(path: Path, *corrections: dict[str, Any], **changes: Any) -> Path:
    whole = {"file": "d4k caption corrections", "format": 1, "corrections": corrections, **changes}
    path.write_text(json.dumps(whole))
    return path


def correction(item: dict[str, Any], text: str, *, bad: bool = False) -> dict[str, Any]:
    return {"sha256": item["sha256"], "text": text, "bad": bad}


def test_the_page_shows_every_picture_with_its_caption_and_where_that_comes_from(data: Path, tmp_path: Path) -> None:
    """What has none comes first; thumbnails are small, and upright."""
    done = write_review(data, tmp_path / "review.html", quiet=True)
    found = items(done.page)
    assert (done.shown, done.pictures, done.unreadable) == (4, 4, {})
    assert next(iter(found)) == "b.png"
    assert {name: item["text"] for name, item in found.items()} == {
        "a.png": "picture 0", "b.png": "", "c.png": "its own", "d.png": HTML.replace(" \u2028", ""),
    }  # fmt: skip
    assert found["b.png"]["note"] == "told refused: it will not"
    assert found["c.png"]["note"] == "text of the dataset's own"
    assert found["a.png"]["note"].startswith("told, 20")
    assert found["a.png"]["size"] == "1000×500"
    scheme, _, encoded = found["a.png"]["picture"].partition(",")
    assert scheme == "data:image/jpeg;base64"
    assert Image.open(BytesIO(base64.b64decode(encoded))).size == (480, 240)


def test_the_page_needs_nothing_else_and_runs_its_own_script_alone(data: Path, tmp_path: Path) -> None:
    """The policy names the script by its hash; a caption cannot end the data that it is in."""
    text = write_review(data, tmp_path / "review.html", quiet=True).page.read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert "<img" not in text
    assert "@@" not in text.replace("@@SCRIPT@@", "", 1)


def test_a_page_of_some_shows_what_needs_a_look_first(data: Path, tmp_path: Path) -> None:
    """Without a caption, then what nobody has seen; what a person corrected comes last."""
    every = items(write_review(data, tmp_path / "all.html", quiet=True).page)
    seen = [correction(every["a.png"], "seen"), correction(every["c.png"], "seen, too")]
    read_corrections(data, save(tmp_path / "c.json", *seen))
    done = write_review(data, tmp_path / "some.html", 2, quiet=True)
    assert list(items(done.page)) == ["b.png", "d.png"]
    assert (done.shown, content(done.page)["total"]) == (2, 4)


def test_writing_the_page_changes_nothing_in_the_dataset(data: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(data.rglob("*"))}
    write_review(data, tmp_path / "review.html", quiet=True)
    assert {path: path.read_bytes() for path in sorted(data.rglob("*"))} == before


def test_a_picture_that_cannot_be_shown_is_named(data: Path, tmp_path: Path) -> None:
    (data / "a.png").write_bytes(b"no picture")
    (data / "b.png").unlink()
    done = write_review(data, tmp_path / "review.html", quiet=True)
    assert set(done.unreadable) == {"a.png", "b.png"}
    assert (done.shown, done.pictures) == (2, 4)


def test_corrections_become_texts_and_stay_when_it_is_captioned_again(data: Path, tmp_path: Path) -> None:
    """Of captions, refusals and texts of other origin; what is bad has no text."""
    found = items(write_review(data, tmp_path / "review.html", quiet=True).page)
    file = save(
        tmp_path / "corrections.json",
        correction(found["a.png"], " a quay\nat dusk "),
        correction(found["b.png"], "a boat"),
        correction(found["c.png"], "its own", bad=True),
        correction(found["d.png"], ""),
    )
    done = read_corrections(data, file)
    assert (done.corrected, done.bad, done.known, done.unknown, done.changed) == (2, 2, 0, 0, 4)
    wanted = ["a quay at dusk", "a boat", None, None]
    assert [row.get("text") for row in metadata(data).values()] == wanted
    captioner = Told(model="other")
    caption_folder(data, captioner, Captioning(name="told", again=True), quiet=True)
    assert captioner.seen == []
    assert [row.get("text") for row in metadata(data).values()] == wanted
    assert items(write_review(data, tmp_path / "again.html", quiet=True).page)["c.png"]["bad"] is True


def test_corrections_that_are_read_twice_change_nothing(data: Path, tmp_path: Path) -> None:
    found = items(write_review(data, tmp_path / "review.html", quiet=True).page)
    file = save(tmp_path / "c.json", correction(found["a.png"], "a quay"), correction(found["b.png"], "", bad=True))
    read_corrections(data, file)
    lines = len(log_rows(data))
    done = read_corrections(data, file)
    assert (done.known, done.corrected, done.bad, done.changed) == (2, 0, 0, 0)
    assert len(log_rows(data)) == lines


def test_what_was_marked_bad_can_be_taken_back(data: Path, tmp_path: Path) -> None:
    item = items(write_review(data, tmp_path / "review.html", quiet=True).page)["a.png"]
    read_corrections(data, save(tmp_path / "1.json", correction(item, "picture 0", bad=True)))
    assert "text" not in metadata(data)["a.png"]
    read_corrections(data, save(tmp_path / "2.json", correction(item, "picture 0")))
    assert metadata(data)["a.png"]["text"] == "picture 0"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file": "x"}, "holds no corrections"),
        ({"corrections": {}}, "holds no corrections"),
        ({"format": 2}, "has the format 2, and this d4k reads format 1"),
        ({"corrections": [7]}, "correction 1: 'sha256' must be a str"),
        ({"corrections": [{"sha256": "a", "text": None, "bad": False}]}, "correction 1: 'text' must be a str"),
        ({"corrections": [{"sha256": "a", "text": "", "bad": 1}]}, "correction 1: 'bad' must be a bool"),
    ],
)
def test_a_file_that_the_page_did_not_save_is_refused(
    data: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """Before anything is changed."""
    before = (data / "captions.jsonl").read_bytes()
    with pytest.raises(DataError, match=reason):
        read_corrections(data, save(tmp_path / "c.json", **changes))
    assert (data / "captions.jsonl").read_bytes() == before


def test_a_page_has_the_ending_of_one(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the page 'review.json': the ending must be .html"):
        write_review(data, tmp_path / "review.json")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium, chromium-browser or google-chrome on the PATH")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def test_a_person_corrects_and_saves_in_a_browser(browser: Any, data: Path, tmp_path: Path) -> None:
    """Opened from the disk; the file that the button saves is read back."""
    page = browser.new_page(accept_downloads=True)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(write_review(data, tmp_path / "review.html", quiet=True).page.as_uri())
    assert page.locator("article").count() == 4
    page.get_by_label("Caption of a.png").fill("a quay")
    page.locator("article", has_text="c.png").get_by_role("checkbox").check()
    page.locator("#show").select_option("changed")
    assert page.locator("article:visible").count() == 2
    assert "2 changed, not saved" in page.locator("#count").inner_text()
    with page.expect_download() as saving:
        page.locator("#save").click()
    saving.value.save_as(tmp_path / "corrections.json")
    done = read_corrections(data, tmp_path / "corrections.json")
    assert (done.corrected, done.bad) == (1, 1)
    assert [row.get("text") for row in metadata(data).values()][:3] == ["a quay", None, None]
    assert faults == []


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on the PATH")
def test_the_script_of_the_page_saves_what_was_changed(data: Path, tmp_path: Path) -> None:
    """Run by node on a page of a few objects that do as a browser's do."""
    page = write_review(data, tmp_path / "review.html", quiet=True).page
    script = re.findall(r"<script>(.*?)</script>", page.read_text(), re.DOTALL)[0]
    harness = tmp_path / "page.js"
    harness.write_text(NODE.replace("@SCRIPT@", script).replace("@DATA@", json.dumps(json.dumps(content(page)))))
    said = subprocess.run(["node", str(harness)], capture_output=True, text=True, check=True).stdout
    saved, status, hidden = json.loads(said)
    (tmp_path / "corrections.json").write_text(saved)
    done = read_corrections(data, tmp_path / "corrections.json")
    assert (done.corrected, done.bad) == (1, 1)
    assert [row.get("text") for row in metadata(data).values()] == ["a quay", None, None, HTML.replace(" \u2028", "")]
    assert status == "2 shown, 4 on this page; 2 changed, saved"
    assert hidden == 2


NODE = """
const made = [];
class Element {
  constructor(name) {
    Object.assign(this, { name, inner: [], listeners: {}, value: "", checked: false, hidden: false, textContent: "" });
    const classes = new Set();
    this.classList = { toggle: (word, on) => (on ? classes.add(word) : classes.delete(word)) };
    made.push(this);
  }
  append(...inner) { this.inner.push(...inner); }
  setAttribute(name, value) { this[name] = value; }
  addEventListener(name, call) { this.listeners[name] = call; }
  fire(name) { this.listeners[name]({ preventDefault() {} }); }
  click() {}
}
const named = {};
const document = {
  getElementById: (id) => (named[id] ??= new Element(id)),
  createElement: (name) => new Element(name),
  addEventListener() {},
};
const window = { addEventListener() {} };
const localStorage = { getItem() { throw new Error("not from the disk"); }, setItem() { throw new Error("neither"); } };
let saved = null;
class Blob { constructor(parts) { saved = parts.join(""); } }
const URL = { createObjectURL: () => "blob:x", revokeObjectURL() {} };
const setTimeout = () => {};
document.getElementById("data").textContent = @DATA@;
named.show = Object.assign(new Element("select"), { value: "all" });
function page() {
@SCRIPT@
  return data;
}
const shown = page();
const of = (name) => shown.items.find((item) => item.name === name);
of("a.png").field.value = "a quay ";
of("a.png").field.fire("input");
of("c.png").mark.checked = true;
of("c.png").mark.fire("change");
named.save.fire("click");
named.show.value = "changed";
named.show.fire("change");
const hidden = shown.items.filter((item) => item.card.hidden).length;
console.log(JSON.stringify([saved, named.count.textContent, hidden]));
"""
