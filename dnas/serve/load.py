"""The network of a path, whatever lies there."""

from __future__ import annotations

from pathlib import Path

from dnas.errors import UserError
from dnas.run.device import Device
from dnas.serve.exported import onnx_network, program_network
from dnas.serve.network import Embedder, TorchNetwork

FILES = {".onnx": onnx_network, ".pt2": program_network}


def load(path: str | Path, device: Device = "auto", space: str | None = None) -> Embedder:
    """The network of a retraining's folder, or of an exported .onnx or .pt2 file.

    Raises:
        UserError: none of these, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return Embedder(TorchNetwork.of_run(path, device, space))
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix not in FILES:
        raise UserError(f"{path}: expected the folder of a retraining, or an exported {' or '.join(FILES)} file")
    return Embedder(FILES[path.suffix](path, device))
