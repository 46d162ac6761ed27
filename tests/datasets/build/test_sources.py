"""Sources: what folders, tables, Hub datasets and servers name, and what is said of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from build_cases import fill, photo, settings

from d4k import ConfigError, DataError
from d4k.datasets.build import Listed, build
from d4k.datasets.build.sources import list_sources


def listed(tmp_path: Path, *sources) -> tuple[Listed, ...]:
    return list_sources(sources, tmp_path / "out").pictures


def test_folders_are_walked_in_order_without_what_is_hidden(tmp_path):
    fill(tmp_path / "a" / "b", 2)
    fill(tmp_path / "a" / ".hidden", 1)
    photo(1).save(tmp_path / "a" / "Z.JPG")
    found = listed(tmp_path, tmp_path / "a")
    assert [one.id for one in found] == ["a/Z.JPG", "a/b/00.png", "a/b/01.png"]
    assert all(one.path.is_file() for one in found)


def test_sources_of_one_name_are_told_apart(tmp_path):
    fill(tmp_path / "x" / "a", 1)
    fill(tmp_path / "y" / "a", 1)
    assert [one.id for one in listed(tmp_path, tmp_path / "x" / "a", tmp_path / "y" / "a")] == [
        "a/00.png",
        "a-2/00.png",
    ]


def test_metadata_speaks_of_the_folders_below_it_and_names_what_is_missing(tmp_path):
    fill(tmp_path / "a" / "images", 1)
    (tmp_path / "a" / "metadata.jsonl").write_text(
        '{"file_name": "images/00.png", "text": "one", "license": "CC0", "source": "a museum"}\n\n'
        '{"file_name": "images/lost.png"}\n'
    )
    first, lost = listed(tmp_path, tmp_path / "a")
    assert (first.text, first.licence, first.source) == ("one", "CC0", "a museum")
    assert lost.id == "a/images/lost.png"
    built = build([tmp_path / "a"], tmp_path / "out", settings(), workers=1, quiet=True)
    assert [(d.outcome, d.reason) for d in built.decisions][1] == ("broken", "No such file or directory")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "x"}', "line 1 has no file_name"),
        ('{"file_name": "../b.png"}', "leaves the folder"),
        ("{", "line 1 is not readable JSON"),
    ],
)
def test_lines_of_metadata_that_cannot_be_used_are_named(tmp_path, line, words):
    fill(tmp_path / "a", 1)
    (tmp_path / "a" / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError, match=words):
        listed(tmp_path, tmp_path / "a")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_name_paths_beside_them_with_all_that_is_known(tmp_path, ending):
    fill(tmp_path / "pictures", 2)
    table = tmp_path / f"list.{ending}"
    if ending == "csv":
        table.write_text("\ufeffpath,license,author,caption\npictures/00.png,CC0,Ada,one\npictures/01.png,,,\n,CC0,,\n")
    else:
        columns = {
            "path": ["pictures/00.png", "pictures/01.png", None],
            "license": ["CC0", None, "CC0"],
            "author": ["Ada", None, None],
            "caption": ["one", "", None],
        }
        pq.write_table(pa.table(columns), table)
    one, two, three = listed(tmp_path, table)
    assert one == Listed("list/pictures/00.png", tmp_path / "pictures/00.png", None, "CC0", "Ada", None, "one")
    assert two == Listed("list/pictures/01.png", tmp_path / "pictures/01.png")
    assert three.problem == "row 3 has neither a path nor a URL"


def test_a_picture_that_a_table_names_twice_is_two_of_one_content(tmp_path):
    fill(tmp_path, 1)
    (tmp_path / "list.csv").write_text("path\n00.png\n00.png\n")
    built = build([tmp_path / "list.csv"], tmp_path / "out", settings(), workers=1, quiet=True)
    assert [d.listed.id for d in built.decisions] == ["list/00.png", "list/00.png#2"]
    assert built.decisions[1].duplicate_of == "list/00.png"
    assert built.decoded == 1


def test_tables_that_cannot_be_used_say_why(tmp_path):
    (tmp_path / "a.csv").write_text("name\nx\n")
    with pytest.raises(DataError, match=r"has the columns name; it needs one of path, .* d4k data import"):
        listed(tmp_path, tmp_path / "a.csv")
    (tmp_path / "b.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"b\.parquet cannot be read"):
        listed(tmp_path, tmp_path / "b.parquet")
    pq.write_table(pa.table({"path": [{"bytes": b"x", "path": "a.png"}]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="not text"):
        listed(tmp_path, tmp_path / "c.parquet")


def test_a_hub_dataset_is_its_snapshot_with_the_licence_of_its_card(tmp_path, monkeypatch):
    snapshot = fill(tmp_path / "snapshots" / "abc", 1)
    (snapshot / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Photographs\n")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **kwargs: asked.append((name, kwargs)) or str(snapshot)
    )
    (one,) = listed(tmp_path, "someone/photographs")
    assert asked == [("someone/photographs", {"repo_type": "dataset"})]
    assert (one.id, one.licence) == ("someone/photographs/00.png", "cc0-1.0")
    assert one.source == "https://huggingface.co/datasets/someone/photographs"
    (snapshot / "README.md").write_text("---\nlicense: unknown\n---\n")
    assert listed(tmp_path, "someone/photographs")[0].licence is None


def test_sources_that_are_nothing_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    for source, words in [
        ("someone/unknown", "Hub dataset of that name cannot be had"),
        (tmp_path / "lost.parquet", "does not exist"),
        (tmp_path / "empty", "there is no picture in"),
        (tmp_path / "notes.txt", "no picture and no table"),
    ]:
        with pytest.raises(DataError, match=words):
            listed(tmp_path, source)
    with pytest.raises(ConfigError, match="no source was given"):
        listed(tmp_path)


class Server(BaseHTTPRequestHandler):
    """Serves one picture, and fails in the ways that servers do."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        file = BytesIO()
        photo(1).save(file, "PNG")
        body = file.getvalue()
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/a.png?x=1")
        elif self.path == "/gone.png":
            self.send_response(404)
            body = b"gone"
        elif self.path == "/endless.png":
            self.send_response(200)
            body = body * 100
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) if self.path != "/huge.png" else 10**9))
            body = body[:50] if self.path in ("/cut.png", "/huge.png") else body
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback: its address, and what it was asked for."""
    Server.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", Server.asked
        http.shutdown()
        thread.join()


def test_urls_are_downloaded_once_and_each_failure_is_named(tmp_path, server):
    address, asked = server
    names = ["a.png?x=1", "moved", "gone.png", "cut.png", "huge.png", "endless.png"]
    urls = [f"{address}/{name}" for name in names] + ["ftp://127.0.0.1/a.png", "http://127.0.0.1:1/a.png"]
    pq.write_table(pa.table({"url": urls, "licence": ["CC0"] * len(urls)}), tmp_path / "list.parquet")
    chosen = settings(max_download_mb=0.1, no_licence="apart")
    built = build([tmp_path / "list.parquet"], tmp_path / "out", chosen, workers=1, quiet=True)
    reasons = {Path(d.listed.url).name: d.reason for d in built.decisions}
    assert [d.outcome for d in built.decisions] == ["kept", "rejected", *["broken"] * 6]
    assert "the server answers 404" in reasons["gone.png"]
    assert "the server sent 50 of " in reasons["cut.png"]
    assert "more than the 0.1 MB of max_download_mb" in reasons["huge.png"]
    assert "more than the 0.1 MB of max_download_mb" in reasons["endless.png"]
    assert "begins with neither http:// nor https://" in built.decisions[6].reason
    assert "refused" in built.decisions[7].reason
    files = sorted(path.suffix for path in (tmp_path / "out" / "downloads").iterdir())
    assert files == ["", ".png"]
    asked.clear()
    again = build([tmp_path / "list.parquet"], tmp_path / "out", chosen, workers=1, quiet=True)
    assert (again.decoded, again.read) == (0, 0)
    assert sorted(asked) == ["/cut.png", "/endless.png", "/gone.png", "/huge.png"]
