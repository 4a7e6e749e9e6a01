"""Groups of parameters by kind: what weight decay acts on, and what has a learning rate of its own.

Decay is a prior on what a layer computes from its input: it belongs on the weights of convolutions and linear layers.
On a bias, a norm or a gain it is a pull towards an arbitrary value; on the logits of a channel selection it alone moved
them, by the learning rate a step, whatever the data said (docs/results/informative-attention.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

from torch import nn, optim
from torch.nn.modules.conv import _ConvNd

Kind = Literal["decayed", "plain", "selection"]
"""Weights of convolutions and linear layers; all else (biases, norms, gains, tokens); what selects channels."""


class Factors(NamedTuple):
    """On a learning rate: in the warm-up, and after it."""

    warming: float
    after: float


@runtime_checkable
class Selecting(Protocol):
    """A module some of whose own parameters, or of modules inside it, decide what is selected."""

    def selection_parameters(self) -> Iterator[nn.Parameter]: ...


def limited(net: nn.Module) -> bool:
    """Whether the logits of all that selects have a limit: a module says so by `limited = True`."""
    return all(getattr(module, "limited", False) for module in net.modules() if isinstance(module, Selecting))


def kinds(net: nn.Module) -> dict[str, Kind]:
    """Name of every trainable parameter of a network -> its kind."""
    selection = {id(p) for m in net.modules() if isinstance(m, Selecting) for p in m.selection_parameters()}
    decayed = {id(p) for m in net.modules() for p in _matrices(m)}
    found: dict[str, Kind] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            number = id(parameter)
            found[name] = "selection" if number in selection else "decayed" if number in decayed else "plain"
    return found


def _matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, _ConvNd | nn.Linear):
        yield own["weight"]
    if isinstance(module, nn.MultiheadAttention) and "in_proj_weight" in own:
        yield own["in_proj_weight"]


def groups(net: nn.Module, decay: float, selection: Factors) -> list[dict[str, Any]]:
    """Groups for an optimiser, one for each kind, always in the same order, an empty one too.

    Args:
        decay: weight decay of the kind that has one.
        selection: factors on the learning rate of the selection's parameters.
    """
    found = kinds(net)
    parameters = dict(net.named_parameters())
    return [
        {
            "params": [parameters[name] for name, own in found.items() if own == kind],
            "kind": kind,
            "weight_decay": decay if kind == "decayed" else 0.0,
            **(selection if kind == "selection" else Factors(1.0, 1.0))._asdict(),
        }
        for kind in get_args(Kind)
    ]


def factors_of(group: dict[str, Any]) -> Factors:
    """Of a group of an optimiser; runs of before have one factor, `factor`, for both."""
    if "factor" in group:
        return Factors(group["factor"], group["factor"])
    return Factors(group["warming"], group["after"])


def set_rate(optimiser: optim.Optimizer, lr: float, warming: bool) -> None:
    """Set the learning rate, times the factor of each group."""
    for group in optimiser.param_groups:
        factors = factors_of(group)
        group["lr"] = lr * (factors.warming if warming else factors.after)


def refuse_ungrouped(optimiser: optim.Optimizer, state: dict[str, Any]) -> None:
    """Hook before an optimiser's state is put back: decay acted on everything in runs of before.

    Raises:
        ValueError: the state is of such a run.
    """
    if [group.get("kind") for group in state["param_groups"]] != [group["kind"] for group in optimiser.param_groups]:
        raise ValueError("it is of a version whose weight decay acted on every parameter; start the run again")
