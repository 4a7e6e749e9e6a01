"""Class statistics of two processes equal those of one on all the images; and k-means."""

from pathlib import Path

import pytest
import torch
from torch import multiprocessing
from torch.nn import functional as F

from dnas.loss.ibb import ClassStatistics
from dnas.loss.kmeans import kmeans
from dnas.run.distributed import all_gather
from tests.ranks import leave

C, D = 4, 6


def data() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(16, D, generator=g), torch.randint(C - 1, (16,), generator=g)  # one identity is absent


def statistics(rows: slice, shard: slice) -> dict[str, torch.Tensor]:
    """Of the rows of a rank's batches, and clusters of its share of the images."""
    features, labels = data()
    clustered = ClassStatistics(C, D, clusters=5)
    clustered.refresh(features[shard], labels[shard], torch.Generator().manual_seed(0))
    found = ClassStatistics(C, D)
    found.refresh(features[rows], labels[rows])
    passed = {f"refresh {name}": value.clone() for name, value in found.state_dict().items()}
    for _ in range(3):
        found.update(all_gather(features[rows]), all_gather(labels[rows]))
    return passed | found.state_dict() | {f"clustered {name}": one for name, one in clustered.state_dict().items()}


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(statistics(slice(8 * rank, 8 * rank + 8), slice(rank, None, 2)), f"{folder}/{rank}.pt")
    leave()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    expected = statistics(slice(None), slice(None))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, msg=name)


def test_kmeans_finds_separated_clusters() -> None:
    g = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.eye(3, 8), dim=1)
    points = F.normalize(centres.repeat(20, 1) + 0.05 * torch.randn(60, 8, generator=g), dim=1)
    found = kmeans(points, 6, torch.Generator().manual_seed(3))
    nearest = (found @ centres.T).max(1)
    assert set(nearest.indices.tolist()) == {0, 1, 2}
    assert float(nearest.values.min()) > 0.9
    assert kmeans(points[:2], 5, g).shape == (5, 8)  # fewer points than clusters


def test_clusters_need_a_table_of_k_by_c() -> None:
    found = ClassStatistics(1000, 8, clusters=7)
    features, labels = torch.randn(300, 8), torch.randint(1000, (300,))
    found.refresh(features, labels, torch.Generator().manual_seed(0))
    assert found.phi_sum_CK.shape == (1000, 7)
    assert found.log_assignment(features).shape == (300, 7)
    rows = found.log_q_rows(labels)
    torch.testing.assert_close(rows.exp().sum(1), torch.ones(300))
    one = int(labels[0])
    expected = found.log_assignment(features[labels == one]).exp().mean(0)
    torch.testing.assert_close(found.log_q_rows(labels[:1]).exp()[0], expected, atol=1e-5, rtol=0)
