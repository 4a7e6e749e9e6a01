"""Every kind of image that is not an ordinary photograph: what it becomes, or that it is refused; and leaving out."""

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from dnas.cli import main
from dnas.data.picture import TURNS, BadImage, read_pixels, read_rgb, read_upright

RGB = np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def huge() -> bytes:
    """A PNG of 20,000 x 20,000 grey pixels in a few hundred kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    side = 20_000
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes((side + 1) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


PICTURE = Image.fromarray(RGB)
GREY16 = Image.fromarray((np.arange(512, dtype=np.uint16) * 128).reshape(32, 16))


def signed16() -> bytes:
    """A TIFF of 16 signed bits, which Pillow opens as 32: it writes none, so the tag is put into one of its own."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.SAMPLEFORMAT] = 2
    return saved(Image.fromarray(np.asarray(GREY16) // 2), "TIFF", tiffinfo=tags)


GOOD: dict[str, tuple[bytes, Callable[[], np.ndarray]]] = {  # type: ignore[type-arg]
    "rgb.png": (saved(PICTURE, "PNG"), lambda: RGB),
    "grey.png": (saved(PICTURE.convert("L"), "PNG"), lambda: np.asarray(PICTURE.convert("L").convert("RGB"))),
    "palette.png": (saved(PICTURE.convert("P"), "PNG"), lambda: np.asarray(PICTURE.convert("P").convert("RGB"))),
    "bits.png": (saved(PICTURE.convert("1"), "PNG"), lambda: np.asarray(PICTURE.convert("1").convert("RGB"))),
    "alpha.png": (saved(PICTURE.convert("RGBA"), "PNG"), lambda: RGB),
    "cmyk.tif": (saved(PICTURE.convert("CMYK"), "TIFF"), lambda: RGB),
    "grey16.png": (saved(GREY16, "PNG"), lambda: (np.asarray(GREY16) // 257).repeat(3).reshape(32, 16, 3)),
    "grey16.tif": (saved(GREY16, "TIFF"), lambda: (np.asarray(GREY16) // 257).repeat(3).reshape(32, 16, 3)),
    "signed16.tif": (signed16(), lambda: (np.asarray(GREY16) // 2 // 257).repeat(3).reshape(32, 16, 3)),
    "animated.gif": (
        saved(PICTURE.convert("P"), "GIF", save_all=True, append_images=[Image.new("P", (16, 32))]),
        lambda: np.asarray(PICTURE.convert("P").convert("RGB")),
    ),
    "one_pixel.png": (saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), lambda: np.full((32, 16, 3), (9, 8, 7))),
    "constant.png": (saved(Image.new("RGB", (16, 32), (5, 5, 5)), "PNG"), lambda: np.full((32, 16, 3), 5)),
}
BAD = {
    "empty.jpg": (b"", "cannot identify image file"),
    "text.jpg": (b"not an image", "cannot identify image file"),
    "truncated.jpg": (saved(PICTURE, "JPEG")[:400], "truncated"),
    "truncated.png": (saved(PICTURE, "PNG")[:400], "truncated"),
    "huge.png": (huge(), "20000 x 20000 pixels, allowed: up to 89 million|exceeds limit"),
    "program.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "cannot identify"),
    "offset.tif": (saved(PICTURE, "TIFF").replace(b"\x11\x01\x04\x00", b"\x11\x01\x05\x00"), "IFDRational"),
    "deep.tif": (saved(Image.fromarray(RGB[..., 0].astype(np.int32)), "TIFF"), "pixels of 32 bits, allowed: whole"),
    "float.tif": (saved(Image.fromarray(RGB[..., 0].astype(np.float32)), "TIFF"), "floating-point pixels"),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_images_are_read(name: str, tmp_path: Path) -> None:
    content, expected = GOOD[name]
    (tmp_path / name).write_bytes(content)
    np.testing.assert_allclose(read_pixels(tmp_path / name, 32, 16).astype(int), expected().astype(int), atol=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_photographs_are_turned_upright(orientation: int, kind: str, tmp_path: Path) -> None:
    """As Pillow's own ImageOps turns them, and the picture that was meant: stored turned the other way."""
    upright = Image.fromarray(RGB).resize((16, 32)).reduce(4).resize((16, 32))  # coarse: JPEG keeps it
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # the other turns undo themselves
    turn = back.get(orientation, TURNS.get(orientation))
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = tmp_path / f"a.{kind.lower()}"
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    stored.save(file, kind, exif=exif.tobytes(), **options)  # type: ignore[arg-type]
    picture_read, was_turned = read_upright(file)
    found = np.asarray(picture_read).astype(int)
    assert was_turned == (orientation in TURNS)
    assert found.shape == (32, 16, 3)
    assert np.abs(found - np.asarray(upright).astype(int)).mean() < 8
    with Image.open(file) as picture:
        np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(picture).convert("RGB")))


def test_damaged_exif_is_no_orientation(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    PICTURE.save(file, exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\xff\xff")
    assert read_rgb(file).size == PICTURE.size


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BAD[name][0])
    with pytest.raises(BadImage, match=BAD[name][1]) as caught:
        read_rgb(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot be read as an image (")
    assert "\n" not in str(caught.value)


def test_bad_images_stop_a_run_or_are_left_out(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped with the name of one; or left out of training and test, named in the run, and the same on resuming."""
    root = tmp_path / "data"
    shutil.copytree(pedestrians, root)
    victims = [sorted((root / folder).iterdir())[0] for folder in ("bounding_box_train", "query", "bounding_box_test")]
    for victim, (content, _) in zip(victims, BAD.values(), strict=False):
        victim.write_bytes(content)
    words = ["retrain", "--data", str(root), "--device", "cpu", "--backbone", "resnet18", "--backbone_width", "0.125"]
    words += ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    words += ["--optim.epochs", "2"]
    assert main([*words, "--out", str(tmp_path / "stopped")]) == 2
    error = capsys.readouterr().err.strip()
    assert any(victim.name in error for victim in victims)
    assert "\n" not in error
    assert not (tmp_path / "stopped").exists()
    out = tmp_path / "skipped"
    for _ in range(2):  # the second time from what is remembered
        shutil.rmtree(out, ignore_errors=True)
        assert main([*words, "--out", str(out), "--input.on_bad_image", "skip"]) == 0
        assert "left out 3 images that cannot be read" in capsys.readouterr().err
    recorded = json.loads((out / "data.json").read_text())
    assert [name.split("/")[1] for name in recorded["left_out"]] == [victim.name for victim in victims]
    counts = json.loads((out / "summary.json").read_text())
    assert counts["test"]["mAP"] > 0
    assert main(["retrain", "--resume", str(out)]) == 0
    assert main(["eval", str(out)]) == 0


@pytest.mark.parametrize("kind", ["one camera", "one image each", "constant images", "one pixel"])
def test_degenerate_data_trains_or_is_refused_in_one_line(
    kind: str, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it may end in numbers that are not finite, or in a traceback."""
    rows = ["path,identity,camera,split"]
    for number in range(24):
        name, camera = f"{number}.png", "one" if kind == "one camera" else f"c{number % 3}"
        split = "train" if number < 12 else ("query" if number < 16 else "gallery")
        identity = number if kind == "one image each" and split == "train" else number % 4
        picture = Image.new("RGB", (1, 1) if kind == "one pixel" else (16, 32), (number * 9, 5, 5))
        if kind == "constant images":
            picture = Image.new("RGB", (16, 32), (7, 7, 7))
        picture.save(tmp_path / name)
        rows.append(f"{name},id{identity},{camera},{split}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    words = ["--data", str(tmp_path / "data.csv"), "--device", "cpu", "--optim.epochs", "2", "--loss.eta_warmup", "0"]
    words += ["--input.height", "32", "--input.width", "16", "--optim.identities", "2", "--optim.images", "2"]
    more = ["--backbone", "resnet18", "--backbone_width", "0.125", "--attention", "dcs"]
    code = main(["retrain", *words, *more, "--out", str(tmp_path / "run")])
    assert code == (2 if kind == "one camera" else 0)
    if code:
        error = capsys.readouterr().err.strip()
        assert "no image has a match of its identity in another camera" in error
        assert "\n" not in error
        assert main(["retrain", *words, *more, "--test", "false", "--out", str(tmp_path / "untested")]) == 0
    else:
        assert 0 <= json.loads((tmp_path / "run/summary.json").read_text())["test"]["mAP"] <= 1


def test_one_identity_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PICTURE.save(tmp_path / "a.png")
    lines = ["path,identity,camera,split", "a.png,x,1,train", "a.png,x,2,query", "a.png,x,1,gallery"]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    words = ["retrain", "--data", str(tmp_path / "data.csv"), "--out", str(tmp_path / "o"), "--backbone", "resnet18"]
    assert main(words) == 2
    assert "found 1 training identities, training needs at least two" in capsys.readouterr().err
