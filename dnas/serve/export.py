"""A trained network as one file that runs without this program: ONNX, or torch.export's .pt2; and whether it does.

Shapes: B batch, D embedding, H W pixels.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.version import Version
from PIL import Image
from torch.export import ExportedProgram

from dnas.data.images import decode, normalise
from dnas.data.picture import read_rgb
from dnas.data.splits import check_matches, together
from dnas.errors import UserError
from dnas.eval.ranking import rank
from dnas.run.files import temporary, write_json
from dnas.serve.exportable import Exportable, fold, quiet, traced
from dnas.serve.exported import CARD, onnx_runner, onnx_session, program_runner
from dnas.serve.interface import Interface, Precision, run_interface
from dnas.serve.network import Pixels, Vectors, pixels_of
from dnas.serve.prepare import Prepare
from retrain.load import TrainedRun, load

FORMATS = (".onnx", ".pt2")
INPUT, OUTPUT = "pictures", "vectors"
BATCHES = (1, 2, 7)
"""Sizes of the batches that an exported file is checked with."""
ALLOWED = {"fp32": 1e-4, "fp16": 3e-2}
"""Largest difference of an entry of a vector of length one, by precision."""
ROUNDING = 20
"""Or so many times as far as torch's own vectors are from those in double precision: a network whose softmax sees
numbers of 100,000 (channel attention on large features) is not known better; sums in another order are as right."""
COSINE = 0.999
"""Least similarity to the vector of the training's own reading of a picture."""


@dataclass(frozen=True)
class ExportConfig:
    """Write a trained network as one file that runs without this program, and check that it computes the same.

    Args:
        run: folder of a retraining.
        output: file to write: .onnx, or .pt2 (torch.export).
        raw: leave the preparation of pixels out of the file: float32 (B, 3, H, W) in, as its sidecar JSON says.
        precision: fp32, or fp16: half the size.
        images: files to check it with; pictures that the network was trained on without.
        data: data set whose query and gallery are ranked by both, in any layout of docs/data.md.
        space: the space of the network, if it is a file of your own.
        json: print the numbers as one line of JSON, last.
    """

    run: str
    output: str
    raw: bool = False
    precision: Precision = "fp32"
    images: list[str] | None = None
    data: str | None = None
    space: str | None = None
    json: bool = False


def export_run(config: ExportConfig) -> dict[str, Any]:
    """Write and check: {"file", "bytes", "difference", "rounding", "cosine", ("mAP")}. One that fails is not left.

    Raises:
        UserError: another format, no pictures to check with, or a file that computes something else.
    """
    file = Path(config.output)
    if file.suffix not in FORMATS:
        raise UserError(f"output: cannot write '{file.suffix}', allowed: {', '.join(FORMATS)}")
    if file.is_dir():
        raise UserError(f"output: {file} is a folder")
    if file.suffix == ".onnx":
        needed("onnx", "onnxscript", "onnxruntime")
        if not exports_onnx():
            raise UserError(f"output: .onnx needs torch 2.7 or newer, found {torch.__version__}; .pt2 does not")
    run = load(config.run, "cpu", config.space)
    pictures = [read_rgb(path) for path in check_pictures(config, run)]
    interface = replace(run_interface(run), prepared=not config.raw, precision=config.precision)
    module = exportable(run, config.raw, config.precision)
    program = traced(module, interface.height, interface.width)
    unfinished = file.with_name(f".unchecked.{file.name}")
    try:
        write(program, interface, unfinished)
        found: dict[str, Any] = {**check(unfinished, exportable(run, config.raw, "fp32"), interface, pictures)}
        if config.data is not None:
            found["mAP"] = both_map(unfinished, run, interface, config.data)
        if reason := refusal(found, config.precision):
            raise UserError(f"{file}: not written: {reason}")
        os.replace(unfinished, file)
        os.replace(sidecar(unfinished), sidecar(file))
    finally:
        unfinished.unlink(missing_ok=True)
        sidecar(unfinished).unlink(missing_ok=True)
    return {"file": str(file), "bytes": file.stat().st_size, **found}


def exportable(run: TrainedRun, raw: bool, precision: Precision) -> Exportable:
    """The module that is exported."""
    network = copy.deepcopy(run.network)
    if precision == "fp16":
        network = network.half()
    prepare = None if raw else Prepare(run.model.input.height, run.model.input.width)
    module = Exportable(network, run.config.distance, run.config.flip_average, prepare, precision)
    return module.requires_grad_(False).eval()


def write(program: ExportedProgram, interface: Interface, file: Path) -> None:
    """The network, with its interface in it and beside it. Batch norms after convolutions are folded into them."""
    names = ("onnx", "onnxscript") if file.suffix == ".onnx" else ()
    content = replace(interface, versions={**interface.versions, **{name: version(name) for name in names}}).plain()
    with temporary(file) as unfinished, quiet():
        if file.suffix == ".pt2":
            fold(program)
            torch.export.save(program, unfinished, extra_files={CARD: json.dumps(content)})
        else:
            found = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
            assert found is not None
            found.model.metadata_props["dnas"] = json.dumps(content)
            found.save(str(unfinished), external_data=False)
    write_json(sidecar(file), content)


def sidecar(file: Path) -> Path:
    """net.onnx.json of net.onnx."""
    return file.with_name(f"{file.name}.json")


def runner(file: Path) -> Callable[[torch.Tensor], Vectors]:
    """The file in onnxruntime, or in torch without this program's modules."""
    return onnx_runner(onnx_session(file, "cpu")) if file.suffix == ".onnx" else program_runner(file)


def check(file: Path, module: Exportable, interface: Interface, pictures: Sequence[Image.Image]) -> dict[str, float]:
    """Largest difference of a vector's entry to torch's, of torch's to one in double precision (`rounding`), and least
    cosine to the training's way of reading pictures.

    Args:
        module: the same in torch, in single precision.
        pictures: at least as many as the largest batch; those of a batch get the size of its first.
    """
    run = runner(file)
    difference, rounding, cosine = 0.0, 0.0, 1.0
    exact = copy.deepcopy(module).double()
    exact.dtype = torch.float64
    for count in BATCHES:
        width, height = pictures[0].size
        stacked = np.stack([pixels_of(picture, height, width) for picture in pictures[:count]])
        seen = normalise(torch.from_numpy(np.stack([pixels_of(p, interface.height, interface.width) for p in stacked])))
        given = seen if module.prepare is None else torch.from_numpy(stacked)
        with torch.inference_mode():
            expected, precise = module(given).numpy(), exact(given).numpy()
            trained = Exportable(module.network, interface.distance, interface.flip_average)(seen).numpy()
        found = run(given)
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise UserError(f"{file}: its vectors for {count} pictures are of shape {found.shape}, or not finite")
        length = np.linalg.norm(trained, axis=1).mean()
        difference = max(difference, float(np.abs(found - expected).max() / length))
        rounding = max(rounding, float(np.abs(expected - precise).max() / length))
        dots = (found * trained).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(trained, axis=1)
        cosine = min(cosine, float(dots.min()))
    return {"difference": difference, "rounding": rounding, "cosine": cosine}


def refusal(found: dict[str, Any], precision: Precision) -> str | None:
    """Why the file is not good enough; nothing where it is."""
    allowed = max(ALLOWED[precision], ROUNDING * found["rounding"])
    if not found["difference"] <= allowed:
        return f"differs from torch by {found['difference']:.1e}, allowed: {allowed:.0e}"
    if found["cosine"] < COSINE:
        return f"cosine {found['cosine']:.4f} to the training's vectors, allowed: {COSINE} or more"
    return None


def check_pictures(config: ExportConfig, run: TrainedRun) -> list[Path]:
    """Real pictures to check with.

    Raises:
        UserError: none given, and the data set of the run is not there; or too few.
    """
    if config.images is not None:
        found = [Path(name) for name in config.images]
    else:
        try:
            found = list(run.data(tested=False).train.files)
        except UserError as error:
            raise UserError(f"{error}; give --images with {max(BATCHES)} pictures to check the file with") from error
    if len(found) < max(BATCHES):
        raise UserError(f"images: found {len(found)}, needed to check the file: {max(BATCHES)}")
    return found[:: max(1, len(found) // max(BATCHES))][: max(BATCHES)]


def both_map(file: Path, run: TrainedRun, interface: Interface, data: str) -> dict[str, float]:
    """mAP on query and gallery of a data set, by torch and by the file."""
    found = run.data(data)
    check_matches(found.query, found.gallery, "query and gallery")
    images = decode(together(found.query, found.gallery), interface.height, interface.width)
    module, compute = exportable(run, raw=True, precision="fp32"), runner(file)

    def by_torch(x: torch.Tensor) -> Vectors:
        with torch.inference_mode():
            return np.asarray(module(x).numpy())

    scores = {}
    for name, vectors in (("torch", by_torch), ("file", compute)):
        rows = []
        for pixels in _pixels(images.pixels, images.rows):
            given = torch.from_numpy(pixels)
            rows.append(vectors(given if name == "file" and interface.prepared else normalise(given)))
        found_ND = torch.from_numpy(np.concatenate(rows)).float()
        split = len(found.query)
        query, gallery = found_ND[:split], found_ND[split:]
        scores[name] = rank(query, gallery, found.query.ids, found.gallery.ids, interface.distance).metrics()["mAP"]
    return scores


def _pixels(pixels: torch.Tensor, rows: torch.Tensor, batch: int = 32) -> Iterator[Pixels]:
    for part in rows.split(batch):
        yield pixels.index_select(0, part).numpy()


def exports_onnx() -> bool:
    """Torch 2.6 cannot take the preparation of pixels apart for ONNX, nor a batch norm for the onnxscript of today."""
    return Version(torch.__version__) >= Version("2.7")


def needed(*packages: str) -> None:
    """Refuse in one line what needs an extra that is not installed."""
    from importlib.util import find_spec

    if missing := [name for name in packages if find_spec(name) is None]:
        raise UserError(f"not installed: {', '.join(missing)}; pip install 'dnas-reid[serve]'")
