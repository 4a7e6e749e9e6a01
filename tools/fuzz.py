"""Files from strangers: mutated genotypes, configurations, manifests, pictures, weights, checkpoints, results, and what
reading them does.

    python tools/fuzz.py [--cases 100000] [--seed 0] [--only KIND] [--json]

Every case takes a file that is right, changes it (values, keys, structure, or bytes), and reads it the way the command
line does. Allowed is that it is accepted, or refused with the one-line error that users see. All else fails: another
exception, a line break in the message, a file written, removed or renamed outside the folder of the case, a
process or a connection. The first failure of a kind is shown. Keys: cases, accepted, refused, failures.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from dnas.cli import main as main_of_dnas
from dnas.cli import training
from dnas.data.layouts import load_data
from dnas.data.picture import read_rgb
from dnas.data.splits import matched
from dnas.errors import UserError
from dnas.nn.weights_file import published
from dnas.run.checkpoints import checkpoints, checksum
from dnas.run.config import from_plain
from dnas.search.config import SearchConfig
from retrain.compare import compare
from retrain.config import RetrainConfig
from retrain.load import load
from retrain.models import network_of
from retrain.tables import tables

Case = Callable[[Path, Any], None]
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


def real_run(folder: Path) -> Path:
    """A small retraining and a search, as the files to start from."""
    size = ["--ids", "10", "--cameras", "2", "--images", "2", "--height", "32", "--width", "16"]
    words = ["--data", str(folder / "data"), "--device", "cpu", "--input.height", "32", "--input.width", "16"]
    words += ["--optim.epochs", "1", "--optim.identities", "2", "--optim.images", "2"]
    for command in (
        ["data", "synth", str(folder / "data"), *size],
        ["search", *words, "--holdout", "0.5", "--out", str(folder / "search")],
        ["retrain", *words, "--backbone", "resnet18", "--backbone_width", "0.03", "--out", str(folder / "run")],
    ):
        if main_of_dnas(command) != 0:
            raise SystemExit(f"dnas {' '.join(command)} failed")
    return folder / "run"


def pictures() -> list[bytes]:
    """Photographs of all eight orientations, in every format that can say one, and animations."""
    picture = Image.effect_noise((24, 16), 60).convert("RGB")
    found = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
            stream = io.BytesIO()
            picture.save(stream, kind, exif=exif.tobytes())
            found.append(stream.getvalue())
    for frames in range(3):
        stream = io.BytesIO()
        picture.convert("P").save(
            stream, "GIF", save_all=True, append_images=[picture.rotate(n) for n in range(frames)]
        )
        found.append(stream.getvalue())
    return found


def ranked(file: Path) -> None:
    """Read a data set, and see which of its queries can be ranked."""
    data = load_data(file, for_training=False)
    data.fingerprint()
    matched(data.query, data.gallery)


def as_yaml(content: Any) -> bytes:
    return yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=str, default="", help="one kind of file, as they are called in the output")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ["DNAS_CACHE"] = str(folder / "cache")
        run = real_run(folder)
        fuzz = Fuzz(folder)
        file = folder / "case"

        def reads(read: Callable[[Path], object], suffix: str) -> Callable[[bytes], None]:
            def case(content: bytes) -> None:
                target = file.with_suffix(suffix)
                target.write_bytes(content)
                fuzz.read(lambda: read(target))

            return case

        def on_text(content: Any, dump: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:
            return mutated(content).map(dump) | damaged(dump(content))

        def configuration(verb: str, kind: type) -> Callable[[Path], object]:
            parser = training.parser(verb)

            def read(target: Path) -> None:
                words = training.with_config_files(verb, ["--config", str(target)])
                namespace = parser.parse_args([*words, "--data", "d", "--out", "o"])
                parser.instantiate(namespace)
                from_plain(kind, yaml.safe_load(target.read_text()), str(target))

            return read

        def checkpoint(content: bytes) -> None:
            for old in checkpoints(run / "checkpoints"):
                old.unlink()
            target = run / "checkpoints/new"
            target.write_bytes(content)
            target.rename(target.with_name(f"00001-000000-{checksum(target)}.pt"))
            fuzz.read(lambda: load(run, "cpu"))

        def tensors(state: Any) -> bytes:
            stream = io.BytesIO()
            torch.save(state, stream)
            return stream.getvalue()

        genotype = json.loads((folder / "search/genotype.json").read_text())
        searched, retrained = (
            {k: v for k, v in asdict(config).items() if v is not None}
            for config in (SearchConfig("d", "o"), RetrainConfig("d", "o", backbone="resnet18"))
        )
        newest = checkpoints(run / "checkpoints")[0]
        state = torch.load(newest, weights_only=True)
        manifest = "path,identity,camera,split\n" + "".join(
            f"{image.relative_to(folder)},{n % 3},c{n % 2},{('train', 'query', 'gallery')[n % 3]}\n"
            for n, image in enumerate(sorted((folder / "data/query").iterdir()))
        )
        words = [line.split(",") for line in manifest.replace("query\n", "test\n").splitlines()]
        bare = "\n".join(f"{path},{who},{split}" for path, who, _, split in words)
        published_as = {
            "state_dict": {f"module.features.{n}.conv.0.weight": torch.ones(2, 2) for n in range(3)},
            "n": 3,
        }
        odd = VALUES | st.sampled_from([torch.zeros(0), torch.zeros(3, dtype=torch.int8), torch.full((2, 2), math.nan)])
        results = {name: json.loads((run / name).read_text()) for name in ("summary.json", "cost.json", "data.json")}

        def result(content: tuple[str, bytes]) -> None:
            (run / content[0]).write_bytes(content[1])
            fuzz.read(lambda: tables(compare([run])))
            (run / content[0]).write_bytes(as_json(results[content[0]]))

        kinds: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None], float]] = {
            "genotype": (on_text(genotype, as_json), reads(lambda f: network_of(str(f)), ".json"), 0.2),
            "search configuration": (
                on_text(searched, as_yaml), reads(configuration("search", SearchConfig), ".yaml"), 0.1,
            ),
            "retraining configuration": (
                on_text(retrained, as_yaml), reads(configuration("retrain", RetrainConfig), ".yaml"), 0.1,
            ),
            "manifest": (damaged(manifest.encode()) | damaged(bare.encode()), reads(ranked, ".csv"), 0.2),
            "picture": (st.sampled_from(pictures()).flatmap(damaged), reads(read_rgb, ".jpg"), 0.15),
            "weights": (
                mutated(published_as, odd).map(tensors) | damaged(tensors(published_as)),
                reads(published, ".pth"), 0.05,
            ),
            "checkpoint": (mutated(state, odd).map(tensors) | damaged(newest.read_bytes()), checkpoint, 0.05),
            "results": (
                st.sampled_from(sorted(results)).flatmap(
                    lambda name: st.tuples(st.just(name), on_text(results[name], as_json))
                ), result, 0.15,
            ),
        }  # fmt: skip
        failures = 0
        for number, (kind, (strategy, case, share)) in enumerate(kinds.items()):
            before = (fuzz.cases, fuzz.accepted, fuzz.refused)
            if options.only not in ("", kind):
                continue
            small = kind != "checkpoint"  # shrinking megabytes takes longer than it is worth
            good = fuzz.run(strategy, case, math.ceil(share * options.cases), options.seed + number, small)
            failures += not good
            cases, accepted, refused = (now - then for now, then in zip(
                (fuzz.cases, fuzz.accepted, fuzz.refused), before, strict=True))  # fmt: skip
            print(f"{kind}: {cases} cases, {accepted} accepted, {refused} refused", flush=True)
    if options.json:
        counts = {"cases": fuzz.cases, "accepted": fuzz.accepted, "refused": fuzz.refused, "failures": failures}
        print(json.dumps(counts))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
