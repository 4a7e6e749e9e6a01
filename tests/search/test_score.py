"""Decisions that a drawn network has no part for, and the score function without them."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.search.budget import Budget
from dnas.search.config import ArchConfig, BudgetConfig
from dnas.search.estimators.score import Score
from dnas.search.relaxation import Draws, Relaxation
from dnas.space.holes import Width
from dnas.space.spec import Choice, OneOf, Space, decisions, fill, in_use
from search_spaces import named_space

NESTED = Space(
    "nested",
    Chain((OneOf("op", {"skip": Skip(), "conv": Chain((ConvNormAct(Width("w", (4, 8))), ConvNormAct(3)))}),)),
    8, 8,
)  # fmt: skip


def used(space: Space, choices: Mapping[str, Choice]) -> frozenset[str]:
    index = {key: decision.index(choices[key]) for key, decision in decisions(space.spec).items()}
    return in_use(space.spec.leaves(space.input), index)


def test_a_width_in_what_is_skipped_does_not_count() -> None:
    assert used(NESTED, {"op": "skip", "w": 4}) == {"op"}
    assert used(NESTED, {"op": "conv", "w": 8}) == {"op", "w"}


def test_edges_into_a_dead_node_do_not_count() -> None:
    """Against the networks themselves: a decision counts where its options give other closed networks."""
    space = named_space("nas_bench_201_small")
    known = decisions(space.spec)

    def network(choices: Mapping[str, Choice]) -> list[tuple[str, object]]:
        """What is there, with the states that feed it."""
        live = {3} | {n for n in (1, 2) if choices[f"cell.node3.from{n}"] != "none"}
        live |= {1} if 2 in live and choices["cell.node2.from1"] != "none" else set()
        return [(key, choice) for key, choice in choices.items() if int(key[9]) in live]

    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        choices = {key: d.options[int(torch.randint(5, (), generator=generator))] for key, d in known.items()}
        own = network(choices)
        differ = {
            key for key, d in known.items() if any(network({**choices, key: other}) != own for other in d.options)
        }
        assert used(space, choices) == differ


def test_the_score_function_leaves_them_out_and_stays_unbiased() -> None:
    """Over all pairs of draws, with their probabilities: the gradient of the expected loss; and none of it through a
    width that was not there."""
    relaxation = Relaxation(decisions(NESTED.spec)).double()
    nn.init.normal_(relaxation.logits_HK, generator=torch.Generator().manual_seed(0))
    score = Score(relaxation, Budget(BudgetConfig(), NESTED), ArchConfig("score", draws=2))
    loss = {(0, 0): 0.3, (0, 1): 0.3, (1, 0): 1.0, (1, 1): -0.4}
    absent_HK = torch.zeros_like(relaxation.absent_HK)
    numbers = list(itertools.product(range(2), range(2)))

    def surrogate(pair: tuple[tuple[int, int], ...]) -> Tensor:
        index_NH = torch.tensor([pair[0], *pair])
        score.draws = Draws(torch.zeros(3, 2, 2), absent_HK, index_NH, 1.0)
        values = iter(pair)
        return score.learn(lambda: torch.tensor(loss[next(values)], dtype=torch.float64), 0.5).shared

    def gradient(of: Tensor) -> Tensor:
        return torch.autograd.grad(of, relaxation.logits_HK)[0]

    p = list(relaxation.distribution().values())
    chance = {pair: p[0][pair[0]] * p[1][pair[1]] for pair in numbers}
    truth = gradient(torch.stack([chance[pair] * loss[pair] for pair in numbers]).sum())
    chance = {pair: value.detach() for pair, value in chance.items()}
    pairs = list(itertools.product(numbers, repeat=2))
    mean = sum(chance[a] * chance[b] * gradient(surrogate((a, b))) for a, b in pairs)
    assert isinstance(mean, Tensor)
    assert torch.allclose(mean, truth, atol=1e-12)
    found = gradient(surrogate(((0, 0), (1, 0))))[1]  # one skips: only the other one's width had a say
    advantage = (loss[1, 0] - loss[0, 0]) / 2
    assert torch.allclose(found, advantage * (torch.tensor([1.0, 0.0]) - p[1].detach()))


def test_a_closed_description_has_nothing_open() -> None:
    assert used(Space("closed", fill(NESTED.spec, {"op": "conv", "w": 8}), 8, 8), {}) == frozenset()
