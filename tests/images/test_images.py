"""Pictures of every mode come out as correct RGB; every defect is one clear error."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from d4k.errors import ConfigError, DataError, OutputError
from d4k.images import (
    Crop,
    list_pictures,
    open_picture,
    picture_size,
    read_recipe,
    save_picture,
    to_float,
    to_picture,
    to_tensor,
    to_uint8,
)
from d4k.images.crop import _span

NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def pixels(path: Path) -> np.ndarray:
    image = open_picture(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def png(path: Path, width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> Path:
    """A PNG written by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(path: Path, values: np.ndarray, colour: int, extra: bytes = b"") -> Path:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(path, values.shape[1], values.shape[0], 16, colour, rows, extra)


def swapped_profile() -> bytes:
    """SRGB with the primaries of red and blue exchanged: a picture with it shows blue where it stores red."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")


def cmyk_profile() -> bytes:
    """A press whose cyan ink is red (Lab 54, 81, 70), key is black, and the others are invisible."""
    white, black, red = bytes([255, 128, 128]), bytes([0, 128, 128]), bytes([138, 209, 198])
    nodes = b"".join(black if node & 1 else red if node & 8 else white for node in range(16))
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + nodes + bytes(range(256)) * 3
    return profile(b"prtr", b"CMYK", b"Lab ", b"A2B0", table)


def linear_grey_profile() -> bytes:
    """A grey whose numbers are proportional to light."""
    return profile(b"mntr", b"GRAY", b"XYZ ", b"kTRC", b"curv\0\0\0\0\0\0\0\0")


def profile(device: bytes, space: bytes, connection: bytes, tag: bytes, data: bytes) -> bytes:
    """An ICC profile of version 2 with one tag, under the D50 illuminant."""
    kinds = device, space, connection, b"", b"acsp"
    header = struct.pack(">I4sI4s4s4s12s4s", 144 + len(data), b"lcms", 0x02100000, *kinds)
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, tag, 144, len(data)) + data


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_opaque_modes_come_out_as_pillow_shows_them(tmp_path, mode, ending):
    """1-bit, grey, palette and RGB pictures keep their colours in every lossless format."""
    stored = Image.fromarray(NOISE).convert(mode)
    stored.save(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(pixels(tmp_path / f"a.{ending}"), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    """Each channel of the result is `alpha * colour + (1 - alpha) * 255`, within rounding."""
    alpha = np.arange(54, dtype=np.uint8).reshape(6, 9) * 4
    stored = Image.fromarray(NOISE).convert(mode[:-1])
    colour = np.asarray(stored.convert("RGB"), float)
    stored.putalpha(Image.fromarray(alpha))
    stored.save(tmp_path / "a.png")
    weight = alpha[..., None] / 255
    expected = weight * colour + (1 - weight) * 255
    assert np.abs(pixels(tmp_path / "a.png") - expected).max() <= 1


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"], ids=["index", "table"])
def test_a_transparent_palette_entry_is_white(tmp_path, transparency):
    """Index 0 is red and stays; index 1 is transparent, whatever its colour."""
    stored = Image.new("P", (2, 1))
    stored.putpalette([255, 0, 0, 0, 0, 255])
    stored.putpixel((1, 0), 1)
    stored.save(tmp_path / "a.png", transparency=transparency)
    assert pixels(tmp_path / "a.png").tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_16_bit_grey_is_scaled_and_rounded_not_clipped(tmp_path):
    """PNG and TIFF of either byte order give `round(value / 257)`."""
    values = np.linspace(0, 65535, 9999).astype(np.uint16).reshape(1, -1)
    expected = grey(np.round(values / 257))
    Image.fromarray(values).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "little.tif", values, byteorder="<")
    tifffile.imwrite(tmp_path / "big.tif", values, byteorder=">")
    for name in ("a.png", "little.tif", "big.tif"):
        np.testing.assert_array_equal(pixels(tmp_path / name), expected)


def test_16_bit_grey_keeps_its_transparent_value_and_its_polarity(tmp_path):
    """A PNG's transparent value becomes white; in a TIFF that says white is zero, zero is white."""
    values = np.array([[0, 25700, 65535]], np.uint16)
    png16(tmp_path / "a.png", values, 0, chunk(b"tRNS", struct.pack(">H", 25700)))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), grey([[0, 255, 255]]))
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), grey([[255, 155, 0]]))


def test_16_bit_colours_keep_their_high_byte(tmp_path):
    """RGB in PNG and TIFF, and opaque RGBA and grey with alpha in PNG."""
    values = NOISE.astype(np.uint16) * 257
    opaque = np.full((*NOISE.shape[:2], 1), 65535, np.uint16)
    png16(tmp_path / "rgb.png", values, 2)
    png16(tmp_path / "rgba.png", np.concatenate([values, opaque], 2), 6)
    tifffile.imwrite(tmp_path / "rgb.tif", values, photometric="rgb")
    for name in ("rgb.png", "rgba.png", "rgb.tif"):
        np.testing.assert_array_equal(pixels(tmp_path / name), NOISE)
    png16(tmp_path / "la.png", np.concatenate([values[..., :1], opaque], 2), 4)
    np.testing.assert_array_equal(pixels(tmp_path / "la.png"), grey(NOISE[..., 0]))


@pytest.mark.parametrize(
    ("dtype", "white"),
    [("int32", 65535), ("int32", 2**31 - 1), ("float32", 1), ("float32", 255), ("float32", 65535), ("float32", 1e9)],
)
def test_wide_greys_take_the_smallest_usual_white_that_holds_them(tmp_path, dtype, white):
    """Values up to a usual white are scaled by it; negative ones are black."""
    values = np.array([[-1, 0, white * 0.25, white * 0.7, white]]).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert np.abs(pixels(tmp_path / "a.tif")[0, :, 0] - np.array([0, 0, 63.75, 178.5, 255])).max() <= 0.5


def test_a_grey_that_is_not_finite_is_an_error(tmp_path):
    """NaN has no colour."""
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, np.nan]], np.float32))
    with pytest.raises(DataError, match=r"a\.tif .*not finite"):
        open_picture(tmp_path / "a.tif")


def test_cmyk_comes_out_as_rgb_with_the_right_polarity(tmp_path):
    """Magenta and yellow ink make red in JPEG, which stores inks inverted, and in TIFF, which does not."""
    stored = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tif"):
        stored.save(tmp_path / name)
        assert np.abs(pixels(tmp_path / name).astype(int) - [255, 0, 0]).max() <= 3


def test_an_embedded_profile_is_converted_to_srgb(tmp_path):
    """A profile that exchanges red and blue exchanges them; the alpha channel and other modes are not disturbed."""
    stored = Image.fromarray(NOISE)
    swapped = swapped_profile()
    stored.save(tmp_path / "rgb.png", icc_profile=swapped)
    stored.quantize(64).save(tmp_path / "palette.png", icc_profile=swapped)
    stored.putalpha(255)
    stored.save(tmp_path / "rgba.png", icc_profile=swapped)
    for name in ("rgb.png", "rgba.png", "palette.png"):
        assert np.abs(pixels(tmp_path / name).astype(int) - NOISE[..., ::-1]).max() <= 2
    assert "icc_profile" not in open_picture(tmp_path / "rgb.png").info


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_converted_with_and_without_alpha(tmp_path, mode):
    """Half of the light is 188 of 255 in sRGB."""
    Image.new("L", (2, 2), 128).convert(mode).save(tmp_path / "a.png", icc_profile=linear_grey_profile())
    assert np.abs(pixels(tmp_path / "a.png").astype(int) - 188).max() <= 1


def test_a_cmyk_profile_decides_what_the_inks_look_like(tmp_path):
    """On a press whose cyan is red, cyan comes out red and paper white."""
    stored = Image.new("CMYK", (2, 1))
    stored.putpixel((0, 0), (255, 0, 0, 0))
    stored.save(tmp_path / "a.tif", icc_profile=cmyk_profile())
    assert np.abs(pixels(tmp_path / "a.tif")[0].astype(int) - [[255, 0, 0], [255, 255, 255]]).max() <= 4


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_profile_that_does_not_fit_is_passed_over(tmp_path, mode):
    """Broken bytes, and a profile of another colour space, leave the plain conversion."""
    stored = Image.fromarray(NOISE).convert(mode)
    broken = b"junk" if mode == "RGB" else swapped_profile()
    stored.save(tmp_path / "a.tif", icc_profile=broken)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_every_exif_orientation_is_applied(tmp_path, ending):
    """All eight, against the same turns in numpy, and not left for a later reader to apply again."""
    turns = {
        1: NOISE,
        2: NOISE[:, ::-1],
        3: NOISE[::-1, ::-1],
        4: NOISE[::-1],
        5: NOISE.swapaxes(0, 1),
        6: np.rot90(NOISE, -1),
        7: NOISE[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(NOISE),
    }
    for orientation, expected in turns.items():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        path = tmp_path / f"{orientation}.{ending}"
        Image.fromarray(NOISE).save(path, exif=exif)
        np.testing.assert_array_equal(pixels(path), expected)
        assert open_picture(path).getexif().get(ExifTags.Base.Orientation) is None


def test_a_stream_is_read_and_named_by_its_label(tmp_path):
    """A callable may return any binary stream; it is closed afterwards."""
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    stream = io.BytesIO((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(np.asarray(open_picture(lambda: stream)), NOISE)
    assert stream.closed
    with pytest.raises(DataError, match="picture shard 3") as caught:
        open_picture(lambda: io.BytesIO(b"no picture"), label="shard 3")
    assert caught.value.path == "shard 3"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "bmp"])
def test_a_truncated_picture_is_an_error_that_names_it(tmp_path, ending):
    """Half a file is no picture, in any format."""
    path = tmp_path / f"a.{ending}"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a\.{ending} cannot be read.*leave it out") as caught:
        open_picture(path)
    assert caught.value.path == path


def test_a_damaged_chunk_is_an_error(tmp_path):
    """A wrong checksum is found."""
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[data.index(b"IDAT") + 8] ^= 255
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        open_picture(tmp_path / "a.png")


def test_what_is_no_picture_is_an_error(tmp_path):
    """A missing file, a folder, an empty file, a text and a format that is not allowed."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(NOISE).save(tmp_path / "a.gif")
    for name in ("empty.png", "text.png", "a.gif"):
        with pytest.raises(DataError, match="cannot be read as PNG, JPEG, WebP, TIFF or BMP"):
            open_picture(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        open_picture(tmp_path / "gone.png")
    with pytest.raises(DataError, match="Is a directory"):
        open_picture(tmp_path)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    """20,000 by 20,000 pixels are too many although the file has no pixel data to decode."""
    bomb = png(tmp_path / "bomb.png", 20_000, 20_000, 8, 2, b"")
    for read in (open_picture, picture_size):
        with pytest.raises(DataError, match=r"bomb\.png has 20000x20000 pixels, more than the 300,000,000 allowed"):
            read(bomb)


def test_the_limit_itself_is_allowed(tmp_path):
    """`max_pixels` is the largest number that passes."""
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    assert picture_size(tmp_path / "a.png", max_pixels=54) == (9, 6)
    with pytest.raises(DataError, match="more than the 53 allowed"):
        picture_size(tmp_path / "a.png", max_pixels=53)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_pillows_lower_limit_does_not_disturb_and_is_restored(tmp_path, monkeypatch, ending):
    """Neither its warning nor its error stops a picture, and it is the same after good and bad pictures."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    Image.fromarray(NOISE).save(tmp_path / f"a.{ending}")
    assert open_picture(tmp_path / f"a.{ending}").size == (9, 6)
    assert Image.MAX_IMAGE_PIXELS == 20
    with pytest.raises(DataError):
        open_picture(tmp_path)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_readers_that_overlap_share_the_raised_limit(tmp_path, monkeypatch):
    """A reader that ends while another runs does not bring Pillow's limit back too early."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    Image.fromarray(NOISE).save(tmp_path / "a.png")

    def source() -> io.BufferedReader:
        picture_size(tmp_path / "a.png")
        return (tmp_path / "a.png").open("rb")

    assert picture_size(source) == (9, 6)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_uint8_and_float_are_exact_inverses():
    """All 256 values survive the way to [-1, 1] and back; the ends are the ends."""
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    np.testing.assert_allclose(floats, np.arange(256) / 127.5 - 1, atol=1e-7)
    assert torch.equal(to_uint8(floats), every)
    assert torch.equal(to_uint8(floats.double()), every)


@given(st.floats(-3, 3, width=32))
def test_to_uint8_rounds_to_the_nearest_and_clamps(value):
    """Against numpy in double precision, off by nothing but a tie."""
    expected = np.clip((value + 1) * 127.5, 0, 255)
    assert abs(int(to_uint8(torch.tensor(value))) - expected) <= 0.5 + 1e-4


def test_tensors_and_pictures_are_inverses():
    """Channels first, rows second; a picture that is not RGB is refused."""
    image = Image.fromarray(NOISE)
    tensor = to_tensor(image)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor, NOISE.transpose(2, 0, 1))
    np.testing.assert_array_equal(np.asarray(to_picture(tensor)), NOISE)
    with pytest.raises(DataError, match="mode L"):
        to_tensor(image.convert("L"))


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    wanted=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 2**40),
    position=st.sampled_from(["center", "random"]),
)
def test_a_crop_has_the_size_asked_for_and_repeats(size, wanted, seed, position):
    """Whatever the sizes; the same seed gives the same picture."""
    ramp = np.add.outer(np.arange(size[0]) * 3, np.arange(size[1])).astype(np.uint8)
    crop = Crop(*wanted, position, flip=True)
    first, second = (crop(Image.fromarray(ramp), seed) for _ in range(2))
    assert first.size == wanted[::-1]
    assert first.tobytes() == second.tobytes()


def test_a_cut_has_its_length_and_stays_inside():
    """For sides whose scaled length is not whole, at both ends: Pillow refuses a box that sticks out."""
    for length, wanted, extra in itertools.product(range(1, 60), range(1, 60, 3), (1, 1.07, 1.5)):
        scale = wanted / length * extra
        for where in (0, 0.5, 0.999):
            start, end = _span(length, wanted, scale, where)
            assert 0 <= start < end <= length
            assert abs((end - start) * scale - wanted) < 1e-9


def test_a_crop_covers_and_cuts_the_middle():
    """It equals resizing the short side and cutting the middle out of the long one, within one level."""
    image = Image.effect_noise((240, 120), 60)
    expected = image.resize((120, 60), Image.Resampling.LANCZOS).crop((30, 0, 90, 60))
    got = Crop(60, 60)(image, 0)
    assert np.abs(np.asarray(got, int) - np.asarray(expected, int)).max() <= 1
    tall = Crop(60, 60)(image.transpose(Image.Transpose.TRANSPOSE), 0)
    assert np.abs(np.asarray(tall, int).T - np.asarray(expected, int)).max() <= 1


def test_a_crop_without_scaling_is_a_window_of_the_picture():
    """Pixels are untouched, and random positions reach every window, both ends included."""
    row = np.arange(10, dtype=np.uint8)
    image = Image.fromarray(np.stack([row] * 4))
    assert np.asarray(Crop(4, 4)(image, 0)).tolist() == [[3, 4, 5, 6]] * 4
    starts = set()
    for seed in range(100):
        window = np.asarray(Crop(4, 4, "random")(image, seed))[0].tolist()
        assert window == list(range(window[0], window[0] + 4))
        starts.add(window[0])
    assert starts == set(range(7))


def test_rows_and_columns_are_drawn_separately():
    """A random crop of a tall picture moves in rows, and its column draw does not repeat the row draw."""
    column = Image.fromarray(np.arange(10, dtype=np.uint8).reshape(10, 1).repeat(4, 1))
    row = column.transpose(Image.Transpose.TRANSPOSE)
    crop = Crop(4, 4, "random")
    tops = [np.asarray(crop(column, seed))[0, 0] for seed in range(30)]
    lefts = [np.asarray(crop(row, seed))[0, 0] for seed in range(30)]
    assert len(set(tops)) > 3
    assert tops != lefts


def test_flip_mirrors_half_of_the_pictures_and_moves_none():
    """With the same seed, a picture is at the same place with or without `flip`."""
    image = Image.fromarray(NOISE[:4])
    flipped = 0
    for seed in range(200):
        plain = np.asarray(Crop(4, 4, "random")(image, seed))
        maybe = np.asarray(Crop(4, 4, "random", flip=True)(image, seed))
        mirrored = np.array_equal(maybe, plain[:, ::-1])
        assert mirrored != np.array_equal(maybe, plain)
        flipped += mirrored
    assert 70 < flipped < 130


@pytest.mark.parametrize("options", [{"height": 0}, {"width": -1}, {"height": 2.5}, {"width": True}])
def test_a_crop_of_no_size_is_refused(options):
    """The message names the side, the value and what is allowed."""
    with pytest.raises(ValueError, match=rf"{next(iter(options))} is .*at least 1"):
        Crop(**{"height": 4, "width": 4, **options})


def test_an_unknown_position_is_refused():
    """The message lists the known ones."""
    with pytest.raises(ValueError, match="'top'; allowed: center, random"):
        Crop(4, 4, "top")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@given(recipe=st.dictionaries(st.text(), json_values, max_size=4))
def test_a_recipe_survives_in_every_format(tmp_path_factory, ending, recipe):
    """Any JSON object, any text: accents, emoji, nothing at all."""
    path = tmp_path_factory.getbasetemp() / f"recipe.{ending}"
    save_picture(Image.fromarray(NOISE), path, recipe=recipe)
    assert read_recipe(path) == recipe


def test_png_is_lossless_and_quality_counts_in_jpeg(tmp_path):
    """Uppercase endings work; folders are made; a lower quality is a smaller file."""
    image = Image.effect_noise((64, 64), 50).convert("RGB")
    save_picture(image, tmp_path / "new" / "A.PNG")
    np.testing.assert_array_equal(pixels(tmp_path / "new" / "A.PNG"), np.asarray(image))
    save_picture(image, tmp_path / "fine.jpg")
    save_picture(image, tmp_path / "rough.jpg", quality=20)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    assert (tmp_path / "fine.jpg").read_bytes() == buffer.getvalue()
    assert (tmp_path / "rough.jpg").stat().st_size < (tmp_path / "fine.jpg").stat().st_size


def test_a_picture_that_cannot_be_written_leaves_nothing_new(tmp_path, monkeypatch):
    """An unknown ending, a recipe beyond EXIF, a full disk: the old file stays, no half file appears."""
    image = Image.fromarray(NOISE)
    with pytest.raises(ConfigError, match=r"'\.gif'; allowed: \.png, \.jpg, \.jpeg, \.webp"):
        save_picture(image, tmp_path / "a.gif")
    with pytest.raises(ConfigError, match=r"write a \.png instead"):
        save_picture(image, tmp_path / "a.jpg", recipe={"prompt": "x" * 70_000})
    save_picture(image, tmp_path / "a.jpg", recipe={"prompt": "x" * 64_900})
    before = (tmp_path / "a.jpg").read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        save_picture(image, tmp_path / "a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


@pytest.mark.parametrize(("text", "reason"), [(b"{half", "is not readable JSON"), (b"[1]", "not a JSON object")])
def test_a_malformed_recipe_is_an_error(tmp_path, text, reason):
    """Neither half a recipe nor a list is one."""
    rows = b"\0\0\0\0"
    path = png(tmp_path / "a.png", 1, 1, 8, 2, rows, chunk(b"iTXt", b"d4k\0\0\0\0\0" + text))
    with pytest.raises(DataError, match=reason) as caught:
        read_recipe(path)
    assert caught.value.path == path


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
def test_a_picture_without_a_recipe_is_an_error(tmp_path, ending):
    """The message says whose pictures carry one."""
    Image.fromarray(NOISE).save(tmp_path / f"a.{ending}")
    with pytest.raises(DataError, match="carries no recipe"):
        read_recipe(tmp_path / f"a.{ending}")


def test_pictures_are_listed_in_order_without_hidden_ones(tmp_path):
    """Any case of the known endings; folders and other files are no pictures."""
    pictures = ["a.jpeg", "b.PNG", "c.webp", "d.TIFF", "e.tif", "f.bmp", "g.jpg"]
    for name in (*reversed(pictures), ".h.png", "i.txt", "sub/j.png", ".k/l.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "m.png").mkdir()
    assert [path.name for path in list_pictures(tmp_path)] == pictures
    assert list_pictures(tmp_path, recursive=True)[-1] == tmp_path / "sub" / "j.png"
    assert len(list_pictures(tmp_path, recursive=True)) == 8


def test_a_folder_without_pictures_is_an_error(tmp_path):
    """Missing, a file, or empty."""
    (tmp_path / "a.txt").touch()
    for path in (tmp_path / "gone", tmp_path / "a.txt"):
        with pytest.raises(DataError, match="is not a folder"):
            list_pictures(path)
    with pytest.raises(DataError, match=r"holds no picture; looked for .*\.webp") as caught:
        list_pictures(tmp_path)
    assert caught.value.path == tmp_path


def test_pictures_in_folders_below_are_hinted_at(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "below" / "a.png")
    with pytest.raises(DataError, match="holds no picture; there are some in folders below, which recursive = true"):
        list_pictures(tmp_path)
