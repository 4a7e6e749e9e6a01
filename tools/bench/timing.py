"""Shared by the benchmarks: variants interleaved in random order in one process, medians of ratios, memory held."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
from torch.profiler import ProfilerActivity, profile


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Seconds of every variant in every round, after one warm-up each; the order is drawn anew in each round."""
    rng = random.Random(seed)
    for run in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        order = list(variants)
        rng.shuffle(order)
        for name in order:
            start = time.perf_counter()
            variants[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(above: list[float], below: list[float]) -> tuple[float, float, float]:
    """Median of the per-round ratios, and their quartiles."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return middle, low, high


def interval(above: list[float], below: list[float], seed: int = 0) -> tuple[float, float, float]:
    """Median of the per-round ratios with a 95 % interval: rounds resampled."""
    ratios = np.array(above) / np.array(below)
    medians = np.median(np.random.default_rng(seed).choice(ratios, (5000, len(ratios))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def held_mb(run: Callable[[], object]) -> float:
    """Largest memory held at one time beyond what was there, in MB."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=False) as memory:
        run()
    held = peak = 0
    for event in memory.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 1e6
