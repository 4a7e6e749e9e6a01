"""Noise by rows: the part of a rank is its rows of one process's noise, and no more is drawn."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import kstest

from dnas.run import noise
from dnas.run.noise import pcg64, rand_like, splitmix

CPU = torch.device("cpu")
DRAWS = [pcg64, splitmix]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_draw_their_own_rows(
    world: int, draw: Callable[..., torch.Tensor], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sites after one another, rows of an odd number of elements."""
    drawn: list[int] = []
    monkeypatch.setattr(
        noise, "pcg64", lambda key, start, count, *more: (drawn.append(count), draw(key, start, count, *more))[1]
    )
    shapes = [(6, 5, 7), (6, 3)]
    torch.manual_seed(3)
    whole = [rand_like(torch.empty(shape, dtype=dtype)) for shape in shapes]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        torch.manual_seed(3)
        drawn.clear()
        each = 6 // world
        for expected, (_, *rest) in zip(whole, shapes, strict=True):
            part = rand_like(torch.empty((each, *rest), dtype=dtype))
            assert part.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert torch.equal(part, expected[rank * each : (rank + 1) * each])
        assert drawn == [each * 35, each * 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("draw", DRAWS)
def test_numbers_are_uniform_and_independent(draw: Callable[..., torch.Tensor], dtype: torch.dtype) -> None:
    key, other = torch.tensor(5), torch.tensor(6)
    u = draw(key, 0, 100_000, dtype, CPU)
    assert 0 <= float(u.min()) < float(u.max()) < 1
    assert kstest(u.numpy(), "uniform").pvalue > 1e-3
    following = torch.stack([u[:-1], u[1:], draw(other, 0, 99_999, dtype, CPU), draw(key, 1 << 40, 99_999, dtype, CPU)])
    correlation = torch.corrcoef(following.double()) - torch.eye(4, dtype=torch.float64)
    assert float(correlation.abs().max()) < 0.015
    assert torch.equal(draw(key, 12_345, 10, dtype, CPU), u[12_345:12_355])


def test_a_step_has_its_own_noise() -> None:
    x = torch.empty(4, 3)
    torch.manual_seed(1)
    first, second = rand_like(x), rand_like(x)
    torch.manual_seed(1)
    assert torch.equal(rand_like(x), first)
    torch.manual_seed(2)
    assert not torch.equal(rand_like(x), first)
    assert not torch.equal(first, second)


def test_it_does_not_break_a_compiled_graph() -> None:
    """And draws the same, but for torch's own compiler, whose key is from random numbers of its own."""
    x = torch.empty(4, 3)
    torch.manual_seed(1)
    expected = rand_like(x)
    torch.manual_seed(1)
    assert torch.equal(torch.compile(rand_like, backend="eager", fullgraph=True)(x), expected)
