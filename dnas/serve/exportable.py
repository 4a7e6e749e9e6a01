"""What an exported file computes, as a module of its own and as operations without this program.

Shapes: B batch, D embedding, H W pixels.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node
from torch.nn import functional as F

from dnas.eval.embed import Distance
from dnas.nn.network import Network
from dnas.serve.interface import Precision
from dnas.serve.prepare import Prepare

CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)


class Exportable(nn.Module):
    """What a file computes: pictures -> vectors (B, D) float32.

    Args:
        prepare: takes uint8 (B, H, W, 3) of any one size; without it float32 (B, 3, H, W), as training sees them.
    """

    def __init__(
        self,
        network: Network,
        distance: Distance = "cosine",
        flip_average: bool = False,
        prepare: Prepare | None = None,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.prepare, self.network = prepare, network
        self.distance, self.flip_average = distance, flip_average
        self.dtype = torch.float16 if precision == "fp16" else torch.float32

    def forward(self, pictures: Tensor) -> Tensor:
        x_BCHW = (pictures if self.prepare is None else self.prepare(pictures)).to(self.dtype)
        if self.flip_average:  # as one batch: a file then has the weights once
            both_BD = self.network.raw(torch.cat([x_BCHW, x_BCHW.flip(3)]))
            found_BD = both_BD.unflatten(0, (2, -1)).mean(0)
        else:
            found_BD = self.network.raw(x_BCHW)
        return F.normalize(found_BD, dim=1) if self.distance == "cosine" else found_BD


def traced(module: Exportable, height: int, width: int) -> ExportedProgram:
    """The module as operations alone, for every size of the batch."""
    batch = Dim("batch", min=1, max=1 << 30)  # a bound, for torch 2.6: it refuses "any" as not quite any
    if module.prepare is None:
        example, sizes = torch.zeros(2, 3, height, width), {0: batch}
    else:  # a size of the picture that is not the network's: nothing may be taken for constant
        example = torch.zeros(2, height + 3, width + 5, 3, dtype=torch.uint8)
        sizes = {0: batch, 1: Dim("height", min=1), 2: Dim("width", min=1)}
    with quiet(), torch.no_grad():
        return torch.export.export(module.eval(), (example,), dynamic_shapes=(sizes,))


def fold(program: ExportedProgram) -> None:
    """Batch norms into the convolutions before them, in place (ONNX's exporter does that by itself).

    w (x) -> gamma ((w x + b - mean) / sqrt(var + eps)) + beta: a convolution of other weights and another bias, which
    takes beta's place among the inputs of the graph.
    """
    inputs = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    state = program.state_dict

    def value(node: object) -> Tensor:
        assert isinstance(node, Node)
        found: Tensor = state[inputs[node.name]].detach()
        return found

    for norm in [node for node in program.graph.nodes if node.target is torch.ops.aten.batch_norm.default]:
        conv, gamma, beta, mean, var, _, _, eps, _ = norm.args
        if conv.target not in CONVOLUTIONS or len(conv.users) > 1 or gamma is None:
            continue
        if any(len(node.users) > 1 for node in (conv.args[1], beta)):  # of a layer that is used twice
            continue
        factor_C = value(gamma) * (value(var) + eps).rsqrt()
        bias = conv.args[2] if len(conv.args) > 2 else None
        before_C = value(bias) if bias is not None else torch.zeros_like(factor_C)
        weight = value(conv.args[1]) * factor_C.view(-1, *[1] * (value(conv.args[1]).ndim - 1))
        folded = {conv.args[1]: weight, beta: value(beta) + (before_C - value(mean)) * factor_C}
        for node, tensor in folded.items():
            state[inputs[node.name]] = nn.Parameter(tensor, requires_grad=False)
        conv.args = (*conv.args[:2], beta, *conv.args[3:])
        norm.replace_all_uses_with(conv)
        program.graph.erase_node(norm)
    program.graph_module.recompile()


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters talk about themselves; errors come through."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
