"""Why the default beta grows with log C: perplexity of phi and gradient of the term over beta, for several C.

    python tools/results/beta.py OUT.png [--run RUN]

Synthetic identities: random centres on the unit sphere (D = 512), 8 images each at a cosine of about 0.7 to their
centre and a share of hard ones half way to another centre. With --run also the embedding of a trained network.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.data.layouts import load_data
from dnas.draw.style import MARKERS, SERIES, style
from dnas.loss.ibb import ClassStatistics, bound
from retrain.load import load

BETAS = [0.1 * 1.35**k for k in range(20)]


def synthetic(identities: int, dim: int = 512, images: int = 8) -> tuple[Tensor, Tensor]:
    """Features (N, D) and labels of `identities` clusters, every fourth image half way to another one."""
    g = torch.Generator().manual_seed(0)
    centres_CD = F.normalize(torch.randn(identities, dim, generator=g), dim=1)
    labels_N = torch.arange(identities).repeat_interleave(images)
    points_ND = centres_CD[labels_N] + torch.randn(len(labels_N), dim, generator=g) / dim**0.5
    hard_N = torch.arange(len(labels_N)) % 4 == 0
    other_N = torch.randint(identities, (len(labels_N),), generator=g)
    return F.normalize(points_ND + hard_N[:, None] * centres_CD[other_N], dim=1), labels_N


def measure(features_ND: Tensor, labels_N: Tensor, beta: float, tight: bool) -> tuple[float, float]:
    """Perplexity of phi as a share of C (log scale: 0 one-hot, 1 uniform), and mean gradient norm of an image."""
    c = int(labels_N.max()) + 1
    statistics = ClassStatistics(c, features_ND.shape[1], beta=beta)
    statistics.refresh(features_ND, labels_N)
    rows = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(1))[:512]
    f = features_ND[rows].clone().requires_grad_()
    log_phi = statistics.log_assignment(f)
    bound(log_phi, statistics.log_q_rows(labels_N[rows]), tight).backward()
    assert f.grad is not None
    entropy = float(torch.special.entr(log_phi.detach().exp()).sum(1).mean())
    return entropy / math.log(c), float(f.grad.norm(dim=1).mean()) * len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Perplexity of phi and gradient of the term over beta.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    sets = {f"C = {c:,}": synthetic(c) for c in (20, 100, 751, 2000)}
    if options.run:
        run = load(options.run, "cpu")
        images = run.decode(load_data(run.config.data).train)
        sets[f"trained, C = {images.classes}"] = (run.embed(images), images.labels)
    with style():
        figure, grid = plt.subplots(1, 3, figsize=(13, 4))
        for colour, marker, (name, (features, labels)) in zip(SERIES, MARKERS, sets.items(), strict=False):
            scale = math.log(int(labels.max()) + 1)
            curves = [[measure(features, labels, beta * scale, tight) for beta in BETAS] for tight in (False, True)]
            for axes, values in zip(
                grid, ([v for v, _ in curves[0]], [g for _, g in curves[0]], [g for _, g in curves[1]]), strict=True
            ):
                axes.plot(BETAS, values, marker=marker, color=colour, markersize=4, label=name)
            print(
                name,
                "gradient at beta = 1:",
                round(measure(features, labels, 1.0, False)[1], 5),
                "at log C:",
                round(measure(features, labels, scale, False)[1], 5),
            )
        titles = (
            "log perplexity of phi / log C\n(1: uniform, 0: one-hot)",
            "gradient norm of an image, paper bound",
            "gradient norm of an image, tight bound",
        )
        for axes, title in zip(grid, titles, strict=True):
            axes.set_xscale("log")
            axes.axvline(1, color="#222222", linestyle=":", linewidth=1)
            axes.set_xlabel("beta / log C  (dotted: the default)")
            axes.set_title(title, fontsize=10)
        grid[0].legend(frameon=False, fontsize=7, loc="lower left")
        figure.tight_layout()
        figure.savefig(options.out)


if __name__ == "__main__":
    main()
