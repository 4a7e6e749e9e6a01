"""A search's verdict against short trainings: by the command line, resumable, into genotype and summary."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dnas.cli import main
from dnas.errors import UserError
from dnas.loss.objective import LossConfig
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.run.schedules import OptimConfig
from dnas.search.alone import Alone, short_training
from dnas.search.config import SearchConfig
from dnas.search.derive import smallest
from dnas.search.fidelity import Fidelity, FidelityConfig, Judge, Judged
from dnas.search.random_networks import random_networks
from dnas.search.search import Search
from dnas.search.standing import Standing
from dnas.space.genotype import read_genotype
from dnas.space.holes import Width
from dnas.space.spec import Space, decisions, fill
from search_spaces import SPACES
from tests.searches import BY_LOGITS

SPACE = SPACES["tiny_reid"].resized(32, 16)
OPEN_END = Chain((ConvNormAct(16, 3, 2), ConvNormAct(Width("end", (8, 16, 24)), 3, 2)))
PEERS = "random ones of its cost"


def judged(inherited: float, *alone: float) -> Judged:
    return Judged({}, 1, inherited, list(alone))


def test_verdicts() -> None:
    config = FidelityConfig(6, 3, 2)
    others = [judged(0.1 * n, 0.3 + 0.01 * n, 0.31 + 0.01 * n) for n in range(6)]
    good = Fidelity(config, "mAP", judged(0.9, 0.6, 0.61), others, PEERS)
    assert good.correlation.value == pytest.approx(1.0)
    assert good.below == 1.0
    mean, low, high = good.gain
    assert mean == pytest.approx(0.605 - 0.33)
    assert 0 < low < mean < high
    assert "the found network is better: mAP +27.5" in good.lines()[1]
    same = Fidelity(config, "mAP", judged(0.9, 0.32, 0.34), others, PEERS)
    assert same.gain[1] < 0 < same.gain[2]
    assert "not to be told apart" in same.lines()[1]
    assert "worse" in Fidelity(config, "mAP", judged(0.9, 0.1, 0.1), others, PEERS).lines()[1]


def test_a_standing_says_what_it_is_worth() -> None:
    alone = Standing("mAP", 0.5, [], PEERS, "+0.4 [+0.1, +0.7]")
    assert alone.line().endswith("a held-out mAP of 50.0%; random ones of its cost are too rare to hold it against")
    line = replace(alone, others=[0.4, 0.5, 0.6]).line()
    assert "above 1 of 3 random ones of its cost (mean 50.0%)" in line
    assert line.endswith("rank correlation of such verdicts with trainings: +0.4 [+0.1, +0.7]")


@pytest.mark.parametrize(
    ("space", "loss"),
    [
        (SPACE, LossConfig(eta=0.5, eta_warmup=0.0, ibb_on="attention")),
        (Space("open_end", OPEN_END, 32, 16), LossConfig(eta=0.5, eta_warmup=0.0)),
        (Space("open_end", OPEN_END, 32, 16), LossConfig(eta=0.5, eta_warmup=0.0, refresh="epoch")),
    ],
    ids=["stages", "open end", "refreshed"],
)
def test_a_network_of_its_own_has_a_loss_of_its_own_size(pedestrians: Path, space: Space, loss: LossConfig) -> None:
    """The bound on its stages and on its embedding, which are narrower than those of the supernet."""
    optim = OptimConfig(epochs=2, identities=3, images=2)
    config = SearchConfig(str(pedestrians), "", holdout=0.4, device="cpu", optim=optim, loss=loss)
    state = Search(config, space)
    choices = {key: one.options[0] for key, one in decisions(space.spec).items()}
    spec = fill(space.spec, choices)
    assert 0 <= short_training(config, state.task, spec, space.input, 1) <= 1
    own = Alone(config, state.task, spec, space.input)
    assert own.task.objective.statistics.centroid_sum_KD.shape[1] == spec.out(space.input).channels.size
    state.verdict.choices = choices
    state.task.begin_epoch(0, state.for_statistics)


def test_a_verdict_of_other_weights_is_not_gone_on_with(pedestrians: Path) -> None:
    config = SearchConfig(str(pedestrians), "", holdout=0.4, device="cpu", optim=OptimConfig(identities=3, images=2))
    state = Search(config, SPACE)
    judge = state.judge
    others = [
        replace(judge, epoch=1),
        replace(judge, config=replace(config, loss=LossConfig(eta=0.1))),
        replace(judge, config=replace(config, optim=replace(config.optim, lr=0.1))),
    ]
    assert state.judge.known_by == judge.known_by
    assert len({one.known_by for one in (judge, *others)}) == 4


def test_one_training_has_its_noise_too() -> None:
    """With a seed each, the spread of the networks stands for it: a lucky training is no proof."""
    others = [judged(0.1, 0.30 + 0.02 * n) for n in range(6)]
    low, high = Fidelity(FidelityConfig(6, 3, 1), "mAP", judged(0.9, 0.40), others, PEERS).gain[1:]
    assert low < 0 < high


def test_random_networks_are_uniform_in_their_window() -> None:
    known, macs = decisions(SPACE.spec), SPACE.spec.cost(SPACE.input).macs
    found = random_networks(known, 30, 1, macs, (2.0e6, 2.5e6))
    costs = [macs.at({key: known[key].index(choice) for key, choice in one.items()}) for one in found]
    assert min(costs) >= 2.0e6
    assert max(costs) <= 2.5e6
    assert len({json.dumps(one) for one in found}) == 30
    assert found == random_networks(known, 30, 1, macs, (2.0e6, 2.5e6))
    assert found != random_networks(known, 30, 2, macs, (2.0e6, 2.5e6))
    everywhere = random_networks(known, 300, 1)
    for key, decision in known.items():
        shares = [sum(one[key] == option for one in everywhere) / 300 for option in decision.options]
        assert all(abs(share - 1 / len(decision.options)) < 0.12 for share in shares)
    with pytest.raises(UserError, match="networks: found 0 different ones among 20,000 random ones that cost 1 to 2"):
        random_networks(known, 5, 1, macs, (1, 2))


@pytest.mark.slow
def test_by_the_command_line(
    pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "search"
    words = ["--data", str(pedestrians), "--out", str(out), "--holdout", "0.4", "--device", "cpu"]
    size = ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    asked = [*BY_LOGITS, "--optim.epochs", "2", "--verify", "5", "--verify_epochs", "1"]
    assert main(["search", *words, *size, *asked]) == 0
    said = capsys.readouterr().out
    assert "agree on 5 random networks by" in said
    assert "the found network is" in said
    standing = read_genotype(out / "genotype.json").search["standing"]
    below = sum(other < standing["found"] for other in standing["others"])
    inherited = [one["inherited"] for one in json.loads((out / "fidelity.json").read_text())["judged"]]
    assert [standing["found"], *standing["others"]] == inherited
    line = f"above {below} of 5 random ones of any cost (mean {sum(inherited[1:]) / 5:.1%}); rank correlation"
    assert line in " ".join(said.split())
    verdict = read_genotype(out / "genotype.json").search["fidelity"]
    assert (verdict["networks"], verdict["epochs"], verdict["metric"]) == (5, 1, "mAP")
    written = json.loads((out / "fidelity.json").read_text())
    assert written["verdict"] == verdict
    # the same question again: what is there is taken, what is missing is judged again, and alike
    cut = {"question": written["question"], "judged": written["judged"][:4]}
    (out / "fidelity.json").write_text(json.dumps(cut))
    assert main(["fidelity", str(out), "--networks", "5", "--epochs", "1", "--device", "cpu", "--json"]) == 0
    again = capsys.readouterr().out
    assert "random network 4" in again
    assert "random network 3" not in again
    assert json.loads(again.splitlines()[-1]) == verdict
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "known_by", "a supernet that was trained on")
        assert main(["fidelity", str(out), "--networks", "5", "--epochs", "1", "--device", "cpu"]) == 0
    assert "random network 3" in capsys.readouterr().out
    assert json.loads((out / "fidelity.json").read_text())["judged"] == written["judged"]


def test_bad_input_is_one_line(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fidelity", str(tmp_path)]) == 2
    assert main(["fidelity", str(tmp_path), "--networks", "2"]) == 2
    assert "networks: found 2, allowed: 5 or more" in capsys.readouterr().err
    words = ["--data", str(pedestrians), "--out", str(tmp_path / "x"), "--verify", "3"]
    assert main(["search", *words]) == 2
    assert "verify: found 3, allowed: 0, or 5 networks and more" in capsys.readouterr().err


@pytest.mark.slow
def test_where_no_network_costs_as_little_the_search_ends_well(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, least = tmp_path / "search", smallest(decisions(SPACE.spec), SPACE.spec.cost(SPACE.input).macs)
    words = ["--data", str(pedestrians), "--out", str(out), "--holdout", "0.4", "--device", "cpu"]
    size = ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    asked = ["--optim.epochs", "1", "--budget.macs", str(least), "--verify", "5"]
    assert main(["search", *words, *size, *asked]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: the found network is not verified: networks: found " in said
    found = read_genotype(out / "genotype.json")
    assert found.cost["macs"] == least
    assert "fidelity" not in found.search
    assert found.search["standing"]["others"] == []
