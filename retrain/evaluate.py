"""How good a trained network is, on query and gallery and as an information bottleneck, and how fast."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import quantiles

import numpy as np
import torch
from torch import Tensor

from dnas.data.images import Images
from dnas.data.splits import Split
from dnas.eval.embed import Distance, embed
from dnas.eval.ranking import Ranking, rank
from dnas.nn.reid_net import ReIDNet
from dnas.run.files import replace_file

Protocol = Mapping[str, str | bool]
"""How retrieval was measured: `distance`, `flip_average`."""


def retrieve(
    network: ReIDNet, images: Images, queries: int, distance: Distance = "cosine", flip_average: bool = False
) -> tuple[Ranking, Tensor]:
    """The ranking of the gallery for every query, and the embedding of both.

    Args:
        images: the query images, then the gallery.
        queries: how many of them are queries.
    """
    embedding_ND = embed(network, images, distance=distance, flip_average=flip_average)
    query_ids, gallery_ids = (
        (images.pids[part], images.camids[part]) for part in (slice(queries), slice(queries, None))
    )
    return rank(embedding_ND[:queries], embedding_ND[queries:], query_ids, gallery_ids, distance), embedding_ND


def save_ranking(file: Path, ranking: Ranking, query: Split) -> None:
    """Per-query results, so that runs can be compared query by query."""
    columns = {
        "ap": ranking.ap,
        "first_match": ranking.first_match,
        "inp": ranking.inp,
        "pids": query.pids,
        "camids": query.camids,
    }
    replace_file(file, lambda stream: np.savez_compressed(stream, **columns))  # type: ignore[arg-type]


@torch.inference_mode()
def latency(net: ReIDNet, size: tuple[int, int], repeats: int = 30) -> dict[str, float | str]:
    """Milliseconds to embed one image: median and quartiles over `repeats`, after three warm-ups."""
    device = next(net.parameters()).device
    net.eval()
    x = torch.zeros(1, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        net.embed(x).sum().item()  # .item() waits for the device
        times.append((time.perf_counter() - start) * 1e3)
    low, middle, high = quantiles(times[3:], n=4)
    return {"median_ms": middle, "q25_ms": low, "q75_ms": high, "device": device.type}
