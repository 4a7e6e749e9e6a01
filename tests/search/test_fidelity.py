"""A search's verdict against short trainings: by the command line, resumable, into genotype and summary."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dnas.cli import main
from dnas.errors import UserError
from dnas.loss.objective import LossConfig
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.run.schedules import OptimConfig
from dnas.search.alone import Alone, short_training
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.derive import smallest
from dnas.search.effects import Effects, main_effects
from dnas.search.fidelity import Fidelity, FidelityConfig, Judge, Judged
from dnas.search.random_networks import random_networks
from dnas.search.search import Search, opened
from dnas.search.standing import Standing
from dnas.search.verdict import FEW
from dnas.space.genotype import read_genotype
from dnas.space.holes import Width
from dnas.space.spec import Choices, Space, decisions, fill, in_use
from search_spaces import SPACES
from tests.searches import BY_LOGITS

SPACE = SPACES["tiny_reid"].resized(32, 16)
GRAPHS = SPACES["cells_reid_tiny"].resized(32, 16)
"""A third of its choices are about edges that are not there."""


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


@pytest.mark.slow
def test_samples_can_be_judged_by_trainings_of_their_own(pedestrians: Path, tmp_path: Path) -> None:
    words = ["--data", str(pedestrians), "--out", str(tmp_path / "run"), "--device", "cpu", "--holdout", "0.4"]
    words += ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    words += ["--optim.epochs", "2", *BY_LOGITS[:2], "--arch.samples", "3", "--arch.samples_epochs", "2"]
    words += ["--arch.samples_from", "logits"]
    assert main(["search", *words]) == 0
    state, folder = opened(tmp_path / "run", lambda name: SPACES[name])
    sampled = folder.rows()[-1]["sampled"]
    assert len({json.dumps(one["choices"]) for one in sampled}) == len(sampled) == 4  # the derived one and three
    for one in sampled:
        spec = fill(state.space.spec, one["choices"])
        assert short_training(state.config, state.task, spec, state.space.input, 2) == one["mAP"]
    best = max(sampled, key=lambda one: one["mAP"])
    inherited = [state.children.score(one["choices"], state.task) for one in sampled]
    assert inherited != [one["mAP"] for one in sampled]
    assert read_genotype(folder.genotype_file).choices == best["choices"]
    with torch.no_grad():
        state.relaxation.logits_HK.zero_()[:, 0] = 5.0  # three draws of four are the same network
    state.verdict.choices = state.budget.derive(state.relaxation)
    drawn = state.verdict.samples([state.verdict.choices], 3, torch.Generator().manual_seed(0))
    assert len({json.dumps(choices) for choices in [*drawn, state.verdict.choices]}) == 4


OPEN_END = Chain((ConvNormAct(16, 3, 2), ConvNormAct(Width("end", (8, 16, 24)), 3, 2)))


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


def test_how_samples_are_judged_needs_samples() -> None:
    with pytest.raises(UserError, match=r"arch\.samples_epochs: found 3, allowed without arch\.samples: 0"):
        ArchConfig(samples=0, samples_epochs=3)
    with pytest.raises(UserError, match=r"arch\.samples: found 8, allowed with .* uniform: 0, or 20 and more"):
        ArchConfig(samples=8)


@pytest.mark.parametrize(("space", "limit"), [(SPACE, None), (SPACE, "0.8M"), (GRAPHS, None)])
def test_neighbours_climb(pedestrians: Path, monkeypatch: pytest.MonkeyPatch, space: Space, limit: str | None) -> None:
    """Towards a planted network, from the best so far, in one used choice at a time, within the budget."""
    arch = ArchConfig(samples=120, samples_from="neighbours")
    config = SearchConfig(
        str(pedestrians), "", holdout=0.4, device="cpu", optim=OptimConfig(identities=3, images=2), arch=arch,
        budget=BudgetConfig(macs=limit),
    )  # fmt: skip
    verdict = (state := Search(config, space)).verdict
    known, count = decisions(state.space.spec), state.budget.count
    planted = {key: one.options[-1] for key, one in known.items()}
    monkeypatch.setattr(verdict, "_score", lambda one, *_: sum(one[key] == planted[key] for key in known) / len(known))
    sampled = verdict._best_of_samples(state.task, state.children)
    start, best = sampled[0], sampled[0]
    for one in sampled[1:]:
        (changed,) = [key for key in known if one["choices"][key] != best["choices"][key]]
        index = {key: decision.index(best["choices"][key]) for key, decision in known.items()}
        assert changed in in_use(verdict.leaves, index)
        best = max(best, one, key=lambda other: other["mAP"])
    assert verdict.choices == best["choices"]
    assert best["mAP"] > start["mAP"]
    assert len({json.dumps(one["choices"]) for one in sampled}) == len(sampled)
    if space is SPACE and limit is None:
        assert best["choices"] == planted
    elif limit is not None:
        costs = [count.at({key: d.index(one["choices"][key]) for key, d in known.items()}) for one in sampled]
        assert max(costs) <= 8e5


def evenly(data: Path, limit: str | None = None) -> Search:
    """A search that ends with sixty even samples; its logits are sure of the second options."""
    config = SearchConfig(
        str(data), "", holdout=0.4, device="cpu", optim=OptimConfig(identities=3, images=2),
        arch=ArchConfig(samples=60), budget=BudgetConfig(macs=limit),
    )  # fmt: skip
    state = Search(config, SPACE)
    with torch.no_grad():
        state.relaxation.logits_HK.zero_()[:, 1] = 5.0
    state.verdict.choices = state.budget.derive(state.relaxation)
    return state


def worth(one: Choices, option: int = -1) -> float:
    """How many choices took the last option, or another."""
    return sum(one[key] == own.options[option] for key, own in decisions(SPACE.spec).items())


@pytest.mark.parametrize("limit", [None, "0.8M"])
def test_even_samples_explain_the_best_network(
    pedestrians: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None
) -> None:
    """Better than any of them by what options add, whatever the logits are sure of; within the budget."""
    verdict = (state := evenly(pedestrians, limit)).verdict
    monkeypatch.setattr(verdict, "_score", lambda one, *_: worth(one))
    sampled = verdict._by_options(state.task, state.children)["sampled"]
    known, count = decisions(state.space.spec), state.budget.count
    costs = [count.at({key: d.index(one["choices"][key]) for key, d in known.items()}) for one in sampled]
    assert len({json.dumps(one["choices"]) for one in sampled}) == len(sampled) == 60
    own = count.at({key: d.index(verdict.choices[key]) for key, d in known.items()})
    if limit is None:
        assert worth(verdict.choices) == len(known)
        assert max(one["mAP"] for one in sampled) < len(known)
    else:
        assert max(own, *costs) <= 8e5
        assert min(costs) >= 0.93 * 8e5
        assert worth(verdict.choices) >= max(one["mAP"] for one in sampled)


def test_the_prior_has_a_say_in_what_even_samples_explain(pedestrians: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = (state := evenly(pedestrians)).verdict
    monkeypatch.setattr(verdict, "_score", lambda one, *_: worth(one))
    known = decisions(SPACE.spec)
    verdict.prior = Effects({key: [9.0] + [0.0] * (len(own.options) - 1) for key, own in known.items()}, 1.0)
    options = verdict._by_options(state.task, state.children)["options"]
    assert worth(verdict.choices, 0) == len(known)
    for key, p in verdict.believed.items():
        torch.testing.assert_close(p, torch.tensor(options["logits"][key]).softmax(0))
        assert int(p.argmax()) == 0


def test_undecided_is_what_derives_the_network(pedestrians: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what the logits are sure of, where options derive it: they explain two choices, and nothing of the others."""
    state = evenly(pedestrians)
    settled = list(decisions(SPACE.spec))[:2]
    own = {key: decisions(SPACE.spec)[key].options[-1] for key in settled}
    monkeypatch.setattr(state.verdict, "_score", lambda one, *_: sum(one[key] == own[key] for key in settled))
    metrics = {"epoch": 9, "moves": dict.fromkeys(decisions(SPACE.spec), 0)}
    health = state.verdict.judge(metrics, state.task, state.stepper.final, state.children, last=True)
    assert not {*health.undecided, *health.equal} & {*settled}
    assert len(health.undecided) + len(health.equal) > len(decisions(SPACE.spec)) / 2
    assert list(metrics["rivals"])  # type: ignore[call-overload]


def test_where_even_samples_explain_nothing_the_logits_derive(
    pedestrians: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = (state := evenly(pedestrians)).verdict
    monkeypatch.setattr(verdict, "_score", lambda *_: 0.5)
    assert "options" not in verdict._by_options(state.task, state.children)
    assert worth(verdict.choices, 1) == len(decisions(SPACE.spec))
    assert "warning: options explain nothing of the held-out mAP" in " ".join(capsys.readouterr().out.split())


def test_where_there_are_hardly_any_networks_the_logits_derive(
    pedestrians: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    least = smallest(decisions(SPACE.spec), SPACE.spec.cost(SPACE.input).macs)
    verdict = (state := evenly(pedestrians, str(1.001 * least))).verdict
    before = verdict.choices
    assert verdict._by_options(state.task, state.children) == {}
    assert verdict.choices == before
    said = " ".join(capsys.readouterr().out.split())
    assert "networks within the budget, it takes 20 to tell what options add: the logits derive the network" in said


def test_a_budget_that_no_network_needs_is_no_hindrance(pedestrians: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = (state := evenly(pedestrians, "900M")).verdict
    monkeypatch.setattr(verdict, "_score", lambda one, *_: worth(one))
    verdict._by_options(state.task, state.children)
    assert worth(verdict.choices) == len(decisions(SPACE.spec))


def test_all_networks_are_judged_where_there_are_fewer_than_asked_for() -> None:
    known = dict(list(decisions(SPACE.spec).items())[:3])
    every = random_networks(known, 1000, 0, fewest=0)
    assert len({json.dumps(one) for one in every}) == len(every)
    assert len(every) == math.prod(len(one.options) for one in known.values())


@pytest.mark.slow
def test_a_search_ends_with_even_samples(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(pedestrians), "--out", str(tmp_path / "run"), "--device", "cpu", "--holdout", "0.4"]
    words += ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    words += ["--optim.epochs", "2", "--arch.prior", "none", "--arch.samples", "20"]
    assert main(["search", *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    state, folder = opened(tmp_path / "run", lambda name: SPACES[name])
    sampled = folder.rows()[-1]["sampled"]
    networks = [one["choices"] for one in sampled]
    assert networks == [dict(one) for one in state.verdict.even()]
    for one in sampled[:3]:
        assert state.children.score(one["choices"], state.task, FEW) == one["mAP"]
    found = main_effects(state.relaxation.decisions, networks, [one["mAP"] for one in sampled])
    wanted = state.budget.derive(state.relaxation, dict(found.of) if found.explained > 0 else None)
    assert read_genotype(folder.genotype_file).choices == wanted
    share = "nothing" if found.explained <= 0 else f"{found.explained:.0%}"
    assert f"options explain {share} of the held-out mAP" in said


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
