"""How long a stranger waits: for help, for an import, for the tests.

    python tools/bench/start.py [--rounds 5] [--tests] [--json]

Keys: import_s (`import dnas`), training_import_s (what a training imports, torch among it), help_s, in seconds of a
process; import_ratio, training_import_ratio, help_ratio, over a Python that imports torch; and, with --tests,
quick_tests_s, all_tests_s of tools/test.sh --quick and --all without installing (null without; for a quiet machine).
Processes are interleaved; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from timing import interleaved

ROOT = Path(__file__).parent.parent.parent
TESTS = ["-m", "pytest", "-n", "auto", "--maxprocesses", "8", "-m"]
"""As tools/test.sh has it."""


def process(*words: str) -> Callable[[], object]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return lambda: subprocess.run(
        [sys.executable, *words], check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tests", action="store_true", help="run the tests too, once each: minutes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = {
        "torch": process("-c", "import torch"),
        "import": process("-c", "import dnas"),
        "training_import": process("-c", "import retrain.load, dnas.search.supernet"),
        "help": process("-m", "dnas.cli", "--help"),
    }
    seconds = {name: median(times) for name, times in interleaved(runs, options.rounds).items()}
    found: dict[str, float | None] = {}
    for name in ("import", "training_import", "help"):
        found |= {f"{name}_s": seconds[name], f"{name}_ratio": seconds[name] / seconds["torch"]}
    for name, marks in (("quick_tests_s", "not slow and not long"), ("all_tests_s", "")):
        found[name] = None
        if options.tests:
            start = time.perf_counter()
            process(*TESTS, marks)()
            found[name] = time.perf_counter() - start
    table = Table("measure", "value", title=f"medians of {options.rounds} processes")
    for name, value in found.items():
        table.add_row(name, "-" if value is None else f"{value:.3g}")
    Console().print(table)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
