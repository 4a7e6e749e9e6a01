"""Does the bound make attention more informative? The experiment of docs/results/informative-attention.md.

    python tools/results/informative_attention.py tune   DATA OUT    eta, beta and bound on held-out identities
    python tools/results/informative_attention.py run    DATA OUT    every model, 5 seeds; a finished run is kept
    python tools/results/informative_attention.py also   DATA OUT    the finished runs on another query and gallery
    python tools/results/informative_attention.py report DATA OUT    table (Markdown) and plots into OUT

DATA is a folder in Market-1501 layout. A name of OUT that contains 'omniglot' turns flips off.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import numpy as np

from dnas.data.augment import InputConfig
from dnas.data.layouts import load_data
from dnas.data.splits import together
from dnas.draw.style import SERIES, style
from dnas.eval.bootstrap import paired_difference
from dnas.eval.retrieval import retrieve, save_ranking
from dnas.loss.objective import LossConfig
from dnas.run.folder import RunFolder
from dnas.run.schedules import OptimConfig
from retrain.config import RetrainConfig
from retrain.load import load
from retrain.train import resume, retrain

SEEDS = range(5)
PAPER = LossConfig(eta=0.3, bound="paper")
TIGHT = LossConfig(eta=0.1, bound="tight")
OFF = LossConfig(eta=0.0)
MODELS: dict[str, tuple[str, LossConfig]] = {
    "no attention": ("none", OFF),
    "no attention + paper bound": ("none", PAPER),
    "DCS": ("dcs", OFF),
    "DCS + paper bound": ("dcs", PAPER),
    "DCS + tight bound": ("dcs", TIGHT),
    "SE": ("se", OFF),
    "SE + paper bound": ("se", PAPER),
    "SE + tight bound": ("se", TIGHT),
}
BASELINE = {name: name.split(" + ")[0] for name in MODELS if " + " in name} | {
    "DCS": "no attention",
    "SE": "no attention",
}


def settings(data: str, out: Path, attention: str, loss: LossConfig, seed: int, test: bool = True) -> RetrainConfig:
    """A cut ResNet-18 on small images: under a minute on two cores. A fifth of the training identities is held out."""
    letters = "omniglot" in str(out)
    return RetrainConfig(
        data,
        str(out),
        backbone="resnet18",
        backbone_width=0.25,
        attention=attention,
        seed=seed,
        holdout=0.2,
        eval_every=4 if test else 0,
        test=test,
        input=InputConfig(64, 64 if letters else 32, flip=0.0 if letters else 0.5),
        optim=OptimConfig(epochs=16, lr=3e-3),
        loss=loss,
    )


def once(config: RetrainConfig) -> RunFolder:
    """Run, continue, or find the finished run of these settings."""
    folder = RunFolder(config.out)
    if (folder.path / "summary.json").exists():
        return folder
    return resume(config.out) if folder.config_file.exists() else retrain(config)


def tune(data: str, out: Path) -> None:
    """Held-out mAP over eta, beta (in units of log C) and bound: two seeds each, with DCS."""
    first = once(settings(data, out / "tune-off-0", "dcs", OFF, 0, test=False))
    classes = first.json("summary.json")["information"]["train"]["identities"]
    grid = [OFF]
    grid += [LossConfig(eta=eta, beta=b * float(np.log(classes))) for eta in (0.1, 0.3) for b in (1.0, 2.0, 4.0)]
    grid += [LossConfig(eta=1.0, beta=float(np.log(classes)))]
    grid += [LossConfig(eta=eta, bound="tight", beta=float(np.log(classes))) for eta in (0.1, 0.3, 1.0)]
    for loss in grid:
        name = "off" if loss.eta == 0 else f"{loss.bound}-{loss.eta:g}-{loss.beta:.1f}"
        runs = [once(settings(data, out / f"tune-{name}-{seed}", "dcs", loss, seed, test=False)) for seed in range(2)]
        held = [run.json("summary.json") for run in runs]
        accuracy = [100 * summary["held_out"]["mAP"] for summary in held]
        ib = [summary["information"]["held_out"]["IB"] for summary in held]
        text = f"{name:24s} held-out mAP {mean(accuracy):.2f} ({accuracy[0]:.1f} {accuracy[1]:.1f})  IB {mean(ib):.4f}"
        print(text, flush=True)
        with (out / "tune.txt").open("a") as log:
            log.write(text + "\n")


def run(data: str, out: Path) -> None:
    """Seeds outside, models inside: an interrupted experiment has complete seeds."""
    for seed in SEEDS:
        for name, (attention, loss) in MODELS.items():
            once(settings(data, out / f"{name.replace(' ', '_')}-{seed}", attention, loss, seed))


def also(data: str, out: Path) -> None:
    """Evaluate every finished run on the query and gallery of DATA too (occluded queries, say)."""
    found = load_data(data)
    for seed in SEEDS:
        for name in MODELS:
            run_ = load(out / f"{name.replace(' ', '_')}-{seed}", "cpu")
            images = run_.decode(together(found.query, found.gallery))
            ranking, _ = retrieve(run_.network, images, len(found.query))
            save_ranking(run_.folder.path / "also_per_query.npz", ranking, found.query)
            run_.folder.write("also.json", {"data": found.fingerprint(), "test": ranking.metrics()})


def report(out: Path) -> None:
    """The table and the plots, from the run folders alone."""
    runs = {name: [RunFolder(out / f"{name.replace(' ', '_')}-{seed}") for seed in SEEDS] for name in MODELS}
    has_also = all((folder.path / "also.json").exists() for folders in runs.values() for folder in folders)
    files = {"": "per_query.npz"} | ({"occluded ": "also_per_query.npz"} if has_also else {})
    ap = {
        (title, name): np.stack([np.load(folder.path / file)["ap"] for folder in folders])
        for title, file in files.items()
        for name, folders in runs.items()
    }
    heads = ["model", "mAP (%)", "Rank-1 (%)"] + (["occluded mAP (%)"] if has_also else [])
    heads += ["IB train", "IB held out", "IB test", "against", *(f"difference in {title}mAP" for title in files)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, folders in runs.items():
        summaries = [r.json("summary.json") for r in folders]
        cells = [_spread([100 * s["test"][key] for s in summaries], 1) for key in ("mAP", "rank1")]
        if has_also:
            cells.append(_spread([100 * r.json("also.json")["test"]["mAP"] for r in folders], 1))
        cells += [
            _spread([s["information"][which]["IB"] for s in summaries], 3) for which in ("train", "held_out", "test")
        ]
        other = BASELINE.get(name)
        cells.append(other or "")
        for title, file in files.items():
            if not other:
                cells.append("")
                continue
            pids = np.load(folders[0].path / file)["pids"]
            d = paired_difference(100 * ap[title, name], 100 * ap[title, other], pids)
            cells.append(f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    (out / "table.md").write_text(table + "\n")
    print(table)
    _curves(runs, out)
    print(json.dumps({"data": runs["DCS"][0].json("data.json")}))


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def _curves(runs: dict[str, list[RunFolder]], out: Path) -> None:
    """IB and both bounds over epochs, training and held-out identities, mean over seeds with the range."""
    with style():
        figure, grid = plt.subplots(2, 3, figsize=(11, 6), sharex=True)
        for column, quantity in enumerate(("IB", "tight bound", "paper bound + H(X)")):
            for row, which in enumerate(("train", "held_out")):
                axes = grid[row][column]
                for colour, (name, folders) in zip(SERIES, runs.items(), strict=False):
                    logs = [[r for r in folder.rows() if "information" in r] for folder in folders]
                    epochs = [r["epoch"] + 1 for r in logs[0]]
                    values = np.array([[r["information"][which][quantity] for r in log] for log in logs])
                    axes.plot(epochs, values.mean(0), color=colour, label=name, marker="o", markersize=3)
                    axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0)
                axes.set_title(f"{quantity}, {'training' if which == 'train' else 'held-out'} identities", fontsize=9)
                axes.set_ylabel("units of log(identities)", fontsize=8)
                if row:
                    axes.set_xlabel("epoch")
        grid[0][0].legend(frameon=False, fontsize=7)
        figure.tight_layout()
        figure.savefig(out / "curves.png")
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="The experiment of docs/results/informative-attention.md.")
    parser.add_argument("action", choices=("tune", "run", "also", "report"))
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    actions = {"tune": tune, "run": run, "also": also}
    options.out.mkdir(parents=True, exist_ok=True)
    if options.action == "report":
        report(options.out)
    else:
        actions[options.action](options.data, options.out)


if __name__ == "__main__":
    main()
