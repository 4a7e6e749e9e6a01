"""Many runs at once: every combination of some settings, or settings drawn from ranges, by any number of workers.

Optuna keeps the list of runs (a journal file in the sweep's folder, or a database); a worker takes the next one, runs
`dnas VERB` in a folder of its own, and goes on. What a dead worker left is taken over from its last checkpoint: a lock
file says who is alive. Workers share the sweep's folder; on several machines it lies on a shared disk.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

import dnas
from dnas.errors import UserError, check_range, printable
from dnas.run.config import flat
from dnas.run.files import read_json
from dnas.run.progress import console

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

Params = dict[str, Any]
DONE = {"search": "cost.json", "retrain": "summary.json"}
"""What a run writes last."""
_BEGIN = f"""import sys
sys.path[:] = [place for place in sys.path if place] + [{str(Path(dnas.__file__).parent.parent)!r}]
from dnas.cli import main
sys.exit(main())"""
DNAS = [sys.executable, "-c", _BEGIN]
"""The command line in a process of its own, that imports nothing from the working folder."""


@dataclass(frozen=True)
class SweepConfig:
    """Run many searches or retrainings.

    Args:
        verb: search or retrain.
        out: folder for all runs.
        settings: of every run, as in a configuration file.
        vary: setting (dotted) -> a list of values (all combinations are run), or a range {low, high, log} of numbers,
            drawn by Optuna (TPE) for the best number on what is held out; lists beside ranges are drawn as well.
        trials: runs, where there are ranges.
        storage: URL of a database for the list of runs (Optuna); none: a journal file in `out`.
    """

    verb: Literal["search", "retrain"]
    out: str
    vary: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    storage: str | None = None

    def __post_init__(self) -> None:
        check_range(self, "", 0, 1e6, "trials")
        if not self.vary:
            raise UserError("vary: found nothing, allowed: settings with lists of values or ranges")
        for key, values in self.vary.items():
            if not (_is_list(values) or _is_range(values)):
                expected = (
                    "a list of numbers, words, true, false or null, or {low: NUMBER, high: NUMBER, log: true or false}"
                )
                raise UserError(f"vary: {key}: found {values!r:.100}, allowed: {expected}")
        for values in (self.settings.get("space"), *(self.vary.get("space") or ())):
            if str(values).endswith(".py"):
                raise UserError(
                    f"space: a file of your own is run, so it must be typed: dnas sweep FILE --space {values}"
                )
        if bool(self.ranges) != bool(self.trials):
            raise UserError(f"trials: found {self.trials}, allowed: above 0 with a range in vary, and only then")

    @property
    def ranges(self) -> Params:
        return {key: values for key, values in self.vary.items() if isinstance(values, dict)}

    def combinations(self) -> list[Params]:
        """Every combination of the lists, if there are no ranges."""
        rows = [] if self.ranges else itertools.product(*self.vary.values())
        return [dict(zip(self.vary, row, strict=True)) for row in rows]

    def words(self, params: Params) -> list[str]:
        """Settings of one run for the command line."""
        merged = {**flat(self.settings), **params}
        return [f"--{key}={_word(value)}" for key, value in merged.items()]


def _is_list(values: object) -> bool:
    if not isinstance(values, list) or not all(
        value is None or isinstance(value, str | int | float) for value in values
    ):
        return False
    return 0 < len({str(value) for value in values}) == len(values)


def _is_range(values: object) -> bool:
    if not isinstance(values, dict) or not {"low", "high"} <= values.keys() <= {"low", "high", "log"}:
        return False
    low, high, log = values["low"], values["high"], values.get("log", False)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in (low, high))
    return numbers and low < high and isinstance(log, bool) and (low > 0 or not log)


def _word(value: object) -> str:
    if isinstance(value, list):
        return "[" + ",".join(_word(part) for part in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def folder_name(params: Mapping[str, Any]) -> str:
    """The folder of a run, named for what is its own."""
    text = ",".join(
        f"{key.split('.')[-1]}={value:.6g}" if isinstance(value, float) else f"{key.split('.')[-1]}={value}"
        for key, value in params.items()
    )
    digest = hashlib.sha256(repr(sorted(params.items())).encode()).hexdigest()[:6]  # for what the text does not tell
    return f"{re.sub(r'[^A-Za-z0-9.=,_-]', '_', text)[:80]}-{digest}"


class Sweep:
    """One worker of a sweep.

    Args:
        space: a file of the user's own, typed on the command line; a sweep file cannot make anything run.
        own: words that name other such files, for the command of every run.

    Raises:
        UserError: Optuna is not installed, or the folder holds a sweep of other settings.
    """

    def __init__(self, config: SweepConfig, space: str | None = None, own: Sequence[str] = ()) -> None:
        self.config, self.folder, self.space, self.own = config, Path(config.out), space, own
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.folder / ".sweep.lock")
        self.study = self._study()
        with self.lock:
            self._plan()

    def _study(self) -> Study:
        try:
            import optuna
        except ImportError:
            raise UserError("sweep: needs Optuna, which is not installed: pip install dnas-reid[sweep]") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage: Any = self.config.storage
        if storage is None:
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            storage = JournalStorage(JournalFileBackend(str(self.folder / "runs.journal")))
        try:
            return optuna.create_study(
                storage=storage,
                study_name=self.folder.name,
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:  # of whichever database it is
            raise UserError(f"storage: cannot be opened ({type(error).__name__}: {error!s:.200})") from error

    def _plan(self) -> None:
        """The first worker writes down what is to be run; others must want the same."""
        from optuna.trial import TrialState

        wanted = {key: value for key, value in asdict(self.config).items() if key not in ("out", "storage")}
        planned = self.study.user_attrs.get("sweep")
        if planned is None:
            self.study.set_user_attr("sweep", wanted)
        elif planned != wanted:
            differing = ", ".join(key for key in wanted if planned.get(key) != wanted[key])
            raise UserError(f"out: {self.folder} holds a sweep with other {differing}; choose another folder")
        # what is missing (a worker may have died over this), and what failed: tried again by whoever comes later
        trials = self.study.get_trials(deepcopy=False)
        known = [_params(trial) for trial in trials if trial.state != TrialState.FAIL]
        failed = [_params(trial) for trial in trials if trial.state == TrialState.FAIL and self.config.ranges]
        for params in [*self.config.combinations(), *failed]:
            if params and params not in known:
                known.append(params)
                self.study.enqueue_trial(params)

    def work(self) -> None:
        """Take runs until none is left."""
        while (found := self._next()) is not None:
            number, params, lock = found
            try:
                self._run(number, params)
            finally:
                lock.release()

    def _next(self) -> tuple[int, Params, FileLock] | None:
        """A run that nobody does, with the lock that says that it is ours now."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        with self.lock:
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.params.keys() != self.config.vary.keys():  # its worker died before it knew what to run
                    self.study.tell(trial.number, state=TrialState.FAIL)
                    if _params(trial):
                        self.study.enqueue_trial(_params(trial))
                elif lock := self._claim(trial.params):  # left by a dead worker
                    return trial.number, trial.params, lock
            while True:
                trials = self.study.get_trials(deepcopy=False)
                waiting = sum(trial.state == TrialState.WAITING for trial in trials)
                drawn = sum(trial.state in (TrialState.RUNNING, TrialState.COMPLETE) for trial in trials)
                if not waiting and not (self.config.ranges and drawn < self.config.trials):
                    return None
                self.study.sampler = TPESampler(seed=len(trials))  # every draw another one, whoever makes it
                asked = self.study.ask()
                params = self._suggested(asked)
                if lock := self._claim(params):
                    return asked.number, params, lock
                self.study.tell(asked.number, state=TrialState.FAIL)  # somebody is at this very run
                if self.config.ranges:
                    return None

    def _suggested(self, asked: Trial) -> Params:
        params: Params = {}
        for key, values in self.config.vary.items():
            if not isinstance(values, dict):
                params[key] = asked.suggest_categorical(key, values)
            elif all(isinstance(values[end], int) for end in ("low", "high")):
                params[key] = asked.suggest_int(key, values["low"], values["high"], log=bool(values.get("log", False)))
            else:
                low, high = float(values["low"]), float(values["high"])
                params[key] = asked.suggest_float(key, low, high, log=bool(values.get("log", False)))
        return params

    def _claim(self, params: Params) -> FileLock | None:
        """The lock of a run, unless a worker has it, or a run whose worker died is still under way."""
        out = self.folder / folder_name(params)
        lock = FileLock(self.folder / f".{out.name}.lock", timeout=0)
        try:
            lock.acquire()
            if (out / ".lock").exists():
                with FileLock(out / ".lock", timeout=0):
                    pass
        except Timeout:
            lock.release()
            return None
        return lock

    def _run(self, number: int, params: Params) -> None:
        from optuna.trial import TrialState

        verb, out = self.config.verb, self.folder / folder_name(params)
        begun = (out / "config.yaml").exists()
        words = ["--resume", str(out)] if begun else [*self.config.words(params), f"--out={out}"]
        words += [*(["--space", self.space] if self.space else []), *self.own]
        code = 0
        if not (out / DONE[verb]).exists():
            console.print(printable(f"sweep: {out.name}{' (goes on)' if begun else ''}"), markup=False)
            code = _run_command([*DNAS, verb, *words])
        with self.lock:
            if code:
                self.study.tell(number, state=TrialState.FAIL)
                console.print(printable(f"sweep: {out.name}: failed with code {code}"), markup=False)
            else:
                self.study.tell(number, held_out_score(out) or 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """Every run: its settings, state, and what it found, the best on what is held out first."""
        found = []
        for trial in self.study.get_trials(deepcopy=False):
            params = _params(trial)
            out = self.folder / folder_name(params)
            there = params and (out / DONE[self.config.verb]).exists()
            result = _result(out) if there else {}
            found.append({"params": params, "state": trial.state.name.lower(), "run": out.name, **result})
        latest = {row["run"]: row for row in found}  # one that failed and was tried again: the last time
        return sorted(latest.values(), key=lambda row: -(row.get("held_out") or -1.0))


def _params(trial: FrozenTrial) -> Params:
    """What a run was, or is to be, run with."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def held_out_score(out: Path) -> float | None:
    """The number that decides, on what is held out, if anything is."""
    return _result(out).get("held_out")


def _result(out: Path) -> dict[str, Any]:
    summary = out / "summary.json"
    content = read_json(summary if summary.exists() else out / "genotype.json")
    found = content if summary.exists() else content["search"]
    metric = found.get("metric", "mAP")
    held_out, macs = (found.get("held_out") or {}).get(metric), read_json(out / "cost.json").get("macs")
    result = {"metric": metric, "held_out": held_out, "macs": macs}
    return result | ({"test": found["test"][metric]} if "test" in found else {})


def _run_command(words: list[str]) -> int:
    """Run a process to its end; a signal to stop goes on to it, and then to the caller."""
    with _forwarding(subprocess.Popen(words)) as process:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:  # the terminal has told the process as well
                continue
    if code in (130, 143, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    return code


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, before)
