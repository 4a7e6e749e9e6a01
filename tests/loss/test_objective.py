"""What the loss keeps of a training, and what it does not."""

import pytest
import torch

from dnas.loss.objective import LossConfig, Objective

C, D = 7, 4


def objective(eta: float) -> Objective:
    torch.manual_seed(int(10 * eta))
    found = Objective(LossConfig(eta=eta), C, D)
    if eta > 0:
        found.statistics.update(torch.randn(8, D), torch.randint(C, (8,)))
    return found


def test_without_the_bound_there_are_no_class_statistics() -> None:
    off = Objective(LossConfig(eta=0), 10_000, 512)
    assert off.state_dict() == {}
    assert sum(buffer.numel() for buffer in off.buffers()) == 0
    assert off.statistics.beta == Objective(LossConfig(), 10_000, 512).statistics.beta
    assert objective(0.3).state_dict()["statistics.phi_sum_CK"].shape == (C, C)


def test_checkpoints_with_and_without_statistics() -> None:
    """Older ones have them at eta 0 too; and a run may go on with the bound that began without."""
    on, off = objective(0.3), objective(0)
    off.load_state_dict(on.state_dict())
    assert off.state_dict() == {}
    fresh = objective(0.5)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    fresh.load_state_dict(off.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    fresh.load_state_dict(on.state_dict())
    assert all(torch.equal(value, on.state_dict()[name]) for name, value in fresh.state_dict().items())
    damaged = on.state_dict()
    del damaged["statistics.weight_C"]
    with pytest.raises(RuntimeError, match="weight_C"):
        fresh.load_state_dict(damaged)
