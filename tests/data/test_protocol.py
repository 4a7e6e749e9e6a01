"""Data without cameras, and queries that are the gallery: ranked, held out, measured and compared as what they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dnas.cli import main
from dnas.data.layouts import load_data
from dnas.data.splits import Split, hold_out, matched
from dnas.errors import UserError
from retrain.load import load
from tests.searches import BY_LOGITS

SMALL = ["--input.height", "16", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
SMALL += ["--optim.epochs", "1", "--device", "cpu"]
FIXED = ["--backbone", "resnet18", "--backbone_width", "0.125"]


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def shells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten identities of three images each: a manifest without cameras; six to train on, four to test on."""
    folder = tmp_path_factory.mktemp("shells")
    rng = np.random.default_rng(0)
    rows = ["path,identity,split"]
    for identity in range(10):
        coarse = rng.integers(0, 256, (4, 4, 3))
        for number in range(3):
            noisy = (coarse + rng.integers(-60, 60, (4, 4, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((16, 16)).save(folder / f"{identity}-{number}.png")
            rows.append(f"{identity}-{number}.png,shell {identity},{'train' if identity < 6 else 'test'}")
    (folder / "shells.csv").write_text("\n".join(rows))
    return folder / "shells.csv"


def leave_one_out(similarity: torch.Tensor, pids: np.ndarray) -> float:  # type: ignore[type-arg]
    """mAP in plain loops: every image is a query, all others are the gallery."""
    precisions = []
    for query in range(len(pids)):
        order = [n for n in similarity[query].argsort(descending=True).tolist() if n != query]
        hits = [pids[n] == pids[query] for n in order]
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        precisions.append(np.mean([(k + 1) / rank for k, rank in enumerate(ranks)]))
    return float(np.mean(precisions))


@pytest.mark.slow
def test_leave_one_out_through_the_command_line(
    shells: Path, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "check", shells) == 0
    assert "ranked cameras ignored" in (out := capsys.readouterr().out)
    assert "the same image" not in out  # queries that are the gallery are no copies
    one, other = tmp_path / "one", tmp_path / "other"
    assert run("search", "--data", shells, *SMALL, *BY_LOGITS, "--holdout", 0.34, "--out", tmp_path / "search") == 0
    out = capsys.readouterr().out
    assert "2 held-out identities (6 queries, cameras ignored)" in out
    assert json.loads((tmp_path / "search/genotype.json").read_text())["search"]["data"]["protocol"] == "ignore"
    assert run("retrain", "--data", shells, *SMALL, *FIXED, "--holdout", 0.34, "--out", one) == 0
    assert "cameras ignored" in capsys.readouterr().out
    summary = json.loads((one / "summary.json").read_text())
    assert summary["protocol"]["cameras"] == json.loads((one / "data.json").read_text())["protocol"] == "ignore"
    assert summary["queries_without_match"] == 0
    trained, data = load(one, "cpu"), load_data(shells)
    assert data.query.files == data.gallery.files
    embedding = trained.embed(trained.decode(data.query))
    assert summary["test"]["mAP"] == pytest.approx(leave_one_out(embedding @ embedding.T, data.query.pids))
    capsys.readouterr()
    assert run("eval", one, "--rerank", "--json") == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert result["protocol"]["cameras"] == "ignore"
    assert result["plain"]["all"]["mAP"] == pytest.approx(summary["test"]["mAP"])
    assert result["plain"]["cameras"] == {}
    assert "cosine distance, cameras ignored" in out
    assert run("draw", "ranked", one, "-o", tmp_path / "ranked.png") == 0
    capsys.readouterr()
    assert run("card", one) == 0
    assert "cameras ignored, its own image left out" in capsys.readouterr().out
    words = ["retrain", "--data", pedestrians, *SMALL, *FIXED]
    assert run(*words, "--cameras", "ignore", "--out", other) == 0
    assert run(*words, "--out", tmp_path / "third") == 0
    capsys.readouterr()
    assert run("compare", other, tmp_path / "third") == 2
    error = capsys.readouterr().err
    assert "measured as cosine distance, across cameras" in error
    assert "as cosine distance, cameras ignored; --mixed" in error
    assert run("compare", other, "--table", tmp_path / "t.md") == 0
    assert "cosine distance, cameras ignored; mean ± standard" in (tmp_path / "t.md").read_text()


@pytest.mark.slow
def test_cameras_are_asked_for_and_not_there(
    shells: Path, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one.csv"
    lines = [line.replace("split", "split,camera") if n == 0 else f"{shells.parent}/{line},a"
             for n, line in enumerate(shells.read_text().splitlines())]  # fmt: skip
    one.write_text("\n".join(lines))
    for words, message in (
        (
            ["--data", shells, "--cameras", "other"],
            "shells.csv does not say which camera took an image; --cameras ignore",
        ),
        (["--data", f"{shells},{pedestrians}", "--test", "false"], "which camera took an image, and other sets have; "),
        (
            ["--data", one],
            "no image has a match of its identity in another camera, so nothing can be ranked; --cameras",
        ),
        (["--data", one, "--holdout", 0.34, "--test", "false"], "holdout: 0 of 6 training identities has a match in"),
    ):
        assert run("retrain", *words, *SMALL, *FIXED, "--out", tmp_path / "x") == 2
        assert message in capsys.readouterr().err
    assert run("data", "check", one) == 2
    assert "no query has a match of its identity in another camera; --cameras ignore" in capsys.readouterr().out
    assert run("data", "check", one, "--cameras", "ignore") == 0
    assert run("retrain", "--data", one, "--cameras", "ignore", *SMALL, *FIXED, "--out", tmp_path / "y") == 0


def test_the_very_image_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    """A copy of the query's bytes in the gallery is the query; another photograph by the same camera is a match."""
    rng = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    rows = [("a", 1), ("b", 1), ("copy", 1), ("c", 2), ("d", 3)]
    whole = Split.of([(tmp_path / f"{name}.png", pid, 5) for name, pid in rows])
    assert matched(whole, whole).tolist() == [False] * 5
    (tmp_path / "m.csv").write_text("path,identity,split\n" + "".join(f"{n}.png,{p},test\n" for n, p in rows))
    data = load_data(tmp_path / "m.csv", for_training=False)
    assert matched(data.query, data.gallery).tolist() == [True, True, True, False, False]
    copies = data.query.subset(np.array([True, False, True, False, False]))
    assert matched(copies, copies).tolist() == [False, False]


def test_held_out_identities_can_be_ranked() -> None:
    """20 identities of which 4 have two cameras: whatever the seed, two of them decide and two are trained on."""
    rows = [(f"{pid}-{camera}.png", pid, camera if pid <= 4 else 0) for pid in range(1, 21) for camera in (0, 1)]
    train = Split.of(rows)
    chosen = set()
    for seed in range(200):
        for share, ranked, identities in ((0.1, 2, 2), (0.4, 2, 8), (0.9, 2, 18)):
            rest, held = hold_out(train, share, seed)
            assert held.identities == identities
            assert matched(held, held).sum() == 2 * ranked
            assert len(rest) + len(held) == len(train)
        chosen.add(tuple(np.unique(hold_out(train, 0.1, seed)[1].pids).tolist()))
    assert len(chosen) == 6  # all pairs of the four
    only_one = train.subset(np.isin(train.pids, [1, *range(5, 21)]))
    with pytest.raises(
        UserError, match="holdout: 1 of 17 training identities has a match in another camera; decisions"
    ):
        hold_out(only_one, 0.1, 0)
