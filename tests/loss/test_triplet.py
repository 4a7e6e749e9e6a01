"""The dense batch-hard triplet loss against the library's."""

import pytest
import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner

from dnas.loss.triplet import batch_hard_triplet

BATCHES = {
    "P x K": [0, 0, 1, 1, 2, 2, 3, 3],
    "an identity with one image": [0, 0, 0, 1, 2, 2],
    "one identity": [4, 4, 4],
    "no positives": [0, 1, 2],
}


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("margin", [0.05, 0.3, 1.5])
def test_equals_the_library(labels: list[int], margin: float) -> None:
    y = torch.tensor(labels)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        ours = torch.randn(len(y), 6, generator=generator, dtype=torch.float64, requires_grad=True)
        theirs = ours.detach().clone().requires_grad_()
        expected = TripletMarginLoss(margin=margin)(theirs, y, BatchHardMiner()(theirs, y))
        found = batch_hard_triplet(ours, y, margin)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        expected.backward()
        found.backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)


def test_identical_images_have_a_finite_gradient() -> None:
    feature = torch.ones(4, 3, requires_grad=True)
    batch_hard_triplet(feature, torch.tensor([0, 0, 1, 1]), 0.3).backward()
    assert feature.grad is not None
    assert bool(feature.grad.isfinite().all())
