"""Latency tables: what is measured, what is interpolated, what is refused."""

import itertools
import json
from pathlib import Path

import pytest

from dnas.cli import main
from dnas.errors import UserError
from dnas.nn.inverted_residual import InvertedResidual
from dnas.search.search import opened
from dnas.space.holes import Channels, Shape, Width
from dnas.space.latency import LatencyTable, Operation, operations, read_latency
from dnas.space.spec import Leaf, Space, decisions, fill
from tests.spaces import ALL, random_choices


def linear_table(space: Space) -> LatencyTable:
    """A table in which an operation takes as many nanoseconds as it has channels, in and out."""
    found = operations(space.spec, space.input)
    rows = {}
    for name, operation in found.items():
        rows[name] = {}
        for point in operation.points():
            spec, x = operation.at(point)
            time = 1000.0 * (x.channels.size + spec.out(x).channels.size)
            rows[name][point] = (time, 0.9 * time, 1.1 * time)
    return LatencyTable(rows)


@pytest.mark.parametrize("space", ALL, ids=lambda s: s.name)
def test_what_is_linear_is_interpolated_exactly(space: Space) -> None:
    """Open at any choice == closed == the sum over its operations, widths that were not measured included."""
    table = linear_table(space)
    count, known = table.count(space.spec, space.input), decisions(space.spec)
    for seed in range(5):
        choices = random_choices(space, seed)
        leaves = fill(space.spec, choices).leaves(space.input)
        expected = sum(1000 * (leaf.x.channels.size + leaf.spec.out(leaf.x).channels.size) for leaf in leaves)
        assert count.at({key: known[key].index(choice) for key, choice in choices.items()}) == expected


def test_equal_blocks_share_a_row() -> None:
    widths = (8, 16, 24, 32, 40)
    x = Shape(Channels.of(Width("a", widths)), 8, 4)
    first, second = (InvertedResidual(Width(key, widths), residual=True) for key in ("a", "a"))
    other = InvertedResidual(Width("b", widths))
    assert Operation.of(Leaf(first, x)).name == Operation.of(Leaf(second, x)).name
    assert Operation.of(Leaf(other, x)).name != Operation.of(Leaf(first, x)).name
    renamed = Shape(Channels.of(Width("c", widths)), 8, 4)
    assert Operation.of(Leaf(other, renamed)).name == Operation.of(Leaf(other, x)).name
    assert Operation.of(Leaf(other, x)).points() == list(itertools.product((0, 2, 4), repeat=2))


@pytest.mark.slow
def test_the_command_writes_a_table_that_a_search_keeps(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "latency.json", tmp_path / "run"
    words = ["--space", "tiny_reid", "--height", "32", "--width", "16", "--rounds", "3", "--device", "cpu"]
    assert main(["latency", *words, "-o", str(file)]) == 0
    content = json.loads(file.read_text())
    for row in content["operations"]:
        for point in row["points"]:
            assert 0 < point["q25_ns"] <= point["median_ns"] <= point["q75_ns"]
    space = next(space for space in ALL if space.name == "tiny_reid")
    count = read_latency(file, space).count(space.spec, space.input)
    known = decisions(space.spec)
    middle = count.at({key: len(d.options) // 2 for key, d in known.items()})
    road = ["--data", str(pedestrians), "--input.height", "32", "--input.width", "16", "--holdout", "0.4"]
    small = ["--optim.identities", "3", "--optim.images", "2", "--optim.epochs", "2", "--device", "cpu"]
    budget = ["--budget.latency", f"{middle / 1e3:.0f}us", "--budget.latency_table", str(file)]
    assert main(["search", *road, *small, *budget, "--out", str(run)]) == 0
    found = json.loads((run / "genotype.json").read_text())
    assert count.at({key: known[key].index(choice) for key, choice in found["choices"].items()}) <= middle + 1000
    assert found["search"]["expected_latency_ms"] > 0
    file.write_text(file.read_text().replace("median_ns", "other"))  # the run has its own copy
    assert main(["search", "--resume", str(run)]) == 0
    assert opened(run, lambda name: space)[0].budget.count.at(dict.fromkeys(known, 0)) > 0
    (run / "latency.json").rename(file)
    capsys.readouterr()
    assert main(["search", *road, *small, *budget[2:], "--budget.latency", "1us", "--out", str(tmp_path / "x")]) == 2
    assert "is impossible, the smallest network of this space has" in capsys.readouterr().err
    assert main(["search", *road[:2], *small, *budget, "--out", str(tmp_path / "y")]) == 2
    assert "measure again: dnas latency" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "1"], "rounds: found 1, allowed: 2 or more"),
        (["--batch", "0"], "batch: found 0, allowed: 1 or more"),
        (["--height", "-4"], "height: found -4, allowed: 0 to 4096"),
    ],
)
def test_numbers_out_of_range(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", "--space", "tiny_reid", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "key 'format': found 'list'"),
        ({"format": "other"}, "key 'format': found 'other', allowed: 'dnas-latency/1'"),
        ({"format": "dnas-latency/1"}, "key 'operations'"),
        ({"format": "dnas-latency/1", "operations": [{"name": "x", "points": [{"options": [0]}]}]}, "key 'operations'"),
        ({"format": "dnas-latency/1", "operations": []}, "empty"),
        (
            {"format": "dnas-latency/1", "operations": [{"name": "x", "points": [{"options": [1e999]}]}]},
            "key 'operations'",
        ),
        (
            {
                "format": "dnas-latency/1",
                "operations": [{"name": "x", "points": [{"options": [0], "median_ns": -1, "q25_ns": 1, "q75_ns": 1}]}],
            },
            "not above zero",
        ),
    ],
)
def test_other_files_are_refused(content: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_latency(file, ALL[0])
