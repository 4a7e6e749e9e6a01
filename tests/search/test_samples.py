"""Samples at the end of a search: trained shortly, neighbours, and even ones that options explain."""

import json
import math
from pathlib import Path

import pytest
import torch

from dnas.cli import main
from dnas.errors import UserError
from dnas.run.schedules import OptimConfig
from dnas.search.alone import short_training
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.derive import smallest
from dnas.search.effects import Effects, main_effects
from dnas.search.random_networks import random_networks
from dnas.search.search import Search, opened
from dnas.search.verdict import FEW
from dnas.space.genotype import read_genotype
from dnas.space.spec import Choices, Space, decisions, fill, in_use
from search_spaces import SPACES
from tests.searches import BY_LOGITS

SPACE = SPACES["tiny_reid"].resized(32, 16)
GRAPHS = SPACES["cells_reid_tiny"].resized(32, 16)
"""A third of its choices are about edges that are not there."""


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
