"""What `tools/fuzz.py` is made of: mutations of files, and a watch over what reading them does."""

from __future__ import annotations

import copy
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dnas.errors import UserError

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("../../../etc/x")
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested dictionaries and lists."""
    found = [path] if path else []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@st.composite
def mutated(draw: Callable[[Any], Any], content: Any, values: Any = VALUES) -> Any:
    """Plain data with one to three changes: another value, one taken away, a key renamed, a value from elsewhere."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        known = places(content)
        if not known:
            return draw(values)
        path = draw(st.sampled_from(known))
        outer = content
        for key in path[:-1]:
            outer = outer[key]
        kind = draw(st.sampled_from(("value", "remove", "rename", "elsewhere")))
        if kind == "value":
            outer[path[-1]] = draw(values)
        elif kind == "remove":
            del outer[path[-1]]
        elif kind == "rename" and isinstance(outer, dict):
            outer[draw(st.text(max_size=8))] = outer.pop(path[-1])
        else:
            inner = content
            for key in draw(st.sampled_from(known)):
                inner = inner[key] if isinstance(inner, dict | list) and _has(inner, key) else inner
            outer[path[-1]] = copy.deepcopy(inner)
    return content


def _has(content: Any, key: Any) -> bool:
    return key in content if isinstance(content, dict) else isinstance(key, int) and key < len(content)


@st.composite
def damaged(draw: Callable[[Any], Any], content: bytes) -> bytes:
    """Bytes with some of them changed, cut off, or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(found) - 1, 0)))
        kind = draw(st.sampled_from(("flip", "cut", "put", "repeat")))
        if kind == "flip" and found:
            found[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del found[place:]
        elif kind == "put":
            found[place:place] = draw(st.binary(max_size=8))
        else:
            found[place:place] = found[place : place + draw(st.integers(0, 200))]
    return bytes(found)


class Guard:
    """What the interpreter is asked to do outside the folder of a case (`sys.addaudithook`)."""

    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    PATHS = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
    NEVER = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "os.fork", "ctypes.dlopen")

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.seen = str(folder), False, list[str]()
        sys.addaudithook(self.see)

    def see(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        touched = [given[0]] if event == "open" and isinstance(given[2], int) and given[2] & self.WRITES else []
        touched += [part for part in given if isinstance(part, str | os.PathLike)] if event in self.PATHS else []
        outside = [path for path in touched if not os.path.abspath(str(path)).startswith(self.folder)]
        if event in self.NEVER or (outside and "__pycache__" not in str(outside)):
            self.seen.append(f"{event} {outside or given!r}"[:200])


class Fuzz:
    """Runs cases and counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.guard = folder, Guard(folder)
        self.cases = self.accepted = self.refused = 0

    def read(self, read: Callable[[], object]) -> None:
        self.cases += 1
        self.guard.on = True
        try:
            read()
            self.accepted += 1
        except UserError as error:
            self.refused += 1
            if len(str(error).strip().splitlines()) != 1:
                raise AssertionError(f"a message of no or several lines: {str(error)!r}") from error
        finally:
            self.guard.on = False
        seen, self.guard.seen = self.guard.seen, []
        assert not seen, seen

    def run(
        self, strategy: st.SearchStrategy[Any], case: Callable[[Any], None], cases: int, number: int, small: bool
    ) -> bool:
        """Whether no case failed."""

        @seed(number)
        @settings(
            max_examples=cases, deadline=None, database=None, report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, *([Phase.shrink] if small else [])],
        )  # fmt: skip
        @given(strategy)
        def run(content: Any) -> None:
            case(content)

        try:
            run()
        except BaseException as error:
            places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
            notes = [str(note)[:400] for note in getattr(error, "__notes__", ())]
            print(f"failure: {type(error).__name__}: {error}"[:600], *places, *notes, sep="\n  ", flush=True)
            if isinstance(error, KeyboardInterrupt):
                raise
            return False
        return True
