"""Which pictures are trained on, and what is said of those that are not."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import ExifTags, Image

from d4k import Sample
from d4k.errors import ConfigError, DataError
from d4k.training import Chosen, LeftOut, choose_pictures, train
from d4k.training.data import measured
from d4k.training.data.measured import Measured
from d4k.training.losses import MSELoss

Config = Callable[..., Any]


def unopened() -> BinaryIO:
    raise AssertionError("a picture whose size is known is not opened")


def known(*sizes: tuple[int, int]) -> list[Sample]:
    """Pictures `p0`... of these sizes, which cannot be opened."""
    return [Sample(f"p{number}", f"caption {number}", unopened, size) for number, size in enumerate(sizes)]


def stored(picture: Image.Image, **how: Any) -> Callable[[], BinaryIO]:
    stream = io.BytesIO()
    picture.save(stream, **how)
    return lambda: io.BytesIO(stream.getvalue())


def by_size(chosen: Chosen) -> dict[tuple[int, int], tuple[int, ...]]:
    return {bucket.size: bucket.pictures for bucket in chosen.buckets}


def broken(name: str) -> Sample:
    return Sample(name, "", lambda: io.BytesIO(b"no picture"))


def test_each_picture_is_in_the_bucket_of_its_shape(backbone: Any, run_config: Config) -> None:
    """Buckets without a picture are left out; the sizes that samples know are believed."""
    dataset = known((32, 16), (20, 40), (60, 30), (16, 16))
    config = run_config(data={"buckets": ["16x16", "32x16", "16x32", "64x32"]})
    chosen = choose_pictures(dataset, backbone, config)
    assert by_size(chosen) == {(16, 16): (3,), (32, 16): (0, 2), (16, 32): (1,)}
    assert (chosen.count, chosen.largest, chosen.left_out, chosen.warnings()) == (4, (32, 16), (), [])
    assert chosen.summary() == "4 pictures to train on: 1 at 16x16, 2 at 32x16, 1 at 16x32"


def test_a_picture_counts_as_it_is_seen_upright(backbone: Any, run_config: Config) -> None:
    """A camera held upright stores a lying picture and the orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = stored(Image.new("RGB", (32, 16)), format="JPEG", exif=exif)
    dataset = [Sample("turned", "", turned), Sample("lying", "", stored(Image.new("RGB", (32, 16)), format="JPEG"))]
    chosen = choose_pictures(dataset, backbone, run_config(data={"buckets": ["32x16", "16x32"]}))
    assert by_size(chosen) == {(32, 16): (1,), (16, 32): (0,)}


def test_what_is_left_out_is_counted_and_named(backbone: Any, run_config: Config) -> None:
    """In a sentence: how many, why, and the first of them; the same in the summary."""
    dataset = [*known((40, 40), (8, 40), (64, 16), (12, 12)), broken("bad.png")]
    config = run_config(data={"buckets": ["16x16"], "unreadable": "skip"})
    chosen = choose_pictures(dataset, backbone, config)
    assert by_size(chosen) == {(16, 16): (0,)}
    assert chosen.left_out[:3] == (
        LeftOut("p1", "shape", "8x40, more than twice as wide or as high for its area as 16x16"),
        LeftOut("p2", "shape", "64x16, more than twice as wide or as high for its area as 16x16"),
        LeftOut("p3", "small", "12x12, smaller than 16x16"),
    )
    assert (chosen.left_out[3].id, chosen.left_out[3].reason) == ("bad.png", "unreadable")
    sentence = (
        "4 of 5 pictures are left out: 1 smaller than 16x16, 2 too wide or too high for every bucket, 1 unreadable; "
        "the first is 'p1' (8x40, more than twice as wide or as high for its area as 16x16)"
    )
    assert chosen.warnings() == [sentence]
    assert chosen.summary() == f"1 picture to train on: 1 at 16x16. {sentence}"


def test_small_pictures_are_enlarged_only_when_asked(backbone: Any, run_config: Config) -> None:
    """Then they are trained on, counted and named."""
    dataset, data = known((40, 40), (12, 40), (12, 12)), {"width": 32, "height": 32}
    plain = choose_pictures(dataset, backbone, run_config(data=data))
    assert (by_size(plain), plain.enlarged) == ({(32, 32): (0,)}, ())
    chosen = choose_pictures(dataset, backbone, run_config(data={**data, "enlarge": True}))
    assert (by_size(chosen), chosen.enlarged, chosen.left_out) == ({(32, 32): (0, 1, 2)}, ("p1", "p2"), ())
    assert chosen.warnings() == [
        "2 of 3 pictures are smaller than what they are cut to and are enlarged, which teaches the model blur; "
        "the first is 'p1'"
    ]


def test_a_run_says_in_one_warning_what_it_leaves_out(backbone: Any, run_config: Config, photos: Path) -> None:
    dataset = [
        Sample("small", "", stored(Image.new("RGB", (8, 8)), format="PNG")),
        Sample("large", "", photos / "0.png"),
    ]
    with pytest.warns(UserWarning, match="1 of 2 pictures are left out: 1 smaller than 16x16") as caught:
        train(backbone, dataset, MSELoss(), run_config(training={"steps": 1}))
    assert len(caught) == 1


def test_unreadable_pictures_stop_a_run_and_are_all_named(backbone: Any, run_config: Config) -> None:
    dataset = [broken("a.png"), *known((40, 40)), broken("b.png")]
    with pytest.raises(DataError, match=r"^2 pictures cannot be read: .*a\.png.*; .*b\.png.*unreadable = 'skip'"):
        choose_pictures(dataset, backbone, run_config())
    kept = choose_pictures(dataset, backbone, run_config(data={"unreadable": "skip"}))
    assert by_size(kept) == {(16, 16): (1,)}


@pytest.mark.parametrize("wrap", [list, Measured])
def test_headers_are_read_many_at_once(
    backbone: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch, wrap: Any
) -> None:
    """Each of two waits for the other; a run asks for them through what remembers their sizes."""
    meeting = threading.Barrier(2, timeout=20)

    def size(*source: Any, **how: Any) -> tuple[int, int]:
        meeting.wait()
        return 24, 20

    monkeypatch.setattr(measured, "picture_size", size)
    dataset = wrap([Sample(f"p{number}", "", Path(f"{number}.png")) for number in range(2)])
    assert choose_pictures(dataset, backbone, run_config()).count == 2


def test_files_are_judged_in_the_order_of_the_dataset(backbone: Any, run_config: Config, tmp_path: Path) -> None:
    """Although many are read at once."""
    for number in range(40):
        name = tmp_path / f"{number:02d}.png"
        if number % 3:
            Image.new("RGB", (32, 16) if number % 2 else (16, 32)).save(name)
        else:
            name.write_bytes(b"no picture")
    dataset = [Sample(f"p{number}", "", tmp_path / f"{number:02d}.png") for number in range(40)]
    config = run_config(data={"buckets": ["32x16", "16x32"], "unreadable": "skip"})
    chosen = choose_pictures(dataset, backbone, config)
    assert by_size(chosen) == {
        (32, 16): tuple(n for n in range(40) if n % 3 and n % 2),
        (16, 32): tuple(n for n in range(40) if n % 3 and n % 2 == 0),
    }
    assert [picture.id for picture in chosen.left_out] == [f"p{number}" for number in range(0, 40, 3)]


def test_nothing_left_says_why_and_what_to_do(backbone: Any, run_config: Config) -> None:
    dataset = known((40, 40), (12, 40))
    message = (
        r"^nothing is left to train on: 2 of 2 pictures are left out: 2 smaller than 64x64; the first is 'p0' "
        r"\(40x40, smaller than 64x64\)\. Choose a smaller size .* data\.enlarge = true"
    )
    with pytest.raises(DataError, match=message):
        choose_pictures(dataset, backbone, run_config(data={"width": 64, "height": 64}))
    with pytest.raises(DataError, match="the dataset is empty"):
        choose_pictures([], backbone, run_config())


class TestHeldOut:
    """Pictures that the loss is measured on, and that are never trained on."""

    def chosen(self, dataset: Sequence[Sample], backbone: Any, make: Config, **settings: Any) -> Chosen:
        data = {"buckets": ["32x16", "16x32"]}
        return choose_pictures(dataset, backbone, make(data=data, **settings))

    def split(self, chosen: Chosen) -> tuple[set[str], set[str]]:
        trained = {chosen.dataset[index].id for bucket in chosen.buckets for index in bucket.pictures}
        return trained, {chosen.dataset[index].id for bucket in chosen.buckets for index in bucket.held_out}

    def test_they_are_trained_on_by_no_seed(self, backbone: Any, run_config: Config) -> None:
        """So many of them, each in its bucket; whatever the seed of the run."""
        dataset = known(*[(32, 16), (16, 32)] * 10)
        found = [self.chosen(dataset, backbone, run_config, validation={"holdout": 6}, seed=s) for s in (0, 1)]
        trained, held = self.split(found[0])
        assert (len(trained), len(held), trained & held) == (14, 6, set())
        assert self.split(found[1]) == (trained, held)
        assert all(dataset[index].size == bucket.size for bucket in found[0].buckets for index in bucket.held_out)
        assert found[0].summary().endswith("6 pictures held out to measure the loss on")

    def test_another_seed_of_validation_holds_out_others(self, backbone: Any, run_config: Config) -> None:
        dataset = known(*[(32, 16)] * 20)
        one, other = (
            self.split(self.chosen(dataset, backbone, run_config, validation={"holdout": 6, "seed": s}))[1]
            for s in (0, 1)
        )
        assert one != other

    def test_they_stay_held_out_when_pictures_are_added(self, backbone: Any, run_config: Config) -> None:
        """All but those that a new picture takes the place of."""
        few, many = known(*[(32, 16)] * 20), known(*[(32, 16)] * 22)
        one, other = (
            self.split(self.chosen(d, backbone, run_config, validation={"holdout": 6}))[1] for d in (few, many)
        )
        assert len(one & other) >= 4
        assert other - one <= {"p20", "p21"}

    def test_something_must_be_left(self, backbone: Any, run_config: Config) -> None:
        with pytest.raises(ConfigError, match=r"validation\.holdout = 2 leaves nothing to train on: 2 pictures"):
            self.chosen(known((32, 16), (32, 16)), backbone, run_config, validation={"holdout": 2})


def test_the_digest_tells_whether_a_run_trains_on_the_same(backbone: Any, run_config: Config) -> None:
    """Another id, caption, size, order, number of pictures, bucket or split is another digest; another seed is not."""
    dataset = known((32, 16), (16, 32), (40, 40))

    def digest(pictures: Sequence[Sample] = dataset, **sections: Any) -> str:
        return choose_pictures(pictures, backbone, run_config(**{"data": {"buckets": "auto"}, **sections})).digest

    same = digest()
    assert digest(known((32, 16), (16, 32), (40, 40)), seed=5) == same
    others = [
        digest([Sample("p9", "caption 0", unopened, (32, 16)), *dataset[1:]]),
        digest([Sample("p0", "caption 9", unopened, (32, 16)), *dataset[1:]]),
        digest([Sample("p0", "caption 0", unopened, (32, 17)), *dataset[1:]]),
        digest(dataset[::-1]),
        digest(dataset[:2]),
        digest([*dataset, *known((4, 4))]),
        digest(data={"width": 12, "height": 16}),
        digest(validation={"holdout": 1}),
    ]
    assert len({same, *others}) == 9
