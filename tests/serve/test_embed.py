"""Vectors of many files: in order, from any source, bad ones left out, and the same after a kill."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from dnas.cli import main
from dnas.data.picture import read_pixels, read_rgb
from dnas.errors import UserError
from dnas.serve import embed as embed_module
from dnas.serve.embed import embed_listing
from dnas.serve.listing import list_pictures, typed
from dnas.serve.network import pixels_of
from tests.serve.stub import Stub, stub


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_module, "BLOCK", 8)


@pytest.fixture
def pictures(pedestrians: Path, tmp_path: Path) -> Path:
    """A folder of folders of pictures, two of which are none."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for k, file in enumerate(sorted((pedestrians / "bounding_box_train").glob("*.jpg"))[:21]):
        (folder / ("below" if k % 2 else ".") / f"{k:02}.jpg").write_bytes(file.read_bytes())
    (folder / "08.jpg").write_bytes(b"no picture")
    (folder / "below" / "09.jpg").write_bytes((folder / "below" / "11.jpg").read_bytes()[:300])
    return folder


def test_vectors_in_order_and_bad_files_left_out(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = list_pictures([str(pictures)])
    assert [Path(path).name for path in listing.paths[:3]] == ["00.jpg", "02.jpg", "04.jpg"]
    with pytest.raises(UserError, match=r"08\.jpg: cannot be read as an image"):
        embed_listing(stub(), listing, tmp_path / "v.npz", batch=3)
    done = embed_listing(stub(), listing, tmp_path / "v.npz", 3, "skip")
    assert done.images == 19
    assert {Path(name).name for name in done.left_out} == {"08.jpg", "09.jpg"}
    assert "left out 2 files" in capsys.readouterr().err
    found = np.load(tmp_path / "v.npz")
    assert [*found["left_out"]] == [*done.left_out]
    for path, vector in zip(found["paths"], found["vectors"], strict=True):
        np.testing.assert_array_equal(stub().embed(path)[0], vector)
    assert not (tmp_path / "v.npz.partial").exists()


def test_goes_on_after_a_kill(pictures: Path, tmp_path: Path) -> None:
    listing = list_pictures([str(pictures)])
    embed_listing(stub(), listing, tmp_path / "whole.npz", 4, "skip")
    with pytest.raises(KeyboardInterrupt):
        embed_listing(stub(stop=12), listing, tmp_path / "killed.npz", 4, "skip")
    with pytest.raises(UserError, match="of other pictures or another network"):
        embed_listing(stub("b"), listing, tmp_path / "killed.npz", 4, "skip")
    block = tmp_path / "killed.npz.partial/0000000.npz"
    whole_block = block.read_bytes()
    for damaged in (whole_block[:200], b"PK\x03\x04", (tmp_path / "whole.npz").read_bytes()):
        block.write_bytes(damaged)
        with pytest.raises(UserError, match=r"0000000\.npz: damaged .*; delete it, and it is done again"):
            embed_listing(stub(), listing, tmp_path / "killed.npz", 4, "skip")
    for other in (tmp_path / "killed.npz.partial").glob("000000[12].npz"):
        other.unlink()  # done meanwhile
    block.write_bytes(whole_block)
    rest = stub()
    embed_listing(rest, listing, tmp_path / "killed.npz", 4, "skip")
    assert isinstance(rest.network, Stub)
    assert 0 < rest.network.seen <= 13  # the first of three blocks was done
    whole, killed = (np.load(tmp_path / name) for name in ("whole.npz", "killed.npz"))
    assert whole.files == killed.files
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], killed[name])


def test_sources(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest's columns, beside files that are in none; paths on standard input; names that say who it is."""
    manifest = tmp_path / "some.csv"
    manifest.write_text("path,identity,time\npictures/00.jpg,ann,7\npictures/02.jpg,007,2.5\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{pictures}/04.jpg\n\n{pictures}/06.jpg\n"))
    found = list_pictures([str(pictures / "10.jpg"), str(manifest), "-"])
    assert [Path(path).name for path in found.paths] == ["10.jpg", "00.jpg", "02.jpg", "04.jpg", "06.jpg"]
    assert found.columns == {"identity": ["", "ann", "007", "", ""], "time": ["", 7, 2.5, "", ""]}
    assert [*found.columns] == ["identity", "time"]  # as in the manifest
    assert [typed(text) for text in ("-3", "1e400", "nan", "0.50", "")] == [-3, "1e400", "nan", "0.50", ""]
    (tmp_path / "0012_c3s1_000001_00.jpg").write_bytes((pictures / "00.jpg").read_bytes())
    assert list_pictures([str(tmp_path / "0012_c3s1_000001_00.jpg")], named=True).columns == {
        "identity": [12],
        "camera": [3],
    }
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.csv").write_text("file\nx.jpg\n")
    for source, named, message in (
        (tmp_path / "empty", False, "no images there"),
        (tmp_path / "none", False, "no such file or folder"),
        (tmp_path / "wrong.csv", False, "column path is missing, found file"),
        (pictures, True, "file name does not parse"),
    ):
        with pytest.raises(UserError, match=message):
            list_pictures([str(source)], named)


def test_what_a_picture_may_be(pictures: Path) -> None:
    """All the same pixels; anything else is one clear line."""
    file = pictures / "00.jpg"
    expected = read_pixels(file, 24, 12)
    pixels = np.asarray(Image.open(file).convert("RGB"))
    for picture in (str(file), file, Image.open(file), pixels, torch.from_numpy(pixels.copy())):
        np.testing.assert_array_equal(pixels_of(picture, 24, 12), expected)
    assert stub().embed(np.stack([pixels, pixels])).shape == (2, 12)
    assert stub().embed(pixels).shape == (1, 12)
    assert stub().embed([]).shape == (0, 12)
    for wrong, message in (
        (pixels.astype(np.float32), "found float32 of shape"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"found uint8 of shape \(3, 8, 8\)"),
        (pixels[:0], "found no pixels"),
        (7, "found int"),
    ):
        with pytest.raises(UserError, match=message):
            pixels_of(wrong, 24, 12)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["turned.jpg", "turned.tif", "grey16.png"])
def test_an_open_picture_is_its_file(kind: str, tmp_path: Path) -> None:
    """Turned once, and scaled as a file is."""
    file = tmp_path / kind
    grey = np.arange(32 * 16, dtype=np.uint16).reshape(32, 16) * 128
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    if "grey16" in kind:
        Image.fromarray(grey).save(file)
    else:
        Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB").save(file, exif=exif, quality=100)
    expected = read_pixels(file, 24, 12)
    with Image.open(file) as opened:
        np.testing.assert_array_equal(pixels_of(opened, 24, 12), expected)
    np.testing.assert_array_equal(pixels_of(read_rgb(file), 24, 12), expected)
    assert len(np.unique(expected)) > 50
    with pytest.raises(UserError, match=r"cannot be read \(floating-point pixels, allowed"):
        pixels_of(Image.fromarray(grey.astype(np.float32)), 24, 12)


@pytest.mark.slow
def test_by_command_in_one_process_and_two(pedestrians: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--data", str(pedestrians), "--out", str(run), "--backbone", "resnet18", "--backbone_width", "0.125"]
    words += ["--device", "cpu", "--input.height", "32", "--input.width", "16", "--optim.identities", "3"]
    assert main(["retrain", *words, "--optim.images", "2", "--optim.epochs", "1", "--test", "false"]) == 0
    images, small = str(pedestrians / "query"), ["--device", "cpu", "--batch", "8", "--named"]
    assert main(["embed", str(run), images, *small, "-o", str(tmp_path / "one.npz")]) == 0
    rest = ["embed", str(run), images, *small, "-o", str(tmp_path / "two.npz")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, "-m", "dnas.cli", *rest], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (np.load(tmp_path / name) for name in ("one.npz", "two.npz"))
    assert [*one["paths"]] == [*two["paths"]]
    assert [*one["column identity"]] == [str(int(Path(path).stem.split("_")[0])) for path in one["paths"]]
    np.testing.assert_allclose(one["vectors"], two["vectors"], atol=1e-6)
    for words, message in ((["v.csv"], "a name that ends in .npz"), (["v.npz", "--batch", "0"], "batch: found 0")):
        assert main(["embed", str(run), images, "-o", *words]) == 2, message
