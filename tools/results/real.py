"""Real photographs: ImageNet's MobileNetV2 as it is, trained, and searched; a small network from scratch.

    python tools/results/real.py ROOT OUT --weights mobilenet_v2.pth [--held-out] [--size 224 224] [--workers 2]

Five models, three seeds each: MobileNetV2 with the weights of the file, untrained; trained; with the attention that a
search from the same weights found (`attention_sites_mobilenet_v2`, at most 5 % more MACs); `tiny_reid` searched and
trained from scratch; and MobileNetV2 from scratch, cut to what `tiny_reid` may cost. Then, in OUT/real.md: what
`dnas data check` says, accuracy, cost and time of each, and paired intervals of the differences that are asked about.

With --held-out a quarter of the training identities plays query and gallery, and nothing else of ROOT is read: settings
are chosen so. Without, the set's own query and gallery are looked at. Finished runs are not run again, others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from fixed_vs_searched import cut
from numpy.typing import NDArray
from search import dnas

from dnas.cli import main as main_of_dnas
from dnas.data.images import decode
from dnas.data.layouts import load_data
from dnas.data.splits import hold_out, together
from dnas.eval.bootstrap import paired_difference
from dnas.eval.retrieval import retrieve, save_ranking
from dnas.nn.backbones import backbone
from dnas.nn.pretrained import load_weights
from dnas.nn.reid_net import ReIDNet
from dnas.run.folder import RunFolder
from dnas.search.config import BudgetConfig
from dnas.space.spec import image
from retrain.compare import read_run

SEEDS = (0, 1, 2)
SHARE = 0.25
"""Of the training identities, that play query and gallery with --held-out."""
MORE = 1.05
"""What the searched MobileNetV2 may cost, by the plain one."""
UNTRAINED, TRAINED, SITES, TINY, CUT = "untrained", "trained", "searched-sites", "searched-tiny", "cut"
ASKED = ((TRAINED, UNTRAINED), (SITES, TRAINED), (TINY, CUT), (TRAINED, CUT))


def held_out_manifest(root: str, file: Path) -> Path:
    """A manifest of the training images alone, in which some identities are query and gallery at once."""
    train = load_data(root, tested=False).train
    rest, held = hold_out(train, SHARE, seed=0)
    columns = ["path", "identity", *(["camera"] if train.protocol.known else []), "split"]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        for part, name in ((rest, "train"), (held, "test")):
            for path, pid, camid in zip(part.files, part.pids.tolist(), part.camids.tolist(), strict=True):
                writer.writerow({"path": path.absolute(), "identity": pid, "camera": camid, "split": name})
    return file


def run(options: argparse.Namespace, data: Path) -> None:
    """Every search and retraining."""
    out, size = Path(options.out), tuple(options.size)
    common = ["--data", str(data), "--device", options.device, *options.more]
    common += ["--input.height", str(size[0]), "--input.width", str(size[1])]
    common += ["--input.flip", "0"] if options.no_flip else []
    plain = backbone("mobilenet_v2").cost(image(*size)).macs.value
    limit = BudgetConfig(macs=options.budget).limit
    assert limit is not None
    from_weights = ["--backbone", "mobilenet_v2", "--weights", options.weights, "--optim.lr", options.fine_lr]
    scratch = ["--optim.lr", "0.003"]
    searches = {
        SITES: ["--space", "attention_sites_mobilenet_v2", "--weights", options.weights, "--optim.lr", options.fine_lr,
                "--budget.macs", str(round(MORE * plain))],
        TINY: ["--space", "tiny_reid", "--budget.macs", options.budget, *scratch],
    }  # fmt: skip
    fixed = {TRAINED: from_weights, CUT: [*cut("mobilenet_v2", size, limit), *scratch]}

    def job(name: str, seed: int) -> None:
        words = [*common, "--seed", str(seed)]
        of_search, of_training = options.scratch_epochs if name in (CUT, TINY) else options.epochs
        if name in searches:
            found = out / f"{name}-search-{seed}"
            more = ["--optim.epochs", str(of_search), "--holdout", str(options.holdout)]
            dnas("search", found, "cost.json", [*words, *searches[name], *more])
            network = from_weights if name == SITES else scratch
            words += ["--genotype", str(found), *network]
        else:
            words += fixed[name]
        dnas("retrain", out / f"{name}-{seed}", "summary.json", [*words, "--optim.epochs", str(of_training)])

    with ThreadPoolExecutor(options.workers) as pool:
        for done in [pool.submit(job, name, seed) for seed in SEEDS for name in (*fixed, *searches)]:
            done.result()
    untrained(options, data, out / UNTRAINED)


def untrained(options: argparse.Namespace, data: Path, folder: Path) -> None:
    """The embedding of the published weights, measured like the others."""
    if (folder / "summary.json").is_file():
        return
    found = load_data(data)
    network = ReIDNet(backbone("mobilenet_v2"), image(*options.size), 2)
    load_weights(network, options.weights, "mobilenet_v2")
    images = decode(together(found.query, found.gallery), *options.size)
    ranking, _ = retrieve(network.eval(), images, len(found.query))
    folder.mkdir(parents=True, exist_ok=True)
    save_ranking(folder / "per_query.npz", ranking, found.query)
    (folder / "summary.json").write_text(json.dumps({"test": ranking.metrics()}))


def precisions(out: Path, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Average precision (S, Q) of every query, and its identity (Q)."""
    folders = [out / UNTRAINED] * len(SEEDS) if name == UNTRAINED else [out / f"{name}-{seed}" for seed in SEEDS]
    files = [np.load(folder / "per_query.npz") for folder in folders]
    return np.stack([file["ap"] for file in files]), files[0]["pids"]


def minutes(folder: Path) -> float:
    return sum(float(row["epoch_s"]) for row in RunFolder(folder).rows("timing.jsonl")) / 60


def report(options: argparse.Namespace, data: Path) -> dict[str, float]:
    """Write OUT/real.md. Returns mAP by model."""
    out, found = Path(options.out), {}
    with contextlib.redirect_stdout(io.StringIO()) as checked:
        main_of_dnas(["data", "check", str(data)])
    protocol = f"{len(precisions(out, UNTRAINED)[1])} queries, {load_data(data).protocol.said}"
    held = ", held-out training identities as query and gallery" if options.held_out else ""
    rows = [f"{protocol}{held}; 3 seeds, mean ± standard deviation; minutes of one thread.", ""]
    rows += [
        "| model | MMACs | params (k) | mAP (%) | Rank-1 (%) | search (min) | training (min) |",
        "|---|" + "---:|" * 6,
    ]
    for name in (UNTRAINED, TRAINED, SITES, CUT, TINY):
        folders = [out / UNTRAINED] if name == UNTRAINED else [out / f"{name}-{seed}" for seed in SEEDS]
        tests = [json.loads((folder / "summary.json").read_text())["test"] for folder in folders]
        cells = [f"{name} ({read_run(folders[0]).model})" if name != UNTRAINED else "untrained (mobilenet_v2)"]
        costs = [json.loads((folder / "cost.json").read_text()) for folder in folders if name != UNTRAINED]
        cells += [spread([cost[key] / unit for cost in costs]) for key, unit in (("macs", 1e6), ("params", 1e3))]
        cells += [spread([100 * test[key] for test in tests]) for key in ("mAP", "rank1")]
        searched = [out / f"{name}-search-{seed}" for seed in SEEDS if name in (SITES, TINY)]
        cells += [spread([minutes(folder) for folder in group]) for group in (searched, folders)]
        rows.append(f"| {' | '.join(cells)} |")
        found[name] = mean(test["mAP"] for test in tests)
    rows += ["", "Difference in mAP (points), 95 % interval: paired bootstrap over query identities and seeds.", ""]
    rows += ["| model | against | difference | 95 % interval |", "|---|---|---:|---:|"]
    for first, second in ASKED:
        (ap_SQ, pids_Q), (other_SQ, _) = precisions(out, first), precisions(out, second)
        d = paired_difference(ap_SQ, other_SQ, pids_Q)
        rows.append(f"| {first} | {second} | {100 * d.mean:+.1f} | [{100 * d.low:+.1f}, {100 * d.high:+.1f}] |")
    rows += [
        "",
        "What `dnas data check` says:",
        "",
        "```",
        checked.getvalue().replace(str(data.parent), "."),
        "```",
        "",
    ]
    (out / "real.md").write_text("\n".join(rows), "utf-8")
    print("\n".join(rows))
    return found


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 and stdev(values) > 0 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", help="data set: a folder or a manifest")
    parser.add_argument("out")
    parser.add_argument("--weights", required=True, help="file of ImageNet's MobileNetV2")
    parser.add_argument("--held-out", action="store_true", help="never read query and gallery")
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), help="height and width of the images")
    parser.add_argument("--budget", default="14M", help="MACs of tiny_reid and of what it is compared with")
    parser.add_argument("--epochs", type=int, nargs=2, default=(10, 10), help="of a search, a retraining, from weights")
    parser.add_argument("--scratch-epochs", type=int, nargs=2, default=(40, 60), help="the same from scratch")
    parser.add_argument("--fine-lr", default="3.5e-4", help="learning rate from published weights")
    parser.add_argument("--holdout", type=float, default=0.2, help="share of the identities that decide a search")
    parser.add_argument("--no-flip", action="store_true", help="do not mirror images: left and right differ")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print mAP by model as one line of JSON, last")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="options of every search and retraining")
    options = parser.parse_args()
    data = Path(options.root)
    if options.held_out:
        data = held_out_manifest(options.root, Path(options.out) / "held-out.csv")
    run(options, data)
    found = report(options, data)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
