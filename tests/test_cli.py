"""The user's way, through the command line, on a few tiny images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from dnas.cli import main
from dnas.data.layouts import load_data
from dnas.run.config import from_plain
from dnas.run.files import read_yaml
from dnas.run.folder import RunFolder
from dnas.run.position import Position
from dnas.search.config import SearchConfig
from retrain.config import RetrainConfig
from retrain.load import load
from tests.searches import BY_LOGITS

SMALL = [
    "--input.height",
    "32",
    "--input.width",
    "16",
    "--optim.identities",
    "3",
    "--optim.images",
    "2",
    "--device",
    "cpu",
]


EPOCH = ("--loss.refresh", "epoch", "--loss.eta_warmup", 0)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_whole_road(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, searched, fixed = tmp_path / "search", tmp_path / "searched", tmp_path / "fixed"
    road = [*SMALL, "--data", pedestrians]
    assert run("search", *road, "--out", found, "--optim.epochs", 3, "--holdout", 0.4, "--budget.macs", "1M") == 0
    genotype = json.loads((found / "genotype.json").read_text())
    assert genotype["cost"]["macs"] <= 1e6
    held_out, standing = genotype["search"]["held_out"]["mAP"], genotype["search"]["standing"]
    assert held_out > 0
    assert standing["found"] == pytest.approx(held_out)  # the same network, weights and images
    assert len(standing["others"]) == 10
    below = sum(other < standing["found"] for other in standing["others"])
    assert f"above {below} of 10 random ones of its cost" in " ".join(capsys.readouterr().out.split())
    rows = [json.loads(line) for line in (found / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert not any("temperature" in row for row in rows)  # the default estimator has none
    assert rows[0]["probabilities"] != rows[2]["probabilities"]
    for ending in ("svg", "png", "dot"):
        assert run("show", found, "-o", tmp_path / f"net.{ending}") == 0
    assert run("retrain", *road, "--genotype", found, "--out", searched, "--optim.epochs", 2) == 0
    fixed_words = ["--backbone", "mobilenet_v2", "--backbone_width", 0.25, "--attention", "dcs"]
    assert run("retrain", *road, *fixed_words, "--out", fixed, "--optim.epochs", 2, "--loss.refresh", "epoch") == 0
    capsys.readouterr()
    assert run("compare", searched, fixed, "-o", tmp_path / "compare.png") == 0
    table = capsys.readouterr().out
    assert "searched tiny_reid" in table
    assert "mobilenet_v2 x0.25 + dcs" in table
    assert (tmp_path / "compare.png").stat().st_size > 1000
    summary = json.loads((searched / "summary.json").read_text())
    ap = np.load(searched / "per_query.npz")["ap"]
    assert summary["test"]["mAP"] == pytest.approx(np.nanmean(ap))
    cost = json.loads((searched / "cost.json").read_text())
    assert cost["macs"] == genotype["cost"]["macs"]
    for file in tmp_path.glob("*/*.json*"):  # what others read, too: JSON has no NaN
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(text, parse_constant=lambda word, file=file: pytest.fail(f"{file}: {word}"))


def test_probe_and_load(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", pedestrians, "--out", tmp_path / "run", "--backbone", "resnet18", "--backbone_width", 0.125]
    more = ["--attention", "dcs", "--holdout", 0.4, "--eval_every", 1, "--loss.eta_warmup", 0, "--optim.epochs", 2]
    assert run("retrain", *SMALL, *words, *more) == 0
    capsys.readouterr()
    assert run("probe", tmp_path / "run", "--json") == 0
    lines = capsys.readouterr().out.strip().splitlines()
    result = json.loads(lines[-1])
    assert set(result["information"]) == {"train", "held_out", "test"}
    for name, values in result["information"].items():
        assert values["IB"] == pytest.approx(values["I(F;X)"] - values["I(F;Y)"])
        assert values["IB"] <= values["tight bound"] + 1e-9 <= values["paper bound + H(X)"] + 2e-9, name
    assert len(result["selected"]["train"]) == 4
    assert any("stage 1: DCS" in line and "%" in line for line in lines[:-1])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["information"]["test"] == pytest.approx(result["information"]["test"])
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["assignment"]["perplexity"] >= 1
    trained = load(tmp_path / "run", "cpu")
    query = trained.decode(load_data(pedestrians).query)
    assert trained.embed(query).shape == (len(query), 64)


@pytest.mark.slow
def test_samples_inherited_weights_and_a_parameter_budget(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "search"
    road = [*SMALL, "--data", pedestrians, "--optim.epochs", 2]
    words = ["--space", "cells_reid_tiny", "--holdout", 0.4, "--budget.params", "80K"]
    words += ["--arch.prior", "none", "--arch.samples", 3, "--arch.samples_from", "logits"]
    assert run("search", *road, *words, "--out", found) == 0
    genotype = json.loads((found / "genotype.json").read_text())
    assert genotype["cost"]["params"] <= 80_000
    last = json.loads((found / "metrics.jsonl").read_text().splitlines()[-1])
    maps = [row["mAP"] for row in last["sampled"]]
    assert len(maps) > 1
    best = last["sampled"][maps.index(max(maps))]
    assert genotype["choices"] == best["choices"]
    assert last["held_out"]["mAP"] == pytest.approx(best["mAP"])
    assert 0 <= last["held_out_supernet"]["mAP"] <= 1
    assert set(genotype["search"]["health"]) >= {"idle", "undecided", "moved", "cost_ratio", "warnings"}
    health = genotype["search"]["health"]
    assert len(health["undecided"]) + len(health["equal"]) > 30  # of 34, after two epochs
    log = (found / "log.txt").read_text()
    assert ("search: warning: undecided: " in log) == (len(health["undecided"]) >= 17)
    words = ["--genotype", found, "--inherit", "true", "--optim.lr", 0, "--optim.epochs", 1]
    assert run("retrain", *road, *words, "--out", tmp_path / "inherited") == 0
    summary = json.loads((tmp_path / "inherited" / "summary.json").read_text())
    assert summary["start"] == "inherited"
    state = RunFolder(tmp_path / "inherited").load()
    weights = torch.load(found / "checkpoints" / "inherited.pt", weights_only=True)
    for name, tensor in weights.items():  # a learning rate of zero keeps them
        if not name.startswith("classifier.") and "running_" not in name and "num_batches" not in name:
            torch.testing.assert_close(state["net"][name], tensor, rtol=0, atol=0)
    capsys.readouterr()
    elsewhere = tmp_path / "elsewhere.json"
    shutil.copy(found / "genotype.json", elsewhere)
    assert run("retrain", *road, "--genotype", elsewhere, "--inherit", "true", "--out", tmp_path / "x") == 2
    assert "no such file; give --genotype the folder of a finished search" in capsys.readouterr().err
    torch.save({1: torch.ones(3)}, found / "checkpoints" / "inherited.pt")
    assert run("retrain", *road, "--genotype", found, "--inherit", "true", "--out", tmp_path / "z") == 2
    assert "expected a mapping of names to tensors" in capsys.readouterr().err
    torch.save({"neck.weight": torch.ones(3)}, found / "checkpoints" / "inherited.pt")
    assert run("retrain", *road, "--genotype", found, "--inherit", "true", "--out", tmp_path / "y") == 2
    assert "does not fit this network" in capsys.readouterr().err


@pytest.mark.slow
def test_published_weights_load_into_a_supernet(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torchvision state dict into every copy of a stage; cells start as if they were not there."""
    import search_spaces
    from search_spaces.attention_sites import attention_sites

    small = attention_sites("small_vit", "vit_tiny_16", small=True, cells=("none", "dcs")).resized(32, 16)
    monkeypatch.setattr(search_spaces, "SPACES", {"small_vit": small, "small_resnet": attention_sites(
        "small_resnet", "resnet18", small=False, cells=("none", "dcs", "se"))})  # fmt: skip
    torchvision_resnet = torchvision.models.resnet18()
    torch.save(torchvision_resnet.state_dict(), tmp_path / "resnet18.pth")
    words = [*SMALL, *BY_LOGITS, "--data", pedestrians, "--holdout", 0.4, "--optim.epochs", 1]
    words += ["--space", "small_resnet"]
    out = tmp_path / "run"
    assert run("search", *words, "--optim.lr", 0, "--weights", tmp_path / "resnet18.pth", "--out", out) == 0
    state = RunFolder(out).load()["net"]
    wanted = torchvision_resnet.state_dict()["layer3.0.conv1.weight"]
    assert any(tensor.shape == wanted.shape and torch.equal(tensor, wanted) for tensor in state.values())
    capsys.readouterr()
    words[words.index("small_resnet")] = "small_vit"
    assert run("search", *words, "--weights", tmp_path / "resnet18.pth", "--out", tmp_path / "x") == 2
    assert "is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget.macs", "3M", "--budget.params", "1M"], "budget: found macs and params, allowed: one of"),
        (["--budget.macs", "3X"], "budget.macs: found '3X', allowed: a number with K or M or G, such as 300M"),
        (["--budget.params", "0"], "budget.params: found '0', allowed: a number"),
        (["--budget.latency", "3ms"], "latency and latency_table go together"),
        (["--arch.draws", "1"], "arch.draws: found 1, allowed: 2 to 1000"),
        (["--arch.idle_dropout", "1.5"], "arch.idle_dropout: found 1.5, allowed: 0 to 0.99"),
        (["--budget.params", "1K"], "impossible, the smallest network of this space has"),
        (["--weights", "none.pth"], "none.pth: no such weights file"),
    ],
)
def test_search_settings_out_of_range(
    words: list[str], message: str, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    road = [*SMALL, "--data", pedestrians, "--holdout", 0.4, "--out", tmp_path / "run"]
    assert run("search", *road, *words) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert len(captured.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_every_configuration_is_valid() -> None:
    for file in sorted((Path(__file__).parent.parent / "configs").glob("*.yaml")):
        kind = SearchConfig if "search." in file.name else RetrainConfig
        content = read_yaml(file)
        model = {} if kind is SearchConfig or "backbone" in content else {"genotype": "g"}
        assert from_plain(kind, {"data": "d", "out": "o", **model, **content}, file.name).data == "d"


@pytest.mark.slow
def test_the_four_models_train(pedestrians: Path, tmp_path: Path) -> None:
    """{RIB-DCS, RIB-CA} x {fixed, searched}, and RIB-DCS on a transformer: each configuration, cut to a few images."""
    configs = Path(__file__).parent.parent / "configs"
    road = [*SMALL, "--data", pedestrians, "--optim.epochs", 2]
    cut = ["--backbone_width", 0.125]
    for kind in ("dcs", "ca"):
        found = tmp_path / f"{kind}-search"
        words = ["--config", configs / f"rib-{kind}-search.yaml", *road, "--holdout", 0.4, "--arch.samples", 20]
        assert run("search", *words, "--out", found) == 0
        words = ["--config", configs / f"rib-{kind}-searched.yaml", *road, "--genotype", found]
        assert run("retrain", *words, "--out", tmp_path / f"{kind}-searched") == 0
        words = ["--config", configs / f"rib-{kind}-fixed.yaml", *road, *cut]
        assert run("retrain", *words, "--out", tmp_path / f"{kind}-fixed") == 0
    words = ["--config", configs / "rib-dcs-vit.yaml", *road, *cut]
    assert run("retrain", *words, "--out", tmp_path / "vit") == 0
    for name in ("dcs-searched", "ca-searched", "dcs-fixed", "ca-fixed", "vit"):
        last = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        assert last["loss"]["ibb"] > 0, name  # the bound is at work
        assert bool(last.get("selection")) == (not name.startswith("ca")), name


@pytest.mark.slow
def test_resume_continues_search_and_retraining(
    pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop after the first epoch, go on: the same log, genotype and result as without the stop."""

    def stop_after_first(self: RunFolder, state: dict[str, object], position: Position, keep: int) -> None:
        save(self, state, position, keep)
        if position.epoch == 1:
            raise KeyboardInterrupt

    save = RunFolder.save
    road = [*SMALL, "--data", pedestrians, "--optim.epochs", 3]
    for verb, extra, result in (
        ("search", ["--holdout", 0.4], "genotype.json"),
        ("search", ["--holdout", 0.4, "--space", "tiny_reid_dcs", *EPOCH, *BY_LOGITS], "genotype.json"),
        ("retrain", ["--backbone", "resnet18", "--backbone_width", 0.125, "--attention", "dcs"], "summary.json"),
    ):
        whole, stopped = (tmp_path / f"{verb}-{len(extra)}-{name}" for name in ("whole", "stopped"))
        assert run(verb, *road, *extra, "--out", whole) == 0
        monkeypatch.setattr(RunFolder, "save", stop_after_first)
        assert run(verb, *road, *extra, "--out", stopped) == 130
        monkeypatch.setattr(RunFolder, "save", save)
        with (stopped / "metrics.jsonl").open("a") as log:
            log.write('{"epoch": 1, "killed while writ')
        assert run(verb, "--resume", stopped) == 0
        assert (whole / "metrics.jsonl").read_bytes() == (stopped / "metrics.jsonl").read_bytes()
        assert (whole / result).read_bytes() == (stopped / result).read_bytes()


def test_wrong_input_is_one_line_and_code_2(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("optim:\n  epohs: 3\n")
    nulls = tmp_path / "nulls.yaml"
    nulls.write_text("optim: {lr: null}\n")
    no_query = tmp_path / "no_query"
    shutil.copytree(pedestrians, no_query)
    shutil.rmtree(no_query / "query")
    (no_query / "query").mkdir()
    truncated = tmp_path / "truncated"
    shutil.copytree(pedestrians, truncated)
    victim = sorted((truncated / "bounding_box_train").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    genotype = tmp_path / "genotype.json"
    genotype.write_text(
        json.dumps(
            {"format": "dnas-genotype/1", "space": "x", "space_hash": "", "choices": {}, "cost": {}, "search": {}}
        )
    )
    search = ["search", *SMALL, "--out", tmp_path / "out", "--data"]
    retrain = ["retrain", *SMALL, "--out", tmp_path / "out", "--data"]
    cases: list[tuple[list[object], str]] = [
        ([*search, tmp_path / "nowhere"], "nowhere: no such folder"),
        ([*search, no_query], "query: no images"),
        ([*search, truncated, "--holdout", 0.4], f"{victim.name}: cannot be read as an image"),
        ([*search, pedestrians, "--config", config], "config.yaml: optim: unknown key 'epohs', allowed: epochs"),
        ([*search, pedestrians, "--optim.epohs", 3], "--optim.epohs"),
        ([*search, pedestrians, "--optim.epochs", "many"], "optim.epochs"),
        ([*search, pedestrians, "--budget.macs", "1K"], "impossible, the smallest network of this space has"),
        ([*search, pedestrians, "--budget.macs", "lots"], "budget.macs: found 'lots'"),
        ([*search, pedestrians, "--space", "huge"], "space: found 'huge', allowed: tiny_reid"),
        ([*retrain, pedestrians, "--genotype", genotype], "space: found 'x', allowed: tiny_reid"),
        ([*retrain, pedestrians], "give --genotype FILE or --backbone NAME"),
        ([*retrain, pedestrians, "--backbone", "vgg"], "backbone: found 'vgg', allowed: resnet18"),
        ([*retrain, pedestrians, "--backbone", "resnet18", "--attention", "x"], "attention: found 'x', allowed: none"),
        (["search", "--resume", tmp_path], "not a run folder"),
        (["compare", tmp_path], "not a run folder"),
        (["show", tmp_path / "none.json"], "none.json: no such file"),
        (["data", "synth", pedestrians], "not an empty folder"),
        (["dance"], "dance"),
        ([*search, pedestrians, "--config", nulls], "nulls.yaml: optim: lr: found None, allowed: a number"),
        ([*retrain, pedestrians, "--backbone", "vit_b_16", "--input.height", 8], "multiples of the patch size 16"),
    ]
    for words, message in cases:
        assert run(*words) == 2, words
        error = capsys.readouterr().err.strip()
        assert message in error, words
        assert "\n" not in error
        assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_runs_on_other_data_are_not_compared(
    tmp_path: Path, pedestrians: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    assert run("data", "synth", other, "--ids", 6, "--cameras", 2, "--images", 2, "--height", 32, "--width", 16) == 0
    for name, data in (("a", pedestrians), ("b", other)):
        words = ["--data", data, "--out", tmp_path / name, "--backbone", "resnet18", "--backbone_width", 0.125]
        assert run("retrain", *SMALL, *words, "--optim.epochs", 1) == 0
    capsys.readouterr()
    assert run("compare", tmp_path / "a", tmp_path / "b") == 2
    assert "trained on other data" in capsys.readouterr().err
