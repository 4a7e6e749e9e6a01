"""`dnas export`, `embed`, `index`, `find`, `gallery` and `calibrate`: a trained network out of the lab."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, add_device, add_space, first_line, typed
from dnas.errors import UserError
from dnas.run.progress import console

EXPORT = "Write a trained network as one file that runs without this program, and check that it computes the same."
IMAGES = 'files, folders (searched below), CSV manifests with a column path; "-": paths on standard input'
WHERE = "conditions: COLUMN=VALUE (or !=, <, <=, >, >=), all of which hold; quote those with < or >"
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
        scores = found["mAP"]
        console.print(f"mAP: torch {scores['torch']:.2%}, {config.output} {scores['file']:.2%}", markup=False)
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
    parser.add_argument("network", type=str, help="folder of a retraining, or an exported .onnx or .pt2 file")
    parser.add_argument("images", type=str, nargs="+", help=IMAGES)


INDEX = "Fill a gallery with the vectors of pictures, or add to it."


def index_parser() -> Parser:
    from dnas.serve.indexing import IndexConfig

    found = Parser(prog="dnas index", description=INDEX)
    add_network_and_images(found)
    found.add_argument("-o", "--output", type=str, default="gallery", help="folder of the gallery")
    found.add_argument("--named", action="store_true", help=NAMED)
    found.add_class_arguments(IndexConfig, skip={"network", "images", "output", "named"})
    return found


def index(namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.serve.indexing import IndexConfig
    from dnas.serve.indexing import index as fill

    config = typed(IndexConfig, namespace)
    done = fill(config)
    console.print(f"{config.output}: added or changed {done.added:,} pictures, {done.size:,} in it", markup=False)
    if built := done.built:
        recall = f"{built.recall:.2%} of the ten nearest"
        console.print(
            f"built an approximate index, which finds {recall}"
            if built.pays
            else f"an approximate index would find {recall}, which is too few: all vectors are looked at"
        )


FIND = "Find the pictures of a gallery that are most like some others."


def find_parser() -> Parser:
    from dnas.serve.find import FindConfig

    found = Parser(prog="dnas find", description=FIND)
    found.add_argument("gallery", type=str, help="folder of a gallery")
    found.add_argument("images", type=str, nargs="+", help=f"the queries: {IMAGES}")
    found.add_argument("-o", "--output", type=str, default=None, help="file to write: .html, .csv or .json")
    found.add_argument("-k", type=int, default=10, help="pictures to find for each query")
    found.add_argument("--where", type=str, nargs="+", default=None, help=WHERE)
    found.add_argument("--rerank", action="store_true", help="put the nearest 200 in order by re-ranking")
    found.add_class_arguments(FindConfig, skip={"gallery", "images", "output", "k", "where", "rerank"})
    return found


def find(namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.serve.find import FindConfig, table
    from dnas.serve.find import find as search

    config = typed(FindConfig, namespace)
    found = search(config)
    if config.output is None:
        console.print(table(found), markup=False)
    else:
        console.print(f"wrote {config.output}: {len(found.queries):,} queries in {found.size:,} pictures", markup=False)


GALLERY = "List what is in a gallery, or remove pictures from it."


def gallery_parser() -> Parser:
    found = Parser(prog="dnas gallery", description=GALLERY)
    actions = found.add_subcommands(dest="action")
    for name, text in (("list", "print its pictures as CSV"), ("remove", "remove pictures; nothing is left of them")):
        action = Parser(description=text)
        action.add_argument("gallery", type=str, help="folder of a gallery")
        action.add_argument("--where", type=str, nargs="+", default=None, help=WHERE)
        actions.add_subcommand(name, action, help=text)
    return found


def gallery(namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.serve.store import Store

    config = namespace[namespace.action]
    store = Store(Path(config.gallery))
    if namespace.action == "list":
        names = store.columns()
        writer = csv.writer(sys.stdout)
        writer.writerow(["path", *names])
        for row in store.read(config.where or ()):
            writer.writerow([row.path, *(row.columns.get(name, "") for name in names)])
        return
    if not config.where:
        raise UserError("gallery remove: give --where CONDITION; to remove everything, delete the folder")
    with store.writing():
        ids = store.select(config.where)
        store.remove(ids)
    console.print(f"{config.gallery}: removed {len(ids):,} pictures, {len(store):,} left", markup=False)


CALIBRATE = "Measure from which similarity on two pictures are of one person, on people the network has not seen."


def calibrate_parser() -> Parser:
    found = Parser(prog="dnas calibrate", description=CALIBRATE)
    found.add_argument("run", type=str, help="folder of a retraining")
    found.add_argument("--data", type=str, default=None, help="data set of other people; the held-out ones without")
    found.add_argument(
        "-o", "--output", type=str, default=None, help="picture of false over missed pairs: .svg or .png"
    )
    found.add_argument("--json", action="store_true", help="print the numbers as one line of JSON, last")
    add_device(found)
    add_space(found)
    return found


def calibrate(config: Namespace, words: Sequence[str]) -> None:
    from dnas.run.folder import CALIBRATION
    from retrain.calibrate import calibrate_run, draw, table

    found = calibrate_run(config.run, config.data, config.device, config.space)
    console.print(table(found))
    if config.output:
        draw(found, Path(config.output))
    written = [str(Path(config.run) / CALIBRATION), *([config.output] if config.output else [])]
    console.print(f"wrote {', '.join(written)}", markup=False)
    if config.json:
        print(json.dumps(found))


VERBS = {
    "export": Verb(EXPORT, export_parser, export),
    "embed": Verb(EMBED, embed_parser, embed),
    "index": Verb(INDEX, index_parser, index),
    "find": Verb(FIND, find_parser, find),
    "calibrate": Verb(CALIBRATE, calibrate_parser, calibrate),
    "gallery": Verb(GALLERY, gallery_parser, gallery),
}
