"""Networks in files that `dnas export` wrote: ONNX in onnxruntime, torch.export's .pt2 in torch.

Shapes: B batch, D embedding.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnas.data.images import normalise
from dnas.errors import UserError
from dnas.run.device import Device
from dnas.run.files import MOST_BYTES
from dnas.serve.exportable import quiet
from dnas.serve.interface import Interface, interface_of
from dnas.serve.network import Pixels, Vectors

CARD = "dnas.json"
"""The interface in a .pt2 file."""


class ExportedNetwork:
    """A file's network: `run` takes what the file takes (B of it) and gives vectors (B, D)."""

    def __init__(self, path: Path, interface: Interface, run: Callable[[Tensor], Vectors]) -> None:
        self.source, self.interface, self.run = path, interface, run

    def stream(self, batches: Iterator[Pixels]) -> Iterator[Vectors]:
        for pixels in batches:
            given = torch.from_numpy(pixels)
            try:
                vectors = self.run(given if self.interface.prepared else normalise(given))
            except Exception as error:  # the runtimes' own types, for a file whose graph is another one
                raise UserError(f"{self.source}: does not run ({_line(error)})") from error
            if vectors.shape != (len(pixels), self.interface.embedding):
                raise UserError(f"{self.source}: found vectors of shape {vectors.shape}, not as its interface says")
            yield vectors


def onnx_network(path: Path, device: Device = "auto") -> ExportedNetwork:
    """An .onnx file that this program exported.

    Raises:
        UserError: it is none, or damaged; or onnxruntime is not installed.
    """
    session = onnx_session(path, device)
    content = _parsed(session.get_modelmeta().custom_metadata_map.get("dnas", ""), path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"{path}: found {len(inputs)} inputs and {len(outputs)} outputs, expected one of each")
    return ExportedNetwork(path, interface_of(content, str(path)), onnx_runner(session))


def onnx_runner(session: Any) -> Callable[[Tensor], Vectors]:
    name = session.get_inputs()[0].name
    return lambda given: np.asarray(session.run(None, {name: given.contiguous().numpy()})[0], np.float32)


def onnx_session(path: Path, device: Device = "auto") -> Any:
    """An onnxruntime session.

    Raises:
        UserError: onnxruntime is not installed, or the file is damaged.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed: pip install 'dnas-reid[serve]'") from None
    there = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device in ("auto", "cuda") and "CUDAExecutionProvider" in there else []
    if device not in ("auto", "cpu") and not wanted:
        raise UserError(f"device: '{device}' is not available in this onnxruntime, allowed: auto, cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[*wanted, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types
        raise UserError(f"{path}: cannot be read as an ONNX file ({_line(error)})") from error


def program_network(path: Path, device: Device = "auto") -> ExportedNetwork:
    """A .pt2 file that this program exported, on the CPU. A program: who made it decides what it does (SECURITY.md).

    Raises:
        UserError: it is none, or damaged.
    """
    if device not in ("auto", "cpu"):
        raise UserError(f"device: found '{device}', allowed for a .pt2 file: auto, cpu")
    try:
        with zipfile.ZipFile(path) as archive:
            cards = [entry for entry in archive.infolist() if entry.filename.endswith(f"/{CARD}")]
            text = archive.read(cards[0]) if len(cards) == 1 and cards[0].file_size <= MOST_BYTES else b""
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read as a .pt2 file ({_line(error)})") from error
    interface = interface_of(_parsed(text, path), str(path))  # before torch looks at the file
    return ExportedNetwork(path, interface, program_runner(path))


def program_runner(path: Path) -> Callable[[Tensor], Vectors]:
    """The file in torch, without this program's modules.

    Raises:
        UserError: it is damaged.
    """
    with quiet():
        try:
            module = torch.export.load(path).module()
        except Exception as error:  # torch's own types, and whatever a damaged graph leads to
            raise UserError(f"{path}: cannot be read as a .pt2 file ({_line(error)})") from error

    @torch.inference_mode()
    def run(given: Tensor) -> Vectors:
        return np.asarray(module(given).numpy(), np.float32)

    return run


def _parsed(text: str | bytes, path: Path) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: no network that this program exported (it does not say what it takes)") from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
