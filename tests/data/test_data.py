"""Reading, splitting, sampling, augmenting; and the synthetic pedestrians."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from dnas.data.augment import Augmenter, InputConfig, augment, draw
from dnas.data.images import Batch, Images, decode, normalise
from dnas.data.layouts import load_data
from dnas.data.sampler import PKSampler
from dnas.data.splits import check_matches, hold_out, split_images
from dnas.data.synthetic import FEW, SynthConfig, synthesise
from dnas.errors import UserError


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    names = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synthesise(SynthConfig(str(tmp_path / name), ids=4, cameras=2, images=2, height=32, width=16, seed=seed))
        names.append(load_data(tmp_path / name).fingerprint()["sha256"])
    assert names[0] == names[1] != names[2]


def test_pedestrians_into_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays that folder: what was renamed over it would not be seen from within."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = SynthConfig(".", ids=4, cameras=2, images=2, height=32, width=16)
    written = synthesise(config)
    assert sum(written.values()) == len(list(Path().rglob("*.jpg"))) > 0
    assert [file.name for file in tmp_path.iterdir()] == ["here"]
    with pytest.raises(UserError, match=r"out: \. exists and is not an empty folder"):
        synthesise(config)


def test_pedestrians_are_drawn_by_a_script_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process could import it."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "<stdin>", raising=False)
    written = synthesise(SynthConfig(str(tmp_path / "p"), ids=2 * FEW, cameras=2, images=2, height=32, width=16))
    assert sum(written.values()) == len(list((tmp_path / "p").rglob("*.jpg")))


@pytest.mark.slow
def test_more_processes_draw_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in (("alone", 100), ("together", 2)):
        monkeypatch.setattr("dnas.data.synthetic.FEW", few)
        monkeypatch.setattr("dnas.data.synthetic.os.cpu_count", lambda: 2)
        synthesise(SynthConfig(str(tmp_path / name), ids=4, cameras=2, images=2, height=32, width=16))
    alone, together = (load_data(tmp_path / name).fingerprint()["sha256"] for name in ("alone", "together"))
    assert alone == together


def test_synthetic_layout(pedestrians: Path) -> None:
    data = load_data(pedestrians)
    assert not set(data.train.pids) & set(data.query.pids)
    assert set(data.query.pids) == set(data.gallery.pids)
    for pid, camid in zip(data.query.pids, data.query.camids, strict=True):  # every query has a match elsewhere
        assert ((data.gallery.pids == pid) & (data.gallery.camids != camid)).any()
    assert Image.open(data.train.files[0]).size == (16, 32)
    with pytest.raises(UserError, match="not an empty folder"):
        synthesise(SynthConfig(str(pedestrians)))


def test_occluded_queries_differ_and_the_rest_is_clean(tmp_path: Path) -> None:
    for name, occluded in (("clean", False), ("occluded", True)):
        synthesise(
            SynthConfig(str(tmp_path / name), ids=4, cameras=2, images=2, height=32, width=16, occluded=occluded)
        )
    clean, occluded = load_data(tmp_path / "clean"), load_data(tmp_path / "occluded")
    assert [f.name for f in clean.query.files] == [f.name for f in occluded.query.files]
    pairs = zip(clean.query.files, occluded.query.files, strict=True)
    assert all(a.read_bytes() != b.read_bytes() for a, b in pairs)
    assert clean.train.files[0].read_bytes() == occluded.train.files[0].read_bytes()


def _write(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16)).save(file)


def test_junk_is_dropped_and_wrong_input_named(tmp_path: Path) -> None:
    for pid in (1, 2):
        _write(tmp_path / f"bounding_box_train/{pid:04d}_c1s1_000001_00.jpg")
    _write(tmp_path / "bounding_box_test/-1_c1s1_000001_00.jpg")
    _write(tmp_path / "bounding_box_test/0003_c12s1_000001_00.jpg")
    with pytest.raises(UserError, match=r"query: no such file or folder; expected bounding_box_train, query"):
        load_data(tmp_path)
    (tmp_path / "query").mkdir()
    with pytest.raises(UserError, match="query: no images"):
        load_data(tmp_path)
    _write(tmp_path / "query/0003_c1s1_000001_00.jpg")
    data = load_data(tmp_path)
    assert data.gallery.pids.tolist() == [3]
    assert data.gallery.camids.tolist() == [12]
    (tmp_path / "query/0003_c1s1_000001_00.jpg").write_bytes(b"\xff\xd8\xff not an image")
    with pytest.raises(UserError, match=r"0003_c1s1_000001_00.jpg: cannot be read as an image"):
        decode(data.query, 16, 8)
    _write(tmp_path / "query/someone.jpg")
    with pytest.raises(UserError, match=r"someone.jpg: file name does not parse"):
        load_data(tmp_path)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        load_data(tmp_path / "nowhere")


def test_truncated_image_is_named(pedestrians: Path, tmp_path: Path) -> None:
    split = load_data(pedestrians).query
    damaged = tmp_path / split.files[0].name
    damaged.write_bytes(split.files[0].read_bytes()[:-300])
    wrong = type(split)((damaged,), split.pids[:1], split.camids[:1])
    with pytest.raises(UserError, match=f"{damaged.name}: cannot be read"):
        decode(wrong, 32, 16)


def test_sixteen_bits_and_palettes_are_read(pedestrians: Path, tmp_path: Path) -> None:
    split = load_data(pedestrians).query
    ramp = np.linspace(0, 65535, 16 * 32).reshape(32, 16)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray((ramp // 257).astype(np.uint8)).convert("P").save(tmp_path / "palette.png")
    files = (tmp_path / "deep.png", tmp_path / "palette.png")
    deep, palette = decode(type(split)(files, split.pids[:2], split.camids[:2]), 32, 16).pixels
    assert int((deep.int() - palette.int()).abs().max()) <= 1
    assert len(deep.unique()) > 250


def test_one_camera_is_refused_before_training(pedestrians: Path) -> None:
    data = load_data(pedestrians)
    check_matches(data.query, data.gallery, "query and gallery")
    one = data.query.subset(data.query.camids == data.query.camids[0])
    with pytest.raises(UserError, match="query: no image has a match"):
        check_matches(one, one, "query")


def test_hold_out_and_split(pedestrians: Path) -> None:
    train = load_data(pedestrians).train
    rest, held = hold_out(train, 0.4, seed=0)
    assert len(np.unique(held.pids)) == 2
    assert not set(rest.pids) & set(held.pids)
    assert len(rest) + len(held) == len(train)
    first, second = split_images(rest, 0.2, seed=0)
    assert set(first.pids) == set(second.pids) == set(rest.pids)
    assert not set(first.files) & set(second.files)
    assert len(first) + len(second) == len(rest)
    with pytest.raises(UserError, match="leaves fewer than two"):
        hold_out(train, 0.9, seed=0)


def test_split_keeps_single_images_on_both_sides(pedestrians: Path) -> None:
    train = load_data(pedestrians).train
    one = train.subset(np.isin(np.arange(len(train)), np.unique(train.pids, return_index=True)[1]))
    first, second = split_images(one, 0.2, seed=0)
    assert len(first) == len(second) == len(one)


@pytest.mark.parametrize("counts", [[4] * 20, [1, 2, 9, 30, 3, 1], [2, 2]])
def test_sampler(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(0).shuffle(labels)
    sampler = PKSampler(labels, identities=4, images=4, seed=0)
    p = min(4, len(counts))
    seen = np.zeros(len(counts), int)
    for epoch in range(20):
        batches = sampler.epoch(epoch)
        assert batches.shape == (len(sampler), p * 4)
        assert np.array_equal(batches, sampler.epoch(epoch))
        for batch in batches:
            classes, count = np.unique(labels[batch], return_counts=True)
            assert len(classes) == p
            assert (count == 4).all()
            for label in classes:  # repeats only where an identity has too few images
                mine = batch[labels[batch] == label]
                assert len(np.unique(mine)) == min(4, counts[label])
            seen[classes] += 1
    assert not np.array_equal(sampler.epoch(0), sampler.epoch(1))
    assert seen.min() > 0.5 * seen.mean()


def whole(pixels: torch.Tensor) -> Batch:
    return Batch(pixels, torch.arange(len(pixels)), torch.zeros(len(pixels)))


def test_augment_without_randomness_is_normalise() -> None:
    pixels = torch.randint(0, 256, (3, 16, 8, 3), dtype=torch.uint8)
    numbers = draw(3, torch.Generator())
    plain = InputConfig(flip=0, pad=0, erase=0)
    assert torch.equal(augment(whole(pixels), plain, numbers), normalise(pixels))
    flipped = augment(whole(pixels), InputConfig(flip=1, pad=0, erase=0), numbers)
    assert torch.equal(flipped, normalise(pixels).flip(3))


def test_crop_moves_and_erase_blanks_a_rectangle() -> None:
    pixels = torch.randint(130, 256, (64, 16, 8, 3), dtype=torch.uint8)  # no mean colour among them
    padded = torch.nn.functional.pad(pixels, (0, 0, 2, 2, 2, 2))
    numbers = draw(64, torch.Generator().manual_seed(0))
    cropped = augment(whole(pixels), InputConfig(flip=0, pad=2, erase=0), numbers)
    windows = [normalise(padded[:, y : y + 16, x : x + 8]) for y in range(5) for x in range(5)]
    hits = torch.stack([(window == cropped).flatten(1).all(1) for window in windows])
    assert bool(hits.any(0).all())  # every image is one of the windows
    assert int(hits.any(1).sum()) > 15  # and many windows occur
    erased = augment(whole(pixels), InputConfig(flip=0, pad=0, erase=1), numbers)
    blank = erased != normalise(pixels)
    assert torch.equal(blank.any(1), blank.all(1))
    area = blank.any(1).flatten(1).double().mean(1)
    assert bool((area > 0).all())
    assert float(area.max()) < 0.5
    rows, columns = blank.any(1).any(2).sum(1), blank.any(1).any(1).sum(1)
    assert torch.equal(rows * columns, blank.any(1).flatten(1).sum(1))  # a rectangle


def test_jitter_is_torchvisions() -> None:
    pixels = torch.randint(0, 256, (6, 16, 8, 3), dtype=torch.uint8)
    numbers = draw(6, torch.Generator().manual_seed(0))
    found = augment(whole(pixels), InputConfig(flip=0, pad=0, erase=0, jitter=0.5), numbers)
    expected = []
    for image, factors in zip(pixels.permute(0, 3, 1, 2).float() / 255, 0.5 + numbers[:, 8:], strict=True):
        image = functional.adjust_brightness(image, float(factors[0]))
        image = functional.adjust_contrast(image, float(factors[1]))
        expected.append(functional.adjust_saturation(image, float(factors[2])))
    levels = (torch.stack(expected) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    difference = (found - normalise(levels)).abs().max()
    assert float(difference) < 2 / 255 / 0.22  # a level at most: torchvision's grey has weights of four digits


def test_an_augmenter_keeps_its_memory_and_forgets_nothing_else() -> None:
    """Any number of images at a time gives what all at once give."""
    pixels = torch.randint(0, 256, (40, 24, 12, 3), dtype=torch.uint8)
    numbers = draw(40, torch.Generator().manual_seed(0))
    config = InputConfig(pad=3, jitter=0.1)
    expected = augment(whole(pixels), config, numbers)
    augmenter = Augmenter(config)
    for start, stop in ((0, 40), (35, 40), (3, 4), (10, 30)):
        batch = Batch(pixels, torch.arange(start, stop), torch.zeros(stop - start))
        assert torch.equal(augmenter(batch, numbers[start:stop]), expected[start:stop])


def test_images_are_decoded_once(pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNAS_CACHE", str(tmp_path))
    train = load_data(pedestrians).train
    rest, held = hold_out(train, 0.4, seed=0)
    first = decode(train, 16, 8).pixels.clone()
    monkeypatch.setattr(Image, "open", None)  # from now on nothing can be decoded
    again, part = decode(train, 16, 8), decode(held, 16, 8)
    assert torch.equal(again.pixels, first)
    keep = torch.from_numpy(np.isin(train.pids, held.pids))
    assert torch.equal(part.pixels[part.rows], first[keep])
    assert len(rest) + len(part) == len(again)
    assert len(list((tmp_path / "images").iterdir())) == 1
    (cached,) = (tmp_path / "images").iterdir()
    content = cached.read_bytes()
    with pytest.raises(UserError, match="not callable"):
        decode(train, 32, 8)  # another size is another file
    assert len(list((tmp_path / "images").iterdir())) == 1  # and a failure leaves none
    monkeypatch.undo()
    monkeypatch.setenv("DNAS_CACHE", str(tmp_path))
    cached.write_bytes(content[:-100])  # not whole: made again
    assert torch.equal(decode(train, 16, 8).pixels, first)
    assert cached.read_bytes() == content
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DNAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cache: .*cannot be written .*set DNAS_CACHE=DIR, or none"):
        decode(train, 16, 8)
    monkeypatch.setenv("DNAS_CACHE", "none")
    assert torch.equal(decode(held, 16, 8).pixels, first[keep])


def test_batches_come_in_order_with_their_labels(pedestrians: Path) -> None:
    images = decode(load_data(pedestrians).train, 16, 8)
    order = np.random.default_rng(0).permutation(len(images)).reshape(2, -1)
    for indices, batch in zip(order, images.stream(order, torch.device("cpu")), strict=True):
        assert torch.equal(batch.labels, images.labels[indices])
        assert torch.equal(batch.pixels[batch.rows], images.pixels[images.rows[indices]])
    on_device = Images.stream(images, order, torch.device("meta"))  # the way of a GPU: gathered, then sent
    assert [tuple(batch.pixels.shape) for batch in on_device] == [(order.shape[1], 16, 8, 3)] * 2
