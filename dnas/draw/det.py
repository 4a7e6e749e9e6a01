"""False over missed pairs (a DET curve, Martin et al., Eurospeech 1997), on normal-deviate axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.stats import norm

from dnas.draw.style import INK, SERIES, label, style

TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)


def draw_det(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], points: Sequence[tuple[float, float]] = ()
) -> Figure:
    """Share of missed pairs of one person over that of false pairs of different people.

    Args:
        curves: name -> (false, missed), shares from 0 to 1.
        points: thresholds to mark.
    """
    low = min((min(false) for false, _ in curves.values()), default=1e-4)
    low = max(low, TICKS[0])
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 4.4), layout="constrained")
        for colour, (name, (false, missed)) in zip(SERIES, curves.items(), strict=False):
            axes.plot(
                *(norm.ppf(np.clip(part, low, 0.99)) for part in (false, missed)), color=colour, label=label(name)
            )
        for share, miss in points:
            place = (float(norm.ppf(max(share, low))), float(norm.ppf(min(max(miss, low), 0.99))))
            axes.plot(*place, "o", color=INK, markersize=5)
            axes.annotate(
                f"{share:.1%} false, {miss:.1%} missed", place, (6, 6), textcoords="offset points", fontsize=8
            )
        ticks = [tick for tick in TICKS if tick >= low]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([float(norm.ppf(tick)) for tick in ticks]))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(
                FuncFormatter(lambda place, _: f"{norm.cdf(place):.3%}".rstrip("0%").rstrip(".") + "%")
            )
        axes.set_xlabel("pairs of different people taken for one")
        axes.set_ylabel("pairs of one person missed")
        axes.set_xlim(norm.ppf(low), norm.ppf(0.95))
        axes.legend()
    return figure
