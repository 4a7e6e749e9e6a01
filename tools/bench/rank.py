"""Ranking and re-ranking against torchreid's, at the size of Market-1501.

    pip install -e .[bench]
    python tools/bench/rank.py [--rounds 3] [--python] [--json]

Keys: python_ratio, cython_ratio, rerank_ratio: seconds of torchreid's evaluation (plain Python; compiled; k-reciprocal
re-ranking) over ours, from the same distances (re-ranking: from the same embeddings); null where it is not installed
(or, for the first, without --python: it takes minutes). peak_mb: memory that ours takes beside the embeddings,
large_peak_mb: with them, for 1,000 queries and 100,000 gallery images.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timing import interleaved, ratio
from torch.nn import functional as F

from dnas.eval.ranking import Ranking, rank, rank_by
from dnas.eval.rerank import Reranked

QUERIES, GALLERY, IDENTITIES, CAMERAS, DIM = 3368, 15913, 750, 6, 512


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Any, Any]:
    """Embeddings around identity centres, so that neighbourhoods mean something; identities and cameras."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(IDENTITIES, DIM))
    found = []
    for count in (QUERIES, GALLERY):
        pids = rng.integers(0, IDENTITIES, count)
        features = centres[pids] + rng.normal(size=(count, DIM)) * 2.2
        ids = (pids + 1, rng.integers(0, CAMERAS, count))
        found.append((F.normalize(torch.from_numpy(features).float(), dim=1), ids))
    (query, q), (gallery, g) = found
    return query, gallery, q, g


def peak_beyond(run: Callable[[], object]) -> float:
    """Growth of the process's largest memory, in MB, while something runs."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def large() -> Ranking:
    """100,000 gallery images of 64 dimensions, which are small beside the distances."""
    rng = np.random.default_rng(0)
    features = F.normalize(torch.from_numpy(rng.normal(size=(101_000, 64)).astype(np.float32)), dim=1)
    ids = (rng.integers(1, 3000, 101_000), rng.integers(0, 15, 101_000))
    return rank(features[:1000], features[1000:], (ids[0][:1000], ids[1][:1000]), (ids[0][1000:], ids[1][1000:]))


def near_ties(features_ND: torch.Tensor, ks: tuple[int, ...] = (6, 11, 21)) -> int:
    """Images with two neighbours equally near, to single precision, of which one belongs to the k nearest and one not.

    There the sets that re-ranking is made of depend on the order of summation, so on the machine, in both programs.
    """
    features, found = features_ND.double(), 0
    for rows in features.split(256):
        near = (2 - 2 * rows @ features.T).topk(max(ks) + 1, largest=False).values
        found += int((near.diff(dim=1)[:, [k - 1 for k in ks]] < 1e-6).any(1).sum())
    return found


def agree(ours: Ranking, cmc: Any, mean_ap: float, tolerance: float) -> None:
    found = ours.metrics()
    for name, theirs in (("mAP", mean_ap), ("rank1", cmc[0]), ("rank5", cmc[4]), ("rank10", cmc[9])):
        if abs(found[name] - theirs) > tolerance:
            raise SystemExit(f"{name}: ours {found[name]}, theirs {theirs}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", action="store_true", help="run torchreid's Python version too, once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    query, gallery, q, g = data()
    ours: Callable[[], Ranking] = lambda: rank(query, gallery, q, g)  # noqa: E731
    rank(query[:64], gallery[:256], (q[0][:64], q[1][:64]), (g[0][:256], g[1][:256]))  # libraries are loaded now
    results: dict[str, float | None] = {"python_ratio": None, "cython_ratio": None, "rerank_ratio": None}
    results["peak_mb"] = round(peak_beyond(ours), 1)
    results["ours_s"] = min(interleaved({"ours": ours}, options.rounds)["ours"])
    results["large_peak_mb"] = round(peak_beyond(large), 1)
    try:
        from pyppbox_torchreid.metrics.rank import IS_CYTHON_AVAI, evaluate_rank
        from pyppbox_torchreid.utils.rerank import re_ranking
    except ImportError:
        return report(results, options.json)

    def distances(a: torch.Tensor, b: torch.Tensor) -> Any:
        return (2 - 2 * a @ b.T).clamp(min=0).sqrt().numpy()

    cosine = 1 - query @ gallery.T  # the same distances for both: what is compared is the ranking

    def ours_from() -> Ranking:
        return rank_by(lambda part: cosine[part], q, g, query.device)

    def theirs(fast: bool) -> Any:
        return evaluate_rank(cosine.numpy(), q[0], g[0], q[1], g[1], max_rank=10, use_cython=fast)

    if IS_CYTHON_AVAI:
        cmc, mean_ap = theirs(True)
        agree(ours_from(), cmc, mean_ap, 1e-6)
        seconds = interleaved({"ours": ours_from, "theirs": lambda: theirs(True)}, options.rounds)
        results["cython_ratio"] = ratio(seconds["theirs"], seconds["ours"])[0]
    if options.python:
        start = time.perf_counter()
        cmc, mean_ap = theirs(False)
        taken = time.perf_counter() - start
        agree(ours_from(), cmc, mean_ap, 1e-6)
        start = time.perf_counter()
        ours_from()
        results["python_ratio"] = taken / (time.perf_counter() - start)
    start = time.perf_counter()
    reranked = rank_by(Reranked(query, gallery).rows, q, g, query.device, chunk=64)
    middle = time.perf_counter()
    wanted = re_ranking(distances(query, gallery), distances(query, query), distances(gallery, gallery))
    end = time.perf_counter()
    results["rerank_ratio"] = (end - middle) / (middle - start)
    results["rerank_s"] = middle - start
    apart = np.abs(Reranked(query, gallery).rows(slice(0, 256)).numpy() - wanted[:256])
    results["rerank_largest_difference"] = float(apart.max())
    results["rerank_differing_share"] = float((apart > 1e-5).mean())
    results["rerank_near_ties"] = ties = near_ties(torch.cat([query, gallery]))
    if apart.max() > 1e-5 and not ties:
        raise SystemExit(f"re-ranking: distances differ by {apart.max()}, and no two neighbours are equally near")
    wanted_map = rank_by(lambda part: torch.from_numpy(wanted[part].copy()), q, g, query.device).metrics()["mAP"]
    if abs(wanted_map - reranked.metrics()["mAP"]) > 1e-4:
        raise SystemExit(f"re-ranking: ours {reranked.metrics()['mAP']}, theirs {wanted_map}")
    return report(results, options.json)


def report(results: dict[str, float | None], as_json: bool) -> None:
    table = Table("measure", "value", title=f"{QUERIES:,} queries, {GALLERY:,} gallery images, {DIM} dimensions")
    for name, value in results.items():
        table.add_row(name, "-" if value is None else f"{value:.4g}")
    Console().print(table)
    if as_json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
