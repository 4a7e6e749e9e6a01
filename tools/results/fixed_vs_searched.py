"""Fixed backbones, cut to a budget, against searched networks (docs/results/fixed-vs-searched.md).

    python tools/results/fixed_vs_searched.py ROOT OUT --size 64 64 --budgets 14M 25M [--letters] [--workers 2]

For every budget: 3 searches (seeds 0 to 2) and their retrainings; and each fixed backbone at the largest width within
the budget, retrained with the same recipe and seeds. Finished runs are not run again. Then: tables of each
budget (OUT/BUDGET.md) and a picture of all (OUT.png).
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from search import dnas

from dnas.draw.scatter import Point, draw_scatter
from dnas.errors import UserError
from dnas.nn.backbones import backbone
from dnas.search.config import BudgetConfig
from dnas.space.spec import image
from retrain.compare import compare
from retrain.tables import tables, write_table

SEEDS = (0, 1, 2)
FIXED = ("resnet18", "mobilenet_v2", "osnet_x1_0")
WIDTHS = [step / 80 for step in range(4, 161)]
RECIPE = ["--optim.lr", "0.003"]


def cut(name: str, size: tuple[int, int], budget: float) -> list[str]:
    """The backbone at its largest width within the budget, as options.

    Raises:
        UserError: it does not fit at any width.
    """
    costs = {width: backbone(name, width).cost(image(*size)).macs.value for width in WIDTHS}
    fitting = [(macs, width) for width, macs in costs.items() if macs <= budget]
    if not fitting:
        raise UserError(f"{name}: more than {budget:,.0f} MACs at any width")
    return ["--backbone", name, "--backbone_width", str(max(fitting)[1])]


def run(options: argparse.Namespace) -> None:
    size = tuple(options.size)
    common = ["--data", options.root, "--device", "cpu", "--input.height", str(size[0]), "--input.width", str(size[1])]
    common += ["--input.flip", "0"] if options.letters else []
    retrain = [*common, *RECIPE, "--optim.epochs", str(options.epochs[1])]
    search = [*common, *RECIPE, "--optim.epochs", str(options.epochs[0]), "--space", options.space]

    def searched(budget: str, seed: int) -> None:
        out = Path(options.out) / budget
        dnas("search", out / f"search-{seed}", "cost.json", [*search, "--budget.macs", budget, "--seed", str(seed)])
        words = [*retrain, "--seed", str(seed), "--genotype", str(out / f"search-{seed}")]
        dnas("retrain", out / f"searched-{seed}", "summary.json", words)

    def fixed(budget: str, name: str) -> None:
        out, limit = Path(options.out) / budget, BudgetConfig(macs=budget).limit
        assert limit is not None
        words = cut(name, size, limit)
        for seed in SEEDS:
            dnas("retrain", out / f"{name}-{seed}", "summary.json", [*retrain, *words, "--seed", str(seed)])

    with ThreadPoolExecutor(options.workers) as pool:
        jobs = [pool.submit(searched, budget, seed) for budget in options.budgets for seed in SEEDS]
        jobs += [pool.submit(fixed, budget, name) for budget in options.budgets for name in options.fixed]
        for job in jobs:
            job.result()


def report(options: argparse.Namespace) -> None:
    """Tables of each budget, and one picture of all."""
    points = []
    for budget in options.budgets:
        out = Path(options.out) / budget
        found = compare([file.parent for file in sorted(out.glob("*-[0-9]/summary.json"))], by="backbone")
        for table in tables(found):
            Console(width=160).print(table)
        write_table(found, Path(f"{out}.md"))
        for group in found.groups:
            maps = [run.score for run in group.runs]
            points.append(Point(f"{group.name}, {budget}", group.values("macs"), maps))
    draw_scatter(points, Path(f"{options.out}.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("out")
    parser.add_argument("--size", type=int, nargs=2, required=True, help="height and width of the images")
    parser.add_argument("--budgets", nargs="+", required=True, help="MACs, such as 14M")
    parser.add_argument("--fixed", nargs="+", default=FIXED, help="backbones")
    parser.add_argument("--space", default="tiny_reid")
    parser.add_argument("--epochs", type=int, nargs=2, default=(30, 24), help="of a search, of a retraining")
    parser.add_argument("--letters", action="store_true", help="do not mirror images")
    parser.add_argument("--only-report", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not options.only_report:
        run(options)
    report(options)


if __name__ == "__main__":
    main()
