"""How far colour alone goes on a data set: ranking by histograms. Usage: python tools/results/histograms.py DATA"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from dnas.data.images import Images, decode
from dnas.data.layouts import load_data
from dnas.eval.ranking import rank

HEIGHT, WIDTH = 128, 64
WHOLE = (slice(None), slice(None))
BODY = ((slice(20, 70), slice(20, 44)), (slice(70, 120), slice(20, 44)))


def histograms(images: Images, parts: tuple[tuple[slice, slice], ...]) -> Tensor:
    """Square roots of 8x8x8 colour histograms of image parts, as unit vectors (N, 512 * parts)."""
    found = []
    for rows, columns in parts:
        bins = images.pixels[images.rows][:, rows, columns].flatten(1, 2).long() // 32
        index = bins[..., 0] * 64 + bins[..., 1] * 8 + bins[..., 2]
        found.append(torch.zeros(len(index), 512).scatter_add_(1, index, torch.ones(index.shape)).sqrt())
    return F.normalize(torch.cat(found, 1), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Ranking by colour histograms.")
    parser.add_argument("data")
    found = load_data(parser.parse_args().data)
    query, gallery = (decode(split, HEIGHT, WIDTH) for split in (found.query, found.gallery))
    table = Table("ranking by", "mAP (%)", "Rank-1 (%)")
    for name, parts in (("histogram of the image", (WHOLE,)), ("histograms of upper and lower body", BODY)):
        q, g = histograms(query, parts), histograms(gallery, parts)
        metrics = rank(q, g, (query.pids, query.camids), (gallery.pids, gallery.camids)).metrics()
        table.add_row(name, f"{100 * metrics['mAP']:.1f}", f"{100 * metrics['rank1']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
