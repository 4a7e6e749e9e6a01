"""What a search says about itself; and a search that collapses into skips, with and without the counter-measure."""

import pytest
import torch
from torch import Tensor, nn

from dnas.nn.chain import Skip
from dnas.search.estimators.score import leave_one_out
from dnas.search.health import Health, Idle, Moves, examine, idle
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder
from dnas.space.cost import Cost, conv
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Choices, Decision, OneOf, Spec, decisions, fill
from search_spaces import SPACES
from search_spaces.cells_reid import cell, cells_reid
from search_spaces.nas_bench_201 import edge_key
from tests.estimators import estimator
from tests.spaces import ALL, random_choices

CHANNELS, SITES, STEPS = 6, 8, 400
X = Shape(Channels.of(CHANNELS), 4, 4)


class Linear(Spec):
    """A 1x1 convolution that starts at random."""

    label = "linear"

    def cost(self, x: Shape) -> Cost:
        return conv(x.channels, x.channels, 1, x.positions)

    def build(self, x: Shape, builder: object) -> nn.Module:
        return nn.Conv2d(x.channels.size, x.channels.size, 1, bias=False)


class Sites(Spec):
    """Choices side by side on one input; for the health check only their leaves matter."""

    label = "sites"
    sites = tuple(OneOf(f"site{k}", {"skip": Skip(), "linear": Linear()}) for k in range(SITES))

    def cost(self, x: Shape) -> Cost:
        return Cost()

    def leaves(self, x: Shape):  # type: ignore[no-untyped-def]
        for site in self.sites:
            yield from site.leaves(x)

    def build(self, x: Shape, builder: object) -> nn.Module:
        return nn.ModuleList(site.build(x, builder) for site in self.sites)  # type: ignore[arg-type]


KNOWN = decisions(Sites.sites)


def searched(seed: int, idle_dropout: float) -> tuple[Choices, Health]:
    """Each site should become a rotation. Skip is a fair guess, an untrained matrix a bad one, a trained one exact."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    relaxation, spec = Relaxation(KNOWN), Sites()
    modules = spec.build(X, SupernetBuilder(relaxation.draw))
    rotation = torch.linalg.qr(torch.eye(CHANNELS) + 0.2 * torch.randn(CHANNELS, CHANNELS, generator=generator))[0]
    rotation = rotation * rotation.diagonal().sign()
    weights = torch.optim.SGD(modules.parameters(), 0.4)
    logits = torch.optim.Adam(relaxation.parameters(), 0.1)

    def loss() -> Tensor:
        x = torch.randn(16, CHANNELS, 2, 2, generator=generator)
        target = torch.einsum("dc,bchw->bdhw", rotation, x)
        parts = [(module(x) - target).square().mean() for module in modules]  # type: ignore[union-attr]
        return torch.stack(parts).mean()

    moves, drawing = Moves(KNOWN), estimator("score", relaxation)
    for step in range(STEPS):
        dropout = idle_dropout * (1 - step / STEPS)
        drawing.draw(9, 1.0, generator, dropout)
        drawing.use(0)
        weights.zero_grad()
        task = loss()
        if task.requires_grad:  # nothing to train where every site skips
            task.backward()
            weights.step()
        with torch.no_grad():
            losses = []
            for n in range(1, 9):
                drawing.use(n)
                losses.append(loss())
        logits.zero_grad()
        leave_one_out(torch.stack(losses), relaxation.log_probability(drawing.draws)[1:]).backward()
        logits.step()
        counts = moves.follow(relaxation.logits())
    best = {key: KNOWN[key].options[int(p.argmax())] for key, p in relaxation.probabilities().items()}
    health = examine(spec, X, KNOWN, best, relaxation.probabilities(), counts, (1.0, 1.0), (0.5, 5.0), last=True)
    return best, health


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
@pytest.mark.slow
def test_idle_dropout_counters_a_collapse(seed: int) -> None:
    collapsed, health = searched(seed, 0.0)
    assert list(collapsed.values()).count("skip") >= SITES - 1
    assert any(line.startswith("collapse: ") for line in health.warnings)
    countered, health = searched(seed, 0.95)
    assert list(countered.values()).count("linear") >= SITES - 1
    assert not health.warnings


def test_idle_share_counts_what_is_in_use() -> None:
    """An edge that no node takes does not count."""
    space = cells_reid("cells", (8,), "N", 4, 16, 32)
    known = decisions(space.spec)
    assert cell("normal", False).nodes[0].inputs != cell("normal", False).nodes[1].inputs
    choices = {key: ("skip" if decision.idle else decision.options[0]) for key, decision in known.items()}
    uniform = {key: torch.full((len(d.options),), 1 / len(d.options)) for key, d in known.items()}
    found = idle(space.spec, space.input, known, choices, uniform)
    assert (found.took, found.could) == (8, 8)  # four nodes with two edges, of fourteen
    assert found.chance == pytest.approx(8 * 2 / 11) == pytest.approx(found.likely)
    choices["normal.node2.from0"] = "sep_3"
    assert idle(space.spec, space.input, known, choices, uniform).took == 7


def test_a_collapse_is_one_of_probabilities() -> None:
    """All logits equal is none, though the first option is `none` everywhere; nor is a network that leans on few."""
    space = SPACES["nas_bench_201_small"]
    known = decisions(space.spec)
    first = {key: decision.options[0] for key, decision in known.items()}
    assert set(first.values()) == {"none"}

    def collapsed(probabilities: list[float]) -> bool:
        rows = {key: torch.tensor(probabilities) for key in known}
        choices = {key: decision.options[rows[key].argmax()] for key, decision in known.items()}
        health = examine(
            space.spec, space.input, known, choices, rows, dict.fromkeys(known, 1), (1, 1), (1, 5), last=False
        )
        return bool(health.warnings)

    assert not collapsed([0.2] * 5)
    assert not collapsed([0.21, 0.19, 0.2, 0.2, 0.2])
    assert collapsed([0.5, 0.45, 0.03, 0.01, 0.01])
    assert collapsed([0.01, 0.96, 0.01, 0.01, 0.01])
    assert not collapsed([0.01, 0.01, 0.01, 0.96, 0.01])


def test_what_zeros_cut_off_is_collapsed() -> None:
    """The cell that `sampled` finds: a convolution from the input to the output, and `none` to it from the two nodes
    between: what leads to these is no part of the network, as likely as these are.
    """
    space = SPACES["nas_bench_201_small"]
    known = decisions(space.spec)
    choices = dict.fromkeys(known, "nor_conv_3x3") | {edge_key(1, 3): "none", edge_key(2, 3): "none"}

    def found(none: float) -> Idle:
        zero = torch.tensor([none, *[(1 - none) / 4] * 4])
        rows = {key: zero if choice == "none" else torch.tensor([0, 0, 0, 1, 0.0]) for key, choice in choices.items()}
        return idle(space.spec, space.input, known, choices, rows)

    assert (found(0.99).took, found(0.99).could) == (5, 6)
    assert found(0.99).collapsed
    assert found(0.4).likely == pytest.approx(5 * (0.4 + 0.15))  # with the skip


@pytest.mark.parametrize("space", ALL[:2], ids=lambda s: s.name)
def test_warnings(space: object) -> None:
    spec, x = space.spec, space.input  # type: ignore[attr-defined]
    known = decisions(spec)
    choices = random_choices(space, 0)  # type: ignore[arg-type]
    uniform = {key: torch.full((len(d.options),), 1 / len(d.options)) for key, d in known.items()}
    still = dict.fromkeys(known, 0)

    def found(**changed: object) -> list[str]:
        arguments = {"costs": (1e6, 1e6), "temperatures": (0.5, 5.0), "last": True, "probabilities": uniform}
        arguments |= changed
        health = examine(spec, x, known, choices, moves=still, **arguments)  # type: ignore[arg-type]
        return [line.split(":")[0] for line in health.warnings]

    decided = {key: torch.eye(len(p))[0] for key, p in uniform.items()}
    assert found(probabilities=decided) == []
    assert found() == ["undecided"]
    assert found(last=False) == []
    assert found(equal=list(known)) == []  # nothing to decide between
    assert found(equal=list(known)[: len(known) // 2 + 1]) == []
    assert found(probabilities=decided, temperatures=(5.0, 5.0)) == ["temperature"]
    assert found(probabilities=decided, costs=(2e6, 1e6)) == ["cost"]
    assert found(probabilities=decided, costs=(2e6, 1e6), by_options=True) == []  # which know of no budget
    assert found(by_options=True) == ["undecided"]


def test_moves() -> None:
    moves = Moves({"a": Decision("a", ("x", "y")), "b": Decision("b", ("x", "y"))})
    assert moves.follow({"a": [0.0, 1.0], "b": [1.0, 0.0]}) == {"a": 0, "b": 0}
    assert moves.follow({"a": [2.0, 1.0], "b": [1.0, 0.0]}) == {"a": 1, "b": 0}
    again = Moves({"a": Decision("a", ("x", "y")), "b": Decision("b", ("x", "y"))})
    again.load_state_dict(moves.state_dict())
    assert again.follow({"a": [0.0, 1.0], "b": [1.0, 0.0]}) == {"a": 2, "b": 0}


def test_filled_spaces_have_no_choice_left() -> None:
    for space in ALL:
        assert not decisions(fill(space.spec, random_choices(space, 1))), space.name
