"""The similarity from which on two pictures are taken for one person, and what that costs: false and missed pairs.

Similarity is the cosine, or minus the euclidean distance. Intervals are of 95 %, from resampling identities: pairs
with a person in common are not independent (the weight of a pair is the product of its persons' counts).

Shapes: N pictures, D embedding, P pairs, I identities.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnas.data.images import Images
from dnas.errors import UserError
from dnas.eval.embed import Distance, embed
from dnas.nn.network import Network

FORMAT = "dnas-calibration/1"
HELD = "held-out identities"
SHARES = (0.01, 0.001)
"""Of the pairs of different people, that a threshold lets through."""
FEWEST = 10
"""Pairs that must be above a threshold for it to be worth saying."""
MOST_PICTURES = 6000
"""18 million pairs; of more pictures these many are drawn."""
RESAMPLED = 200
TAIL = 5
"""Times as many pairs as the largest share: what a resample can reach."""
CURVE = 200
"""Points of the curve of false over missed pairs."""


@dataclass(frozen=True)
class Pairs:
    """All pairs of some pictures.

    Args:
        different: (P) similarities of different people, falling; `first`, `second` their identities 0..I-1.
        same: (S) of one person, by another camera where there are any; `who` (S) the identity.
        pictures: (I) of every identity.
    """

    different: NDArray[np.float32]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.float32]
    who: NDArray[np.int64]
    pictures: NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """One threshold.

    Args:
        share: of the pairs of different people that are above it.
        similarity: the threshold; `similarity_low`, `_high` its interval.
        found: share of the pairs of one person above it; `found_low`, `_high` its interval, with the threshold's.
    """

    share: float
    similarity: float
    similarity_low: float
    similarity_high: float
    found: float
    found_low: float
    found_high: float


def pairs(
    embedding_ND: Tensor, pids: NDArray[np.int64], camids: NDArray[np.int64], distance: Distance, seed: int = 0
) -> Pairs:
    """Similarities of all pairs; of too many pictures a part is drawn.

    Args:
        pids, camids: (N) identities, of which 0 (nobody) is left out, and cameras.

    Raises:
        UserError: no two pictures of one person, or of two.
    """
    rows = np.flatnonzero(pids != 0)
    if len(rows) > MOST_PICTURES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_PICTURES, replace=False))
    _, who_N = np.unique(pids[rows], return_inverse=True)
    cam_N, x_ND = camids[rows], embedding_ND[torch.from_numpy(rows).to(embedding_ND.device)]
    several = len(np.unique(cam_N)) > 1
    different: list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]] = []
    same: list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]] = []
    for start in range(0, len(rows), 512):
        part = slice(start, start + 512)
        values = x_ND[part] @ x_ND.T if distance == "cosine" else -torch.cdist(x_ND[part], x_ND)
        values_RN = values.float().cpu().numpy()
        later = np.arange(len(rows)) > np.arange(len(rows))[part, None]  # every pair once
        one = who_N[part, None] == who_N
        apart = (cam_N[part, None] != cam_N) if several else later
        for chosen, into in ((later & ~one, different), (later & one & apart, same)):
            row, column = np.nonzero(chosen)
            into.append((values_RN[row, column], who_N[row + start], who_N[column]))
    if sum(len(part[0]) for part in different) < 2 or not sum(len(part[0]) for part in same):
        raise UserError("calibration: needs pairs of pictures of one person (by two cameras), and of two people")
    impostor, first, second = (np.concatenate(column) for column in zip(*different, strict=True))
    genuine, who, _ = (np.concatenate(column) for column in zip(*same, strict=True))
    order = np.argsort(-impostor, kind="stable")
    return Pairs(impostor[order], first[order], second[order], genuine, who, np.bincount(who_N))


def threshold(pairs: Pairs, share: float, weights_I: NDArray[np.float64] | None = None) -> tuple[float, float]:
    """The similarity that `share` of the pairs of different people are above, and the share of same pairs above it.

    Args:
        weights_I: how often each identity counts; once each without.
    """
    if weights_I is None:
        place = int(share * len(pairs.different))
        same_weights = None
    else:
        tail = slice(0, min(len(pairs.different), int(TAIL * share * len(pairs.different)) + 1))
        total = _weight_of_pairs(weights_I, pairs.pictures)
        above = np.cumsum(weights_I[pairs.first[tail]] * weights_I[pairs.second[tail]])
        place = int(np.searchsorted(above, share * total, side="right"))
        same_weights = weights_I[pairs.who]
    value = between(pairs.different, place)
    found = np.average(pairs.same >= value, weights=same_weights)
    return value, float(found)


def between(falling: NDArray[np.float32], above: int) -> float:
    """A value that the first `above` of some falling numbers are above, and the others below."""
    above = min(max(above, 1), len(falling) - 1)
    return (float(falling[above - 1]) + float(falling[above])) / 2


def _weight_of_pairs(weights_I: NDArray[np.float64], pictures_I: NDArray[np.int64]) -> float:
    """Sum over all pairs of pictures of different people of the product of their weights."""
    counts = weights_I * pictures_I
    return float((counts.sum() ** 2 - (counts**2).sum()) / 2)


def points(pairs: Pairs, seed: int = 0) -> list[Point]:
    """Thresholds at SHARES, those for which there are pairs enough, with intervals."""
    rng = np.random.default_rng(seed)
    count = len(pairs.pictures)
    has_same = np.bincount(pairs.who, minlength=count) > 0
    draws = (rng.multinomial(count, np.full(count, 1 / count)).astype(float) for _ in range(RESAMPLED))
    weights = [drawn for drawn in draws if drawn[has_same].sum() and (drawn > 0).sum() > 1]
    found = []
    for share in SHARES:
        if share * len(pairs.different) < FEWEST:
            continue
        value, kept = threshold(pairs, share)
        resampled = np.array([threshold(pairs, share, drawn) for drawn in weights])
        (low, kept_low), (high, kept_high) = np.quantile(resampled, [0.025, 0.975], axis=0).tolist()
        found.append(Point(share, value, low, high, kept, kept_low, kept_high))
    return found


def calibrate(
    network: Network, images: Images, distance: Distance, flip_average: bool, on: str = HELD
) -> dict[str, Any]:
    """What calibration.json holds, of pictures of people whom the network has not seen.

    Args:
        on: whose pictures they are.
    """
    embedding_ND = embed(network, images, distance=distance, flip_average=flip_average)
    return {"on": on, **calibration(embedding_ND, *images.ids, distance)}


def calibration(
    embedding_ND: Tensor, pids: NDArray[np.int64], camids: NDArray[np.int64], distance: Distance
) -> dict[str, Any]:
    """What calibration.json holds: thresholds with intervals, and the curve of missed over false pairs."""
    found = pairs(embedding_ND, pids, camids, distance)
    lowest = max(1.0 / len(found.different), 1e-6)
    shares = np.geomspace(lowest, 1, CURVE)
    values = found.different[np.clip((shares * len(found.different)).astype(int) - 1, 0, None)]
    missed = np.searchsorted(np.sort(found.same), values) / len(found.same)
    return {
        "format": FORMAT,
        "distance": distance,
        "identities": len(found.pictures),
        "pictures": int(found.pictures.sum()),
        "different_pairs": len(found.different),
        "same_pairs": len(found.same),
        "points": [asdict(point) for point in points(found)],
        "curve": {"similarity": values.tolist(), "false": shares.tolist(), "missed": missed.tolist()},
    }
