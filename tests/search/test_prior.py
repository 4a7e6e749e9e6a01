"""A prior of the options from a score without training: the score, what options add to it, and where logits start."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.cli import main
from dnas.data.augment import InputConfig
from dnas.errors import UserError
from dnas.run.schedules import OptimConfig
from dnas.search.budget import Budget
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.effects import RIDGES, Effects, _ridge, main_effects
from dnas.search.prior import NETWORKS, believed, drawn
from dnas.search.relaxation import Relaxation
from dnas.search.search import Search
from dnas.search.zero_cost import naswot
from dnas.space.genotype import read_genotype
from dnas.space.spec import Choices, Decision, decisions
from search_spaces import SPACES
from tests.searches import BY_LOGITS

KNOWN = {"a": Decision("a", ("x", "y", "z")), "b": Decision("b", (1, 2), "width"), "c": Decision("c", ("x", "y"))}
FEWER = 60
"""Networks that a search scores here."""


def random_choices(count: int) -> list[Choices]:
    rng = np.random.default_rng(0)
    return [{key: one.options[rng.integers(len(one.options))] for key, one in KNOWN.items()} for _ in range(count)]


class TwoLayers(nn.Module):
    """One activation is a module, the other a function; what they get is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        self.seen = [first.clone()]
        second = self.second(self.relu(first))
        self.seen.append(second)
        return F.hardswish(second)


def test_naswot_is_the_determinant_of_the_agreements() -> None:
    torch.manual_seed(0)
    net, images = TwoLayers(), torch.randn(4, 3, 8, 8)
    found = naswot(net, images)
    active = torch.cat([(y > 0).flatten(1) for y in net.seen], 1)
    agree = [[int((active[i] == active[j]).sum()) for j in range(4)] for i in range(4)]
    assert found == pytest.approx(math.log(np.linalg.det(np.array(agree, float))), rel=1e-9)
    assert naswot(net, images[[0, 0]]) == -math.inf  # two images that nothing tells apart
    assert math.isnan(naswot(nn.Conv2d(3, 4, 3), images))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish(), nn.GELU()])
def test_every_activation_is_seen_once(activation: nn.Module) -> None:
    torch.manual_seed(0)
    conv, images = nn.Conv2d(3, 4, 3), torch.randn(4, 3, 8, 8)
    assert naswot(nn.Sequential(conv, activation), images) == naswot(nn.Sequential(conv, nn.ReLU()), images)


def test_effects_are_what_options_add() -> None:
    networks = random_choices(200)
    worth = {"x": -1.0, "y": 0.0, "z": 1.0}
    scores = [worth[str(one["a"])] + 0.7 * (one["b"] == 2) for one in networks]  # c does nothing
    found = main_effects(KNOWN, networks, [math.exp(score) for score in scores])  # any growing function of it
    assert found.explained > 0.9
    x, y, z = found.of["a"]
    narrow, wide = found.of["b"]
    assert x < y - 0.5 < z - 1.0
    assert wide - narrow > 0.4
    assert np.abs(found.of["c"]).max() < 0.05
    assert x + y + z == pytest.approx(0) == narrow + wide


def test_where_options_explain_nothing_little_is_believed() -> None:
    networks, rng = random_choices(60), np.random.default_rng(1)
    found = main_effects(KNOWN, networks, list(rng.standard_normal(60)))
    assert found.explained < 0.05
    assert max(abs(effect) for own in found.of.values() for effect in own) < 0.1
    nothing = main_effects(KNOWN, networks, list(rng.permutation(60)))
    assert nothing.explained <= 0
    assert not any(effect for own in nothing.of.values() for effect in own)


def test_the_share_that_is_explained_is_that_of_what_was_left_out() -> None:
    rng = np.random.default_rng(0)
    x_NP, y_N = rng.standard_normal((30, 6)), rng.standard_normal(30)
    x_NP, y_N = x_NP - x_NP.mean(0), (y_N + x_NP[:, 0]) / (y_N + x_NP[:, 0]).std()
    y_N -= y_N.mean()

    def error(n: int, ridge: float) -> float:
        x, y = np.delete(x_NP, n, 0), np.delete(y_N, n)
        inner = (x - x.mean(0)).T @ (x - x.mean(0)) + ridge * np.eye(6)
        effect = np.linalg.solve(inner, (x - x.mean(0)).T @ (y - y.mean()))
        return float(y_N[n] - y.mean() - (x_NP[n] - x.mean(0)) @ effect)

    by_hand = [1 - np.mean([error(n, ridge) ** 2 for n in range(30)]) for ridge in RIDGES]
    assert _ridge(x_NP, y_N)[1] == pytest.approx(max(by_hand), abs=0.01)  # a row of 30 moves the means a little


def test_scores_that_are_all_the_same_explain_nothing() -> None:
    nothing = main_effects(KNOWN, random_choices(50), [-math.inf] * 50)
    assert nothing.explained == 0
    assert not any(effect for own in nothing.of.values() for effect in own)


def test_a_score_that_tells_nothing_apart_is_no_prior(pedestrians: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SearchConfig(
        str(pedestrians), "", holdout=0.4, device="cpu", optim=OptimConfig(identities=3, images=2),
        input=InputConfig(32, 16), arch=ArchConfig(prior="naswot"),
    )  # fmt: skip
    state = Search(config, SPACES["tiny_reid"])
    monkeypatch.setattr("dnas.search.prior.naswot", lambda *_: -math.inf)
    monkeypatch.setattr("dnas.search.prior.NETWORKS", FEWER)
    with pytest.raises(UserError, match=r"arch.prior: naswot says nothing here: all random networks score the same"):
        state.begin_epoch(0, 0)


def test_by_itself_a_search_goes_on_without_a_prior(
    pedestrians: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SearchConfig(
        str(pedestrians), "", holdout=0.4, device="cpu", optim=OptimConfig(identities=3, images=2),
        input=InputConfig(32, 16),
    )  # fmt: skip
    state = Search(config, SPACES["tiny_reid"])
    monkeypatch.setattr("dnas.search.prior.naswot", lambda *_: math.nan)
    monkeypatch.setattr("dnas.search.prior.NETWORKS", 20)
    state.begin_epoch(0, 0)
    assert state.verdict.prior is None
    assert len({tuple(p.tolist()) for p in state.relaxation.probabilities().values() if len(p) == 3}) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "all options start alike: naswot says nothing here: it needs activations" in said


def test_networks_that_let_nothing_through_are_the_worst() -> None:
    networks = random_choices(100)
    found = main_effects(KNOWN, networks, [-math.inf if one["a"] == "x" else 1.0 for one in networks])
    assert all(np.isfinite(own).all() for own in found.of.values())
    assert found.of["a"][0] < min(found.of["a"][1:]) - 1


def words(data: Path, out: Path, *more: str) -> list[str]:
    small = ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    common = ["--data", str(data), "--out", str(out), "--holdout", "0.4", "--device", "cpu", "--eval_every", "0"]
    return [*common, *small, *BY_LOGITS, "--optim.epochs", "4", *more]


def rows(out: Path) -> list[dict[str, dict[str, list[float]]]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float], list[Effects]]:
    """A search with a prior whose logits begin at half of its epochs: folder, shares of uniform draws, the effects."""
    shares: list[float] = []
    effects: list[Effects] = []
    out = tmp_path_factory.mktemp("prior") / "run"
    with pytest.MonkeyPatch.context() as patch:
        draws = Relaxation.draws

        def spy(self: Relaxation, *args: object, **more: object) -> object:
            shares.append(float(args[-1]))  # type: ignore[arg-type]
            return draws(self, *args, **more)  # type: ignore[arg-type]

        def kept(*args: object) -> Effects:
            effects.append(believed(*args))  # type: ignore[arg-type]
            return effects[-1]

        patch.setattr("dnas.search.prior.NETWORKS", FEWER)
        patch.setattr(Relaxation, "draws", spy)
        patch.setattr("dnas.search.search.believed", kept)
        more = ["--arch.prior", "naswot", "--arch.prior_weight", "2", "--arch.weights_only", "0.5"]
        assert main(["search", *words(pedestrians, out, *more)]) == 0
    return out, shares, effects


@pytest.mark.slow
def test_logits_start_where_the_prior_says(run: tuple[Path, list[float], list[Effects]]) -> None:
    out, shares, effects = run
    assert len(effects) == 1
    assert effects[0].explained > 0
    for row in rows(out)[:2]:  # nothing has been learnt yet
        for key, effect in effects[0].of.items():
            wanted = (2 * torch.tensor(effect)).softmax(0)
            torch.testing.assert_close(torch.tensor(row["probabilities"][key]), wanted)
    assert rows(out)[3]["probabilities"] != rows(out)[0]["probabilities"]
    assert shares[: len(shares) // 2] == [1.0] * (len(shares) // 2)  # weights are trained evenly until then


@pytest.mark.slow
def test_a_resumed_search_believes_what_it_learnt(
    run: tuple[Path, list[float], list[Effects]],
    pedestrians: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, original = tmp_path / "run", Search.look

    def stop(self: Search, metrics: dict[str, object], last: bool) -> object:
        if metrics["epoch"] == 3:  # the logits of the checkpoint have learnt
            raise KeyboardInterrupt
        return original(self, metrics, last)

    more = ["--arch.prior", "naswot", "--arch.prior_weight", "2", "--arch.weights_only", "0.5"]
    with monkeypatch.context() as patch:
        patch.setattr("dnas.search.prior.NETWORKS", FEWER)
        patch.setattr(Search, "look", stop)
        assert main(["search", *words(pedestrians, out, *more)]) != 0
    monkeypatch.setattr("dnas.search.search.believed", None)
    assert main(["search", "--resume", str(out), "--force", "--arch.prior_weight", "3"]) == 2
    assert main(["search", "--resume", str(out), "--force", "--arch.prior", "none"]) == 2
    assert capsys.readouterr().err.count("in a run that goes on arch.prior") == 2
    assert main(["search", "--resume", str(out)]) == 0
    assert (out / "metrics.jsonl").read_bytes() == (run[0] / "metrics.jsonl").read_bytes()


def test_networks_are_scored_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SPACES["tiny_reid"].resized(32, 16)
    known = decisions(space.spec)

    def costs(limit: float | None) -> list[int]:
        budget = Budget(BudgetConfig(macs=limit), space)
        networks = drawn(known, budget, 0)
        return sorted(
            budget.count.at({key: one.index(network[key]) for key, one in known.items()}) for network in networks
        )

    anywhere = costs(None)
    assert len(anywhere) == NETWORKS
    limit = anywhere[NETWORKS // 2]
    within = costs(limit)
    assert len(within) == NETWORKS
    assert within[-1] <= limit
    assert within[0] > anywhere[NETWORKS // 4]  # the dearest of them
    monkeypatch.setattr("dnas.search.prior.AMONG", 20)
    with pytest.raises(UserError, match=r"\d of 20 random networks within budget.macs are different, it takes 20"):
        costs(Budget(BudgetConfig(), space).count.at(dict.fromkeys(known, 0)) + 1)


@pytest.mark.slow
def test_the_prior_alone_derives_a_network(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    effects: list[Effects] = []

    def kept(*args: object) -> Effects:
        effects.append(believed(*args))  # type: ignore[arg-type]
        return effects[-1]

    monkeypatch.setattr("dnas.search.search.believed", kept)
    more = ["--optim.epochs", "1", "--arch.prior", "naswot", "--arch.weights_only", "0.99"]
    assert main(["search", *words(pedestrians, tmp_path / "run", *more)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no epoch trains the logits" in said
    assert "which network is derived is for the prior alone to say" in said
    known = decisions(SPACES["tiny_reid"].spec)
    best = {key: known[key].options[int(np.argmax(effect))] for key, effect in effects[0].of.items()}
    assert read_genotype(tmp_path / "run" / "genotype.json").choices == best
