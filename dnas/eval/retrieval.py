"""Retrieval of a network: the ranking of a gallery for every query, and the file that keeps it query by query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from dnas.data.images import Images
from dnas.data.splits import Split
from dnas.eval.embed import Distance, embed
from dnas.eval.ranking import Ranking, rank
from dnas.nn.network import Network
from dnas.run.files import replace_file

PER_QUERY = "per_query.npz"
"""What every query scored."""


def retrieve(
    network: Network,
    images: Images,
    queries: int,
    distance: Distance = "cosine",
    flip_average: bool = False,
    chunk: int = 256,
) -> tuple[Ranking, Tensor]:
    """The ranking of the gallery for every query, and the embedding of both.

    Args:
        images: the query images, then the gallery.
        queries: how many of them are queries.
        chunk: queries ranked at a time.
    """
    embedding_ND = embed(network, images, distance=distance, flip_average=flip_average)
    pids, sources = images.ids
    query_ids, gallery_ids = ((pids[part], sources[part]) for part in (slice(queries), slice(queries, None)))
    query_QD, gallery_GD = embedding_ND[:queries], embedding_ND[queries:]
    return rank(query_QD, gallery_GD, query_ids, gallery_ids, distance, chunk), embedding_ND


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
