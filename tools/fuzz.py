"""Files from strangers: mutated genotypes, configurations, manifests, pictures, weights, checkpoints, results,
sidecars, vectors and galleries, and what reading them does.

    python tools/fuzz.py [--cases 100000] [--seed 0] [--only KIND] [--json]

Every case takes a file that is right, changes it (values, keys, structure, or bytes), and reads it the way the command
line does. Allowed is that it is accepted, or refused with the one-line error that users see. All else fails: another
exception, a line break in the message, a file written, removed or renamed outside the folder of the case, a
process or a connection. The first failure of a kind is shown. Keys: cases, accepted, refused, failures.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from fuzz_serve import Galleries, sidecar
from fuzzing import VALUES, Fuzz, damaged, mutated
from hypothesis import strategies as st
from PIL import ExifTags, Image

from dnas.cli import main as main_of_dnas
from dnas.cli import training
from dnas.data.layouts import load_data
from dnas.data.picture import read_rgb
from dnas.data.splits import matched
from dnas.nn.weights_file import published
from dnas.run.checkpoints import checkpoints, checksum
from dnas.run.config import from_plain
from dnas.search.config import SearchConfig
from dnas.serve.interface import read_interface
from retrain.compare import compare
from retrain.config import RetrainConfig
from retrain.load import load
from retrain.models import network_of
from retrain.tables import tables


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
            try:
                fuzz.read(lambda: tables(compare([run])))
            finally:
                (run / content[0]).write_bytes(as_json(results[content[0]]))

        galleries = Galleries(folder / "galleries")
        kinds: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None], float]] = {
            "genotype": (on_text(genotype, as_json), reads(lambda f: network_of(str(f)), ".json"), 0.15),
            "search configuration": (
                on_text(searched, as_yaml), reads(configuration("search", SearchConfig), ".yaml"), 0.1,
            ),
            "retraining configuration": (
                on_text(retrained, as_yaml), reads(configuration("retrain", RetrainConfig), ".yaml"), 0.1,
            ),
            "manifest": (damaged(manifest.encode()) | damaged(bare.encode()), reads(ranked, ".csv"), 0.15),
            "picture": (st.sampled_from(pictures()).flatmap(damaged), reads(read_rgb, ".jpg"), 0.15),
            "weights": (
                mutated(published_as, odd).map(tensors) | damaged(tensors(published_as)),
                reads(published, ".pth"), 0.05,
            ),
            "checkpoint": (mutated(state, odd).map(tensors) | damaged(newest.read_bytes()), checkpoint, 0.05),
            "results": (
                st.sampled_from(sorted(results)).flatmap(
                    lambda name: st.tuples(st.just(name), on_text(results[name], as_json))
                ), result, 0.1,
            ),
            "sidecar": (on_text(sidecar().plain(), as_json), reads(read_interface, ".json"), 0.05),
            "vectors": (damaged(galleries.vectors), reads(galleries.add, ".npz"), 0.05),
            "gallery": (galleries.changed() | damaged(galleries.whole), lambda c: fuzz.read(galleries.case(c)), 0.05),
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
