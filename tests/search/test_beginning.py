"""When logits begin to learn: by the agreement of verdicts, at a share, and what the weights' draws follow then."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dnas.cli import main
from dnas.data.augment import InputConfig
from dnas.run.schedules import OptimConfig
from dnas.search.beginning import AGREEMENT, NETWORKS, Beginning, losses
from dnas.search.config import ArchConfig, SearchConfig
from dnas.search.relaxation import Relaxation
from dnas.search.search import Search
from dnas.search.supernet import SupernetBuilder
from dnas.space.spec import Decision, decisions
from search_spaces import SPACES
from tests.searches import BY_LOGITS
from tests.spaces import CELLS, random_choices


def verdict(noise: float, seed: int) -> Tensor:
    """The same ranking of all networks, less what noise makes of it."""
    return torch.arange(NETWORKS) + noise * torch.randn(NETWORKS, generator=torch.Generator().manual_seed(seed))


def test_logits_begin_when_the_verdict_keeps_to_itself() -> None:
    beginning = Beginning(40, None)
    assert beginning.apart == 4
    for epoch in range(12):
        assert beginning.epoch == 20
        assert beginning.asks(epoch)
        beginning.tell(epoch, verdict(100.0 if epoch < 8 else 0.1, epoch))  # random at first, then settled
    beginning.tell(12, verdict(0.1, 12))  # and the one of four epochs ago is settled too
    assert beginning.agreement is not None
    assert beginning.agreement > AGREEMENT
    assert beginning.epoch == 13
    assert not beginning.asks(13)
    again = Beginning(40, None)
    again.load_state_dict(beginning.state_dict())
    assert again.epoch == 13
    other = Beginning(40, 0.75)  # a run that goes on with another setting takes that
    other.load_state_dict(beginning.state_dict())
    assert other.epoch == 30


def test_logits_that_have_begun_go_on() -> None:
    """In a search that goes on with more epochs they would have stopped until half of those."""
    beginning = Beginning(40, None)
    assert [beginning.begins(epoch) for epoch in (18, 19, 20, 21)] == [False, False, True, True]
    longer = Beginning(100, None)
    longer.load_state_dict(beginning.state_dict())
    assert longer.begins(30)
    assert longer.epoch == 20
    assert not longer.asks(30)


def test_logits_begin_half_way_at_the_latest() -> None:
    beginning = Beginning(20, None)
    for epoch in range(9):
        assert beginning.asks(epoch)
        beginning.tell(epoch, verdict(1000.0, epoch))
    assert not beginning.asks(9)  # nothing would come of it
    assert beginning.epoch == 10


@pytest.mark.parametrize(("share", "first"), [(0.0, 0), (0.3, 3), (0.31, 4), (0.9, 9)])
def test_a_share_is_a_share(share: float, first: int) -> None:
    beginning = Beginning(10, share)
    assert beginning.epoch == first
    assert not any(beginning.asks(epoch) for epoch in range(10))


def test_losses_are_those_of_the_networks_and_leave_no_trace() -> None:
    relaxation = Relaxation(decisions(CELLS.spec))
    net = nn.Sequential(CELLS.spec.build(CELLS.input, SupernetBuilder(relaxation.draw)), nn.BatchNorm2d(12))
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    batches = [(torch.randn(4, 3, 32, 16), torch.tensor(float(n))) for n in range(2)]
    networks = [random_choices(CELLS, seed) for seed in range(3)]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return output.square().mean() * 0.5 + output.std() * (1 + target)

    torch.manual_seed(0)
    found = losses(networks, relaxation, net.eval(), loss, batches)
    assert not net.training
    assert all(torch.equal(buffer, before[name]) or bool(buffer.isnan().all()) for name, buffer in net.named_buffers())
    torch.manual_seed(0)
    net.train()
    rows = []
    for inputs, target in batches:
        for choices in networks:
            relaxation.fix(choices)
            rows.append(loss(net(inputs), target).detach())
    torch.testing.assert_close(found, torch.stack(rows).view(2, 3).mean(0))


def test_draws_of_the_weights_follow_what_they_are_told() -> None:
    relaxation = Relaxation({"a": Decision("a", ("x", "y", "z")), "b": Decision("b", (1, 2), "width")})
    with torch.no_grad():
        relaxation.logits_HK.copy_(torch.tensor([[3.0, 0.0, 0.0], [-2.0, 2.0, 0.0]]))
    p = relaxation.probabilities()["a"]
    for uniform in (0.0, 0.5, 1.0):
        noise = torch.Generator().manual_seed(0)
        counts, others = torch.zeros(3), torch.zeros(3)
        for _ in range(3000):
            draws = relaxation.draws(2, 1.0, noise, uniform=uniform)
            counts[relaxation.numbers(draws, 0)["a"]] += 1
            others[relaxation.numbers(draws, 1)["a"]] += 1
        torch.testing.assert_close(counts / 3000, (1 - uniform) * p + uniform / 3, rtol=0, atol=0.03)
        torch.testing.assert_close(others / 3000, p, rtol=0, atol=0.03)  # the logits' own draws do not change


@pytest.mark.parametrize("draws", ["logits", pytest.param("uniform", marks=pytest.mark.slow), "both"])
def test_the_search_hands_the_setting_on(
    pedestrians: Path, tmp_path: Path, draws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch by epoch; and a measured beginning says how far verdicts agreed."""
    used: list[float] = []
    original = Relaxation.draws

    def spy(self: Relaxation, count: int, temperature: float, generator: torch.Generator, *rest: object) -> object:
        used.append(float(rest[-1]))  # type: ignore[arg-type]
        return original(self, count, temperature, generator, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Relaxation, "draws", spy)
    words = ["--data", str(pedestrians), "--out", str(tmp_path / "run"), "--holdout", "0.4", "--device", "cpu"]
    words += ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    words += ["--eval_every", "0", "--optim.epochs", "6", "--arch.mode", "switch", "--arch.weights_draws", draws]
    assert main(["search", *words, *BY_LOGITS, "--arch.weights_only", "none" if draws == "logits" else "0.5"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = len(used) // 6
    by_epoch = [used[epoch * steps] for epoch in range(6)]
    if draws == "logits":
        assert set(used) == {0.0}
        assert ["agreement" in row for row in rows] == [True, True, False, False, False, False]
    else:
        assert by_epoch == ([0, 0, 0, 1, 1, 1] if draws == "uniform" else [0, 0, 0, 1, 0.5, 0])
        assert not any("agreement" in row for row in rows)


@pytest.mark.parametrize(("mode", "data"), [("sampled", "joint"), ("full", "split")])
def test_draws_that_an_estimator_cannot_learn_from_are_refused(
    pedestrians: Path, tmp_path: Path, mode: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sampled` learns from the draw that trains the weights, `full` runs all options whatever is drawn."""
    words = ["--data", str(pedestrians), "--out", str(tmp_path / "run"), "--arch.mode", mode, "--arch.data", data]
    assert main(["search", *words, "--arch.weights_draws", "uniform"]) == 2
    said = f"arch.weights_draws: found uniform, allowed in a {data} search by {mode}: logits"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arch", "draws"),
    [
        (ArchConfig(), "both"),
        (ArchConfig("switch"), "both"),
        (ArchConfig("score"), "both"),
        (ArchConfig("sampled"), "logits"),
        (ArchConfig("sampled", data="split"), "both"),
        (ArchConfig("full"), "logits"),
        (ArchConfig("score", weights_draws="logits"), "logits"),
    ],
)
def test_what_draws_follow_where_nothing_is_asked(
    pedestrians: Path, tmp_path: Path, arch: ArchConfig, draws: str
) -> None:
    config = SearchConfig(
        str(pedestrians), str(tmp_path), holdout=0.4, device="cpu", arch=arch,
        input=InputConfig(height=32, width=16), optim=OptimConfig(epochs=4, identities=3, images=2),
    )  # fmt: skip
    search = Search(config, SPACES["tiny_reid"])
    assert search.weights_draws == draws
    search.begin_epoch(3, 0)
    assert search.uniform == 0.0  # the last epoch follows the logits
