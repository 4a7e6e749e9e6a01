"""Comparing and evaluating finished runs, on runs of a few tiny images."""

import csv
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnas.cli import main
from dnas.data.layouts import load_data
from dnas.draw.scatter import Point, draw_scatter, scatter
from dnas.eval.rerank import Reranked
from retrain.compare import compare, grouped, read_run
from retrain.load import load


@pytest.fixture(scope="module")
def runs(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two backbones, two seeds each, and one with another protocol."""
    out = tmp_path_factory.mktemp("runs")
    found = {}
    variants = [("resnet18", 0, []), ("resnet18", 1, []), ("osnet_x0_25", 0, []), ("osnet_x0_25", 1, [])]
    variants.append(("resnet18", 2, ["--flip_average", "true"]))
    for backbone, seed, extra in variants:
        words = ["--data", str(pedestrians), "--device", "cpu", "--input.height", "32", "--input.width", "16"]
        words += [
            "--backbone",
            backbone,
            "--backbone_width",
            "0.125",
            "--backbone_small",
            "true",
            "--optim.epochs",
            "1",
        ]
        words += ["--optim.epochs", "1", "--optim.identities", "3", "--optim.images", "2", "--seed", str(seed), *extra]
        folder = out / f"{backbone}-{seed}"
        assert main(["retrain", *words, "--out", str(folder)]) == 0
        found[folder.name] = folder
    return found


def four(runs: dict[str, Path]) -> list[str]:
    return [str(folder) for name, folder in runs.items() if name != "resnet18-2"]


def test_seeds_are_grouped_and_every_pair_has_an_interval(runs: dict[str, Path], tmp_path: Path) -> None:
    comparison = compare(four(runs))
    assert [len(group.runs) for group in comparison.groups] == [2, 2]
    first, second = comparison.groups
    (pair,) = comparison.pairs
    assert (pair.first, pair.second, pair.seeds) == (first.title, second.title, [0, 1])
    assert pair.difference is not None
    means = [np.mean([run.score for run in group.runs]) for group in comparison.groups]
    assert means[0] >= means[1]
    assert pair.difference.mean == pytest.approx(means[0] - means[1])
    assert pair.difference.low <= pair.difference.mean <= pair.difference.high
    by_seed = compare(four(runs), by="seed")
    assert [group.name for group in by_seed.groups] in (["seed 0", "seed 1"], ["seed 1", "seed 0"])
    assert by_seed.pairs[0].difference is None  # no seed in common
    names = {group.name for group in compare(four(runs), by="backbone").groups}
    assert names == {"resnet18", "osnet_x0_25"}


def test_what_a_search_held_out_makes_no_row_of_its_own(runs: dict[str, Path]) -> None:
    """Seeds of an inherited network each have the hold-out of their search."""
    read = [read_run(path) for path in four(runs)[:2]]
    held = [replace(one, settings={**one.settings, "holdout_seed": n}) for n, one in enumerate(read)]
    assert len(grouped(held)) == 2
    assert len(grouped([replace(one, settings={**one.settings, "inherit": True}) for one in held])) == 1


def test_tables_of_every_kind(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / f"table.{ending}") for ending in ("md", "csv", "json", "txt")]
    words = [*four(runs), "--group", "backbone", "-o", str(tmp_path / "plot.svg"), "--table", *files]
    assert main(["compare", *words]) == 0
    out = capsys.readouterr().out
    assert "paired bootstrap" in out
    assert f"wrote {tmp_path / 'plot.svg'}" in out
    content = json.loads((tmp_path / "table.json").read_text())
    assert [len(group["runs"]) for group in content["groups"]] == [2, 2]
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    markdown = (tmp_path / "table.md").read_text()
    for group, row in zip(content["groups"], rows, strict=True):
        mean = 100 * np.mean([run["test"]["mAP"] for run in group["runs"]])
        assert row["mAP (%)"].startswith(f"{mean:.1f} ± ")
        assert row["runs"] == "2"
        assert f"| {row['mAP (%)']} |" in markdown
    pair = content["pairs"][0]["difference"]
    assert f"[{100 * pair['low']:+.1f}, {100 * pair['high']:+.1f}]" in markdown
    assert (tmp_path / "table.txt").read_text() == markdown
    assert main(["compare", *four(runs), "--table", str(tmp_path / "table.docx")]) == 2
    assert "cannot write '.docx', allowed: .md, .csv, .json, .txt" in capsys.readouterr().err


def test_other_protocols_and_data_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, runs.values())]) == 2
    error = capsys.readouterr().err
    assert "measured as cosine distance, mean with the mirror image, across cameras" in error
    assert "--mixed" in error
    assert main(["compare", *map(str, runs.values()), "--mixed"]) == 0
    other = tmp_path / "other"
    shutil.copytree(runs["resnet18-0"], other)
    data = json.loads((other / "data.json").read_text())
    (other / "data.json").write_text(json.dumps({**data, "sha256": "0" * 64}))
    assert main(["compare", *four(runs), str(other)]) == 2
    assert "trained on other data" in capsys.readouterr().err
    mixed = compare([*four(runs), other], mixed=True)
    assert mixed.pairs == []
    assert sorted(len(group.runs) for group in mixed.groups) == [1, 2, 2]  # other data is another row
    assert sum("(00000000)" in group.name for group in mixed.groups) == 1
    assert compare(list(runs.values()), mixed=True).pairs == []  # another protocol: no intervals either
    assert main(["compare", str(other), str(other)]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main(["compare", *four(runs), "--group", "colour"]) == 2
    assert "group: found 'colour', allowed: attention" in capsys.readouterr().err
    damaged = (other / "per_query.npz").read_bytes()
    (other / "per_query.npz").write_bytes(damaged[: len(damaged) // 2])
    assert main(["compare", str(other), str(runs["osnet_x0_25-0"]), "--mixed"]) == 0  # no pairs: not needed
    (other / "data.json").write_text(json.dumps(data))
    assert main(["compare", str(other), str(runs["osnet_x0_25-0"])]) == 2
    assert "per_query.npz: not readable" in capsys.readouterr().err
    summary = json.loads((other / "summary.json").read_text())
    for odd, found in ((0.5, "float"), (None, "NoneType"), ([1], "list")):
        (other / "summary.json").write_text(json.dumps(summary | {"information": odd}))
        assert main(["compare", str(other), str(runs["osnet_x0_25-0"])]) == 2
        assert f"summary.json: information: expected keys and values, found {found}" in capsys.readouterr().err


def test_re_ranking_has_every_image_once(
    runs: dict[str, Path], pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where query and gallery are one set of images."""
    split, asked = load_data(str(pedestrians)).gallery, []
    rows = [
        f"{file},{pid},{camid},test" for file, pid, camid in zip(split.files, split.pids, split.camids, strict=True)
    ]
    (tmp_path / "m.csv").write_text("\n".join(["path,identity,camera,split", *rows]))
    monkeypatch.setattr("retrain.evaluate.Reranked", lambda *a, **k: asked.append(k["one_set"]) or Reranked(*a, **k))
    for data in ([], ["--data", str(tmp_path / "m.csv")]):
        assert main(["eval", four(runs)[0], *data, "--rerank", "--device", "cpu"]) == 0
    assert asked == [False, True]


def test_names_are_printed_as_they_are(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets in a name are no markup."""
    file = tmp_path / "c[red][/x].md"
    assert main(["compare", *four(runs)[:2], "--table", str(file)]) == 0
    assert "c[red][/x].md" in "".join(capsys.readouterr().out.split())


def test_pareto_front(tmp_path: Path) -> None:
    points = [Point("a", [10e6], [0.5]), Point("b", [20e6], [0.4]), Point("c", [30e6], [0.7])]
    draw_scatter(points, tmp_path / "front.svg")
    from dnas.draw.scatter import _front

    assert _front(points) == ([10, 30, 30, 30], [50, 50, 70, 70])


def test_the_legend_has_a_place_of_its_own() -> None:
    """However long names are and however full the corners."""
    names = [f"mobilenet_v2 + attention of searched attention_sites_mobilenet_v2, eta 0.{n}, weights" for n in range(8)]
    figure = scatter([Point(name, [n * 1e6 + 1e6], [n % 4 / 10]) for n, name in enumerate(names)])
    figure.canvas.draw()
    legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_tightbbox()
    assert axes is not None
    assert not legend.overlaps(axes)
    assert figure.bbox.y0 <= legend.y0
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    ticks = [text.get_window_extent() for text in figure.axes[0].get_xticklabels(which="both") if text.get_text()]
    inside = sorted((one for one in ticks if axes.x0 <= one.x0 and one.x1 <= axes.x1), key=lambda one: one.x0)
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(inside))


def test_eval_is_what_the_run_reported(
    runs: dict[str, Path], pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs["resnet18-0"]
    output = tmp_path / "eval.json"
    assert main(["eval", str(folder), "--rerank", "--k1", "5", "--json", "--output", str(output)]) == 0
    out = capsys.readouterr().out
    result = json.loads(out.strip().splitlines()[-1])
    assert json.loads(output.read_text()) == result
    reported = read_run(folder).summary["test"]
    assert {name: result["plain"]["all"][name] for name in reported} == pytest.approx(reported)
    cameras = result["plain"]["cameras"]
    total = sum(values["queries"] for values in cameras.values())
    weighted = sum(values["mAP"] * values["queries"] for values in cameras.values()) / total
    assert weighted == pytest.approx(reported["mAP"])
    assert result["reranked"]["settings"] == {"k1": 5, "k2": 6, "weight": 0.3}
    assert "k-reciprocal re-ranking" in out
    assert "camera 1" in out
    assert main(["eval", str(folder), "--distance", "euclidean", "--rerank"]) == 2
    assert "rerank: found with distance euclidean, allowed with: cosine" in capsys.readouterr().err


def test_eval_with_mirror_images(runs: dict[str, Path], pedestrians: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: list[Any] = ["eval", str(runs["resnet18-2"]), "--data", str(pedestrians), "--json"]
    found = []
    for extra in (["--flip_average", "false"], []):  # without: as the run was measured
        assert main([*words, *extra]) == 0
        found.append(json.loads(capsys.readouterr().out.strip().splitlines()[-1]))
    reported = read_run(runs["resnet18-2"]).summary["test"]
    assert found[1]["plain"]["all"]["mAP"] == pytest.approx(reported["mAP"])
    assert found[0]["protocol"] != found[1]["protocol"]
    run = load(runs["resnet18-2"], "cpu")
    images = run.decode(load_data(pedestrians).query)
    assert run.embed(images).shape == (len(images), 64)


def test_a_selection_of_everything_is_noted(runs: dict[str, Path], tmp_path: Path) -> None:
    told, quiet = (shutil.copytree(runs["resnet18-0"], tmp_path / name) for name in ("told", "quiet"))
    for folder, share in ((told, 1.0), (quiet, 0.9)):
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "selection": {"backbone.1.1": {"share": share}}}))
    assert main(["compare", str(told), str(runs["osnet_x0_25-0"]), "--table", str(tmp_path / "t.md")]) == 0
    text = (tmp_path / "t.md").read_text()
    assert "told: all of the channels selected: whatever the image, at backbone.1.1" in text
    assert compare([quiet, runs["osnet_x0_25-0"]]).notes == []
    assert not any("note" in line for line in compare([runs["resnet18-0"], runs["osnet_x0_25-0"]]).notes)
