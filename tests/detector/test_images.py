"""Any readable image gives RGB pixels; anything else gives one sentence."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from detector.images import find_images, read_image
from detector.training.problems import Problems
from detector.training.training_set import annotated_image, image_size

COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [200, 100, 50]], [[0, 0, 0], [9, 9, 9]]], np.uint8
)


def save(path: Path, image: Image.Image, **more: Any) -> Path:
    image.save(path, **more)
    return path


def test_rgb_is_as_it_is(tmp_path: Path) -> None:
    pixels = read_image(save(tmp_path / "x.png", Image.fromarray(COLOURS)))
    assert pixels.dtype == np.uint8 and (pixels == COLOURS).all() and pixels.flags.c_contiguous


def test_grey_palette_and_bilevel(tmp_path: Path) -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    assert (read_image(save(tmp_path / "g.png", Image.fromarray(grey)))[..., 1] == grey).all()
    assert (read_image(save(tmp_path / "p.png", Image.fromarray(COLOURS).quantize(8))) == COLOURS).all()
    bilevel = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
    assert read_image(save(tmp_path / "b.png", bilevel)).max() == 255


def test_sixteen_bit_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 25700, 65535]], np.uint16)
    for suffix in (".png", ".tif"):
        pixels = read_image(save(tmp_path / f"x{suffix}", Image.fromarray(deep)))
        assert pixels.tolist() == [[[0] * 3, [1] * 3, [100] * 3, [255] * 3]]


def test_sixteen_bit_is_the_same_in_either_order_of_bytes(tmp_path: Path) -> None:
    for mode, order in (("I;16", "<"), ("I;16B", ">")):
        dark = np.array([[0, 1, 128, 250]], f"{order}u2")
        path = save(tmp_path / f"{mode[2:]}.tif", Image.frombytes(mode, (4, 1), dark.tobytes()))
        with Image.open(path) as image:
            assert image.mode == mode
        assert read_image(path)[0, :, 0].tolist() == [0, 0, 0, 1]


def test_floating_point_is_stretched(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[-1.0, 0.0, 1.0]], np.float32))
    assert read_image(save(tmp_path / "x.tif", image))[0, :, 0].tolist() == [0, 128, 255]


def test_transparency_is_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    read = read_image(save(tmp_path / "x.png", Image.fromarray(pixels, "RGBA")))
    assert read.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert read_image(save(tmp_path / "la.png", Image.new("LA", (1, 1), (7, 0)))).tolist() == [[[255] * 3]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(read_image(save(tmp_path / "x.jpg", red))[8, 8].astype(int) - [255, 0, 0]).max() < 30


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view"
    path = save(tmp_path / "x.png", Image.fromarray(COLOURS), exif=exif)
    assert (read_image(path) == np.rot90(COLOURS, -1)).all()


def test_other_exif_data_may_be_damaged(tmp_path: Path) -> None:
    turn = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    date = b"\x01\x32\x00\x05\x00\x00\x00\x01\x00\x00\x00\x26"  # a fraction, of all things, at 38
    exif = (
        b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x02"
        + turn
        + date
        + bytes(4)
        + b"\x00\x00\x00\x07\x00\x00\x00\x01"
    )
    path = save(tmp_path / "x.png", Image.fromarray(COLOURS), exif=exif)
    with Image.open(path) as image, pytest.raises(AttributeError):
        ImageOps.exif_transpose(image)  # Pillow writes all the tags again
    assert (read_image(path) == np.rot90(COLOURS, -1)).all()
    turned = annotated_image(
        "x", path, np.empty((0, 4)), np.empty(0), np.ones(1, np.bool_), Problems("refuse")
    )
    assert turned is not None and (turned.width, turned.height) == COLOURS.shape[:2]


@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_is_pillows(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = save(tmp_path / "x.png", Image.fromarray(COLOURS), exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(path), expected)


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (read_image(path) == [255, 0, 0]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    assert read_image(save(tmp_path / "x.png", Image.new("RGB", size))).shape == (size[1], size[0], 3)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    def sentence(path: Path) -> str:
        with pytest.raises(OSError) as caught:
            read_image(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "no such file" in sentence(tmp_path / "missing.jpg")
    assert "folder" in sentence(tmp_path)
    (tmp_path / "empty.jpg").touch()
    assert "empty" in sentence(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    assert "not an image" in sentence(tmp_path / "text.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in (".jpg", ".png", ".tif"):
        whole = save(tmp_path / f"whole{suffix}", Image.fromarray(noise)).read_bytes()
        (tmp_path / f"cut{suffix}").write_bytes(whole[: len(whole) // 2])
        assert "cannot be read" in sentence(tmp_path / f"cut{suffix}")


def test_a_dds_file_of_unknown_pixels_is_named(tmp_path: Path) -> None:
    """Pillow knows the kind of file, and not what it has of colours."""
    header = b"DDS " + struct.pack("<4I", 124, 0, 4, 4) + bytes(56) + struct.pack("<II4s20x", 32, 4, b"none")
    path = tmp_path / "x.png"
    path.write_bytes(header + bytes(200))
    for read in (read_image, image_size):
        with pytest.raises(OSError, match=r"x\.png: cannot be read as an image"):
            read(path)


def test_files_folders_and_globs(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 2))
    for name in ("b.png", "a.JPG", "sub/c.png", "sub/.hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").touch()
    assert [found.name for found in find_images([str(tmp_path)])] == ["a.JPG", "b.png", "sub/c.png"]
    assert [found.path.name for found in find_images([str(tmp_path / "*")])] == ["a.JPG", "b.png"]
    twice = find_images([str(tmp_path / "b.png"), str(tmp_path)])
    assert [found.path.name for found in twice] == ["b.png", "a.JPG", "c.png"]
    assert [found.name for found in find_images(["not-there.jpg"])] == ["not-there.jpg"]


def test_a_file_counts_once_whatever_way_its_path_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.png", "sub/y.png", "far/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, Image.new("RGB", (2, 2)))
    (tmp_path / "far" / "away").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    found = find_images(["x.png", "sub/../x.png", str(tmp_path / "sub" / ".." / "x.png"), "link/../x.png"])
    assert [image.name for image in found] == ["x.png", "link/../x.png"]  # the last is far/x.png


def test_images_that_would_share_a_name_go_by_their_paths(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, Image.new("RGB", (2, 2)))
    found = find_images([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [image.name for image in found] == [f"{tmp_path}/a/1.png", f"{tmp_path}/b/1.png", "2.png"]


def test_the_path_of_one_may_be_the_name_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.png", "b/x.png", "a/b/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / name, Image.new("RGB", (2, 2)))
    found = find_images(["a", "b"])
    assert {image.name: image.path.as_posix() for image in found} == {
        name: name for name in ("a/x.png", "b/x.png", "a/b/x.png")
    }


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    path = save(tmp_path / "photo[1].png", Image.new("RGB", (2, 2)))
    assert [found.path for found in find_images([str(path)])] == [path]


def test_a_folder_or_glob_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images in this folder"):
        find_images([str(tmp_path)])
    with pytest.raises(ValueError, match=r"matches no images \(.*\)$"):
        find_images([str(tmp_path / "*.png")])
    (tmp_path / "more").mkdir()
    with pytest.raises(ValueError, match=r"matches no images .*; it matches the folder .*more, name that$"):
        find_images([str(tmp_path / "mor*")])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([-1.0, -1.0], [0, 0]), ([70000.0, 70000.0], [0, 0]), ([0.0, 1.0], [0, 255]), ([0.0, 255.0], [0, 255])],
    ids=["flat, negative", "flat, beyond 16 bit", "0 to 1", "0 to 255"],
)
def test_floating_point_images(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == expected
