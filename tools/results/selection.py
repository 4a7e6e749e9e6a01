"""Does attention that selects channels pay? The experiment of docs/results/selection.md.

    python tools/results/selection.py ACTION STUDY DATA OUT [--weights W] [--workers N] [--seeds N] [--epochs N]
        [--settings NAME ...] [--arms NAME ...]

    tune    settings, by cross-validation over training identities: query and gallery are not read
    masks   what the masks of the chosen setting do, on the held-out identities of the same folds
    insert  what the cells do to published weights before any training, on the training identities
    run     every arm and seed; then query and gallery, once
    also    the finished runs on the query and gallery of another DATA
    report  the tables (Markdown), from the runs alone

STUDY: cows, letters, pedestrians. A finished run is kept, an interrupted one goes on: run the same line again.
`--workers` (2) run side by side, with one thread each; fewer `--seeds` or `--epochs` are for a small try. The primary
question is fixed: cows, selective attention with the bound minus no attention with the bound.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from jobs import Job, work_all

from dnas.data.augment import InputConfig
from dnas.data.images import decode
from dnas.data.layouts import load_data
from dnas.data.splits import Split, together
from dnas.eval.bootstrap import paired_difference
from dnas.eval.embed import retrieve_within
from dnas.eval.retrieval import retrieve, save_ranking
from dnas.eval.selection import other_masks, replaced_masks, selection_use, spaced
from dnas.loss.objective import IBBOn, LossConfig
from dnas.nn.attention import ATTENTION, attention
from dnas.nn.backbones import Attention, backbone
from dnas.nn.pretrained import load_weights
from dnas.nn.reid_net import ReIDNet
from dnas.nn.selective_attention import SelectiveAttention
from dnas.run.folder import RunFolder
from dnas.run.schedules import OptimConfig
from dnas.space.spec import Spec, image
from retrain.config import RetrainConfig
from retrain.load import load

FOLDS = 5
BOUND = LossConfig().eta
"""The default weight of the bound."""
LR = 3.0
"""The factor on the learning rate of what selects that was the default when the settings were compared."""
ATTENTION |= {"selective_gain": SelectiveAttention(gain=0.3), "selective_start": SelectiveAttention(start=3.0)}
ARMS: dict[str, tuple[str, float]] = {
    "selective + bound": ("selective", BOUND),  # the primary pair first: an early end still answers it
    "none + bound": ("none", BOUND),
    "unselective + bound": ("unselective", BOUND),
    "non-local + bound": ("non_local", BOUND),
    "SE + bound": ("se", BOUND),
    "none": ("none", 0.0),
    "selective": ("selective", 0.0),
    "unselective": ("unselective", 0.0),
    "non-local": ("non_local", 0.0),
    "SE": ("se", 0.0),
}
AGAINST = {
    **{arm: "none + bound" for arm in ARMS if arm.endswith("+ bound") and not arm.startswith("none")},
    **{arm: "none" for arm in ARMS if not arm.endswith("+ bound") and arm != "none"},
    "none + bound": "none",
}
PRIMARY = ("selective + bound", "none + bound")


@dataclass(frozen=True)
class Study:
    """A data set with the network and recipe that it is tried with."""

    backbone: str
    width: float
    height: int
    image_width: int
    seeds: int
    optim: OptimConfig
    flip: float = 0.5
    chosen: str = "selective"
    """Of `GRID`: the cell of the selective arms, and the factor of every arm's learning rate for the selection."""

    def config(self, data: str, out: Path, attention: str, eta: float, seed: int, weights: str | None) -> RetrainConfig:
        return RetrainConfig(
            data, str(out), backbone=self.backbone, backbone_width=self.width,
            attention=attention, weights=weights, seed=seed, holdout=0.0, device="cpu", optim=self.optim,
            input=InputConfig(self.height, self.image_width, flip=self.flip), loss=LossConfig(eta=eta),
        )  # fmt: skip


STUDIES = {
    "cows": Study("mobilenet_v2", 1.0, 128, 64, 10, OptimConfig(10, lr=3.5e-4, warmup=1), chosen="selective, lr x100"),
    "letters": Study(
        "resnet18", 0.25, 64, 64, 5, OptimConfig(epochs=16, lr=3e-3), flip=0.0, chosen="selective, lr auto"
    ),
    "pedestrians": Study("resnet18", 0.25, 64, 32, 5, OptimConfig(epochs=16, lr=3e-3), chosen="selective, lr x10"),
}

LAST = "none,none,none,"
"""Before the cell of the last stage alone."""
GRID: dict[str, tuple[str, float | None, IBBOn]] = {
    "none": ("none", LR, "embedding"),
    "unselective": ("unselective", LR, "embedding"),
    "selective": ("selective", LR, "embedding"),
    "selective, gain 0.3": ("selective_gain", LR, "embedding"),
    "selective, start 3": ("selective_start", LR, "embedding"),
    "selective, lr auto": ("selective", None, "embedding"),
    "selective, lr x10": ("selective", 10.0, "embedding"),
    "selective, lr x30": ("selective", 30.0, "embedding"),
    "selective, lr x100": ("selective", 100.0, "embedding"),
    "unselective, lr auto": ("unselective", None, "embedding"),
    "unselective, lr x10": ("unselective", 10.0, "embedding"),
    "unselective, lr x30": ("unselective", 30.0, "embedding"),
    "unselective, lr x100": ("unselective", 100.0, "embedding"),
    "selective, last stage": (LAST + "selective", LR, "embedding"),
    "selective, bound on attention": ("selective", LR, "attention"),
    "none, bound on stages": ("none", LR, "attention"),
    "dcs": ("dcs", LR, "embedding"),
    "dcs, lr x9": ("dcs", 9.2, "embedding"),
    "SE": ("se", LR, "embedding"),
}
"""What `tune` compares, each with the bound: name -> cell, selection_lr, ibb_on."""


def fold_manifests(data: str, out: Path) -> list[Path]:
    """A manifest for each fold: training identities of the data set alone, a fifth of them to test on."""
    train = load_data(data, tested=False).train
    pids = np.random.default_rng(0).permutation(np.unique(train.pids[train.pids != 0]))
    return [_manifest(out / f"fold{k}.csv", train, pids[k::FOLDS]) for k in range(FOLDS)]


def _manifest(file: Path, train: Split, held: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("path", "identity", "camera", "split"))
        for path, pid, camid in zip(train.files, train.pids, train.camids, strict=True):
            where = os.path.relpath(path.resolve(), file.parent.resolve())
            rows.writerow((where, pid, camid, "test" if pid in held else "train"))
    return file


def tuning(study: Study, data: str, out: Path, weights: str | None) -> dict[str, list[Job]]:
    """Setting -> its runs, one a fold."""
    folds = fold_manifests(data, out / "folds")
    found: dict[str, list[Job]] = {}
    for name, (cell, selection_lr, ibb_on) in GRID.items():
        found[name] = []
        for k, fold in enumerate(folds):
            config = study.config(str(fold), out / "tune" / f"{_slug(name)}-{k}", cell, BOUND, k, weights)
            optim = replace(config.optim, selection_lr=selection_lr)
            found[name].append(Job(replace(config, optim=optim, loss=replace(config.loss, ibb_on=ibb_on))))
    return found


def tune(study: Study, options: argparse.Namespace) -> None:
    every = tuning(study, options.data, options.out, options.weights)
    found = {name: jobs for name, jobs in every.items() if name in ("none", *(options.settings or GRID))}
    rounds = zip(*found.values(), strict=True)  # folds outside: an early end compares all settings on some folds
    work_all([job for jobs in rounds for job in jobs], options.workers)
    lines = ["| setting | held-out mAP (%) of the folds | mean | minus none | interval |", "|---" * 5 + "|"]
    ap, pids = {}, None
    for name, jobs in found.items():
        files = [np.load(Path(job.config.out) / "per_query.npz") for job in jobs]
        ap[name], pids = (
            np.concatenate([file["ap"] for file in files])[None],
            np.concatenate([file["pids"] + 10_000 * k for k, file in enumerate(files)]),
        )
        means = [100 * float(np.nanmean(file["ap"])) for file in files]
        d = paired_difference(100 * ap[name], 100 * ap["none"], pids)
        cells = [name, " ".join(f"{value:.1f}" for value in means), f"{mean(means):.2f}"]
        lines.append(f"| {' | '.join(cells)} | {d.mean:+.2f} | [{d.low:+.2f}, {d.high:+.2f}] |")
    _write(options.out / "tune.md", lines)


def masks(study: Study, options: argparse.Namespace) -> None:
    """Learned masks against others in their place, on the held-out identities of every fold."""
    jobs = tuning(study, options.data, options.out, options.weights)[study.chosen]
    work_all(jobs, options.workers)
    losses: dict[str, list[float]] = {}
    shares: dict[str, list[dict[str, float]]] = {}
    for job in jobs:
        run = load(job.config.out, "cpu")
        found = load_data(job.config.data)
        held = run.decode(together(found.query, found.gallery))
        use = selection_use(run.network, held)
        own = retrieve_within(run.network, held).metrics()["mAP"]
        for name, replacement in other_masks(use).items():
            with replaced_masks(run.network, replacement):
                losses.setdefault(name, []).append(100 * (own - retrieve_within(run.network, held).metrics()["mAP"]))
        for site, one in use.items():
            shares.setdefault(site, []).append(one.plain())
    lines = ["| learned masks minus | " + " | ".join(f"fold {k + 1}" for k in range(FOLDS)) + " | mean |"]
    lines.append("|---" * (FOLDS + 2) + "|")
    for name, values in losses.items():
        lines.append(f"| {name} | " + " | ".join(f"{value:+.2f}" for value in values) + f" | {mean(values):+.2f} |")
    lines += ["", "| site | share open | depending on the image | perplexity |", "|---|---|---|---|"]
    for site, uses in shares.items():
        means_ = [mean(use[key] for use in uses) for key in ("share", "depending", "perplexity")]
        lines.append(f"| {site} | " + " | ".join(f"{value:.3f}" for value in means_) + " |")
    _write(options.out / "masks.md", lines)


def everywhere(cell: Spec) -> Attention:
    return lambda stage: cell


def insert(study: Study, options: argparse.Namespace) -> None:
    """Retrieval within 500 training images, evenly spaced, by the network as it starts: with and without the cells."""
    train, x = load_data(options.data, tested=False).train, image(study.height, study.image_width)
    images = spaced(decode(train, study.height, study.image_width), 500)
    found: dict[str, float] = {}
    for cell in ("none", "unselective", "selective"):
        torch.manual_seed(0)
        spec = backbone(study.backbone, study.width, attention=everywhere(attention(cell)))
        net = ReIDNet(spec, x, train.identities)
        if options.weights is not None:
            load_weights(net, Path(options.weights))
        found[cell] = 100 * retrieve_within(net, images).metrics()["mAP"]
        print(f"{cell}: {found[cell]:.2f} % mAP, {found[cell] - found['none']:+.2f}")


def final(study: Study, options: argparse.Namespace) -> dict[str, list[Job]]:
    """Arm -> its runs, one a seed."""
    chosen, selection_lr, _ = GRID[study.chosen]
    found: dict[str, list[Job]] = {}
    for arm in options.arms or ARMS:
        cell, eta = ARMS[arm]
        found[arm] = []
        for seed in range(study.seeds):
            own, out = chosen if cell == "selective" else cell, options.out / "run" / f"{_slug(arm)}-{seed}"
            config = study.config(options.data, out, own, eta, seed, options.weights)
            found[arm].append(Job(replace(config, optim=replace(config.optim, selection_lr=selection_lr))))
    return found


def run(study: Study, options: argparse.Namespace) -> None:
    """The primary pair first; seeds outside, so that an interrupted experiment has complete seeds."""
    found = final(study, options)
    pair = [job for jobs in zip(*(found[arm] for arm in found if arm in PRIMARY), strict=True) for job in jobs]
    rest = [job for jobs in zip(*(found[arm] for arm in found if arm not in PRIMARY), strict=True) for job in jobs]
    work_all(pair + rest, options.workers)


def also(study: Study, options: argparse.Namespace) -> None:
    """Evaluate every finished run on the query and gallery of DATA too (occluded queries, say)."""
    other = load_data(options.data)
    for jobs in final(study, options).values():
        for job in jobs:
            made = load(job.config.out, "cpu")
            images = made.decode(together(other.query, other.gallery))
            ranking, _ = retrieve(made.network, images, len(other.query))
            save_ranking(made.folder.path / "also_per_query.npz", ranking, other.query)


def report(study: Study, options: argparse.Namespace) -> None:
    found = final(study, options)
    data: object = None
    lines: list[str] = []
    for title, file in (("query and gallery", "per_query.npz"), ("the other query and gallery", "also_per_query.npz")):
        arms = {arm: jobs for arm, jobs in found.items() if all((Path(j.config.out) / file).exists() for j in jobs)}
        if not arms:
            continue
        lines += [f"{study.seeds} seeds, {title}", "", "| arm | mAP (%) | Rank-1 (%) | against | difference in mAP |"]
        lines.append("|---" * 5 + "|")
        ap = {arm: np.stack([np.load(Path(j.config.out) / file)["ap"] for j in jobs]) for arm, jobs in arms.items()}
        for arm, jobs in arms.items():
            folders = [RunFolder(job.config.out) for job in jobs]
            pids, data = np.load(folders[0].path / file)["pids"], folders[0].json("data.json")
            rank1 = [100 * f.json("summary.json")["test"]["rank1"] for f in folders] if file == "per_query.npz" else []
            cells = [arm + (" (primary)" if arm == PRIMARY[0] else "")]
            cells += [_spread([100 * float(np.nanmean(row)) for row in ap[arm]]), _spread(rank1) if rank1 else ""]
            other = AGAINST.get(arm, "")
            cells.append(other)
            if other in ap:
                d = paired_difference(100 * ap[arm], 100 * ap[other], pids)
                cells.append(f"{d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}]")
            else:
                cells.append("")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    _write(options.out / "table.md", lines)
    print(json.dumps({"data": data}))


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "_")


def _write(file: Path, lines: Sequence[str]) -> None:
    file.write_text("\n".join(lines) + "\n")
    print(*lines, sep="\n")


def main() -> None:
    actions = {"tune": tune, "masks": masks, "insert": insert, "run": run, "also": also, "report": report}
    parser = argparse.ArgumentParser(description="The experiment of docs/results/selection.md.")
    parser.add_argument("action", choices=list(actions))
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", help="published weights of the backbone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--settings", nargs="+", choices=list(GRID), help="of `tune` (all); none is always there")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="of run, also and report (all)")
    options = parser.parse_args()
    study = STUDIES[options.study]
    study = replace(study, seeds=options.seeds or study.seeds)
    study = replace(study, optim=replace(study.optim, epochs=options.epochs or study.optim.epochs))
    options.out.mkdir(parents=True, exist_ok=True)
    actions[options.action](study, options)


if __name__ == "__main__":
    main()
