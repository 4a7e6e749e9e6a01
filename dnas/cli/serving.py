"""`dnas export` and `dnas embed`: a trained network out of the lab."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, first_line, typed
from dnas.run.progress import console

EXPORT = "Write a trained network as one file that runs without this program, and check that it computes the same."
IMAGES = 'files, folders (searched below), CSV manifests with a column path; "-": paths on standard input'
NAMED = "take identity and camera from file names such as 0001_c1s1_000151_00.jpg"


def export_parser() -> Parser:
    from dnas.serve.export import ExportConfig

    found = Parser(prog="dnas export", description=first_line(ExportConfig))
    found.add_argument("run", type=str, help="folder of a retraining")
    found.add_argument("-o", "--output", type=str, required=True, help="file to write: .onnx, or .pt2 (torch.export)")
    found.add_argument("--raw", action="store_true", help="leave the preparation of pixels out of the file")
    found.add_argument("--images", type=str, nargs="+", default=None, help="files to check it with")
    found.add_argument("--json", action="store_true", help="print the numbers as one line of JSON, last")
    found.add_class_arguments(ExportConfig, skip={"run", "output", "raw", "images", "json"})
    return found


def export(namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.serve.export import ExportConfig, export_run, sidecar

    config = typed(ExportConfig, namespace)
    found = export_run(config)
    console.print(
        f"checked: largest difference to torch {found['difference']:.1e},"
        f" least cosine to the training's reading {found['cosine']:.5f}"
    )
    if "mAP" in found:
        console.print(f"mAP: torch {found['mAP']['torch']:.2%}, {config.output} {found['mAP']['file']:.2%}")
    size = found["bytes"] / 1e6
    console.print(f"wrote {config.output} ({size:.1f} MB) and {sidecar(Path(config.output))}", markup=False)
    if config.json:
        print(json.dumps(found))


EMBED = "Embed pictures: their vectors in one file."


def embed_parser() -> Parser:
    from dnas.serve.embed import EmbedConfig

    found = Parser(prog="dnas embed", description=EMBED)
    add_network_and_images(found)
    found.add_argument("-o", "--output", type=str, default="vectors.npz", help=".npz file to write")
    found.add_argument("--named", action="store_true", help=NAMED)
    found.add_class_arguments(EmbedConfig, skip={"network", "images", "output", "named"})
    return found


def embed(namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.run import distributed
    from dnas.serve.embed import EmbedConfig, embed_to_file

    config = typed(EmbedConfig, namespace)
    done = embed_to_file(config)
    if distributed.rank() == 0:
        console.print(f"wrote {config.output}: {done.images:,} vectors", markup=False)


def add_network_and_images(parser: Parser) -> None:
    parser.add_argument("network", type=str, help="folder of a retraining, or an exported .onnx file")
    parser.add_argument("images", type=str, nargs="+", help=IMAGES)


VERBS = {"export": Verb(EXPORT, export_parser, export), "embed": Verb(EMBED, embed_parser, embed)}
