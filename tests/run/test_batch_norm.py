"""Batch norm of two processes is that of one on the global batch, where the mean is large against the deviation too."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing

from dnas.run import distributed
from tests.ranks import leave

CASES = {"usual": (torch.float64, 0.3, 2.0), "far from zero": (torch.float32, 100.0, 0.1)}
"""Precision, mean and deviation of the input."""


def data(case: str) -> tuple[Tensor, Tensor]:
    """The global input, and a weight for every output, so that the loss depends on all of them."""
    dtype, mean, deviation = CASES[case]
    g = torch.Generator().manual_seed(0)
    shift_C = torch.randn(6, generator=g)[:, None, None]
    x = mean + deviation * (torch.randn(8, 6, 5, 3, generator=g) + shift_C)
    x[4:] += 2 * deviation  # the ranks' means differ
    return x.to(dtype), torch.randn(8, 6, 5, 3, generator=g).to(dtype)


def normalised(case: str, rows: slice, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Output, gradients and running statistics for these rows."""
    x, weight = (part[rows].to(dtype or part.dtype) for part in data(case))
    x.requires_grad_()
    mean_C, var_C = torch.zeros(6, dtype=x.dtype), torch.ones(6, dtype=x.dtype)
    gain_C, bias_C = (torch.linspace(0.5, 2, 6, dtype=x.dtype).requires_grad_() for _ in range(2))
    y = distributed.batch_norm(x, mean_C, var_C, gain_C, bias_C, True, 0.1, 1e-5)
    (y * weight).sum().backward()
    assert x.grad is not None
    parameters = {"gain": gain_C.grad, "bias": bias_C.grad}
    distributed.sum_gradients([gain_C, bias_C])  # type: ignore[list-item]
    return {"y": y.detach(), "x": x.grad, "mean": mean_C, "var": var_C, **parameters}  # type: ignore[dict-item]


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({case: normalised(case, slice(4 * rank, 4 * rank + 4)) for case in CASES}, f"{folder}/{rank}.pt")
    leave()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(_rank, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_normalise_as_one(case: str, ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    """Far from zero: as near to double precision as torch's own batch norm of one process is."""
    expected = normalised(case, slice(None), torch.float64)
    alone = normalised(case, slice(None))
    for name, value in expected.items():
        parts = [found[case][name] for found in ranks]
        found = torch.cat(parts) if name in ("y", "x") else parts[0]
        error = float((found - value).abs().max())
        bound = 1e-10 if found.dtype == torch.float64 else 4 * float((alone[name] - value).abs().max()) + 1e-6
        assert error <= bound, f"{name}: {error}"
