"""Weight decay acts on the weights of convolutions and linear layers, and on nothing else."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dnas.errors import UserError
from dnas.nn.attention import attention
from dnas.nn.backbones import backbone
from dnas.nn.reid_net import ReIDNet
from dnas.run.folder import RunFolder
from dnas.run.parameters import Factors, factors_of, kinds, limited, set_rate
from dnas.run.position import Position
from dnas.run.schedules import FIXED, LARGEST, REACH, OptimConfig, make_optimiser
from dnas.space.spec import image


def network(name: str, cell: str = "dcs") -> ReIDNet:
    spec = backbone(name, 0.125, small=True, attention=lambda stage: attention(cell))
    return ReIDNet(spec, image(32, 16), 3)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_16"])
def test_every_parameter_has_the_kind_that_its_name_says(name: str) -> None:
    found = kinds(network(name))
    for parameter, kind in found.items():
        if ".select." in parameter:
            assert kind == "selection", parameter
        elif parameter.endswith("weight") and not any(part in parameter for part in (".norm", "bn", "ln", "neck")):
            # a batch norm of a shortcut is its second part
            assert kind == ("plain" if "downsample.1" in parameter else "decayed"), parameter
        else:
            assert kind == "plain", parameter
    assert len(set(found.values())) == 3
    assert "neck.bias" not in found  # not trained


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_without_a_gradient_decay_alone_moves_and_only_weights(optimiser: str) -> None:
    net = network("resnet18")
    made = make_optimiser(net, OptimConfig(optimiser=optimiser, lr=0.1, weight_decay=0.1), 1)  # type: ignore[arg-type]
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    after = dict(net.named_parameters())
    for name, kind in kinds(net).items():
        assert torch.equal(after[name], before[name]) == (kind != "decayed"), name


def test_selection_has_a_learning_rate_of_its_own() -> None:
    net = network("resnet18")
    made = make_optimiser(net, OptimConfig(optimiser="sgd", lr=0.5, weight_decay=0, selection_lr=4), 1)
    for lr, warming in ((0.5, True), (0.5, False), (0.25, False)):
        set_rate(made, lr, warming)
        assert {group["kind"]: group["lr"] for group in made.param_groups} == {
            "decayed": lr, "plain": lr, "selection": 4 * lr}  # fmt: skip


def test_the_factor_of_a_selection_waits_for_the_warm_up() -> None:
    """If none is given: large steps by untrained features would close the branch."""
    made = make_optimiser(network("resnet18", "selective"), optim := OptimConfig(epochs=10, warmup=2), 5)
    factor = optim.selection_factors(5, True).after
    assert factor > 1
    for progress, expected in ((0.0, 1.0), (1.8, 1.0), (2.0, factor), (9.0, factor)):
        set_rate(made, 0.5, optim.warming(progress))
        assert {group["kind"]: group["lr"] for group in made.param_groups}["selection"] == 0.5 * expected


def test_a_run_of_one_factor_goes_on_with_it() -> None:
    """As runs were written before the warm-up had a factor of its own."""
    net = network("resnet18", "selective")
    made = make_optimiser(net, OptimConfig(), 5)
    state = made.state_dict()
    for group in state["param_groups"]:
        del group["warming"], group["after"]
        group["factor"] = 7.0 if group["kind"] == "selection" else 1.0
    made.load_state_dict(state)
    for warming in (True, False):
        set_rate(made, 0.5, warming)
        assert {group["kind"]: group["lr"] for group in made.param_groups} == {
            "decayed": 0.5, "plain": 0.5, "selection": 3.5}  # fmt: skip


@pytest.mark.parametrize("factor", [5.0, None])
@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_how_far_a_selection_gets(optimiser: str, factor: float | None) -> None:
    net = network("resnet18", "selective")
    optim = replace(OptimConfig(lr=1e-3, epochs=6, warmup=2), optimiser=optimiser, selection_lr=factor)  # type: ignore[arg-type]
    made = make_optimiser(net, optim, 8)
    bias = next(p for name, p in net.named_parameters() if name.endswith("select.logits.bias"))
    before = bias.detach().clone()
    for step in range(6 * 8):
        bias.grad = torch.ones_like(bias)
        set_rate(made, optim.lr_at(step / 8), optim.warming(step / 8))
        made.step()
    moved = float((before - bias.detach()).mean())
    assert optim.reach(8, optim.selection_factors(8, True)) == pytest.approx(moved, rel=0.05)
    assert OptimConfig(optimiser="sgd").reach(8, Factors(3.0, 3.0)) == math.inf


def test_the_factor_of_a_selection_by_the_training() -> None:
    """As far over a training whatever its length and rate; no step too large, none smaller than other weights'."""
    long, fixed = OptimConfig(lr=1e-3, epochs=60), Factors(FIXED, FIXED)
    for steps in (10, 20):
        assert long.reach(steps, long.selection_factors(steps, True)) == pytest.approx(REACH)
    for gentle in (OptimConfig(lr=1e-4, epochs=5), OptimConfig(lr=1e-5, epochs=10)):
        assert gentle.selection_factors(10, True).after * gentle.lr == pytest.approx(LARGEST)
        assert gentle.reach(10, gentle.selection_factors(10, True)) < REACH
    for none in (OptimConfig(lr=0), OptimConfig(epochs=2, warmup=3)):
        assert long.selection_factors(10_000, True) == (1, 1) == none.selection_factors(10, True)
    assert OptimConfig(optimiser="sgd").selection_factors(10, True) == fixed == long.selection_factors(10, False)
    assert {OptimConfig(selection_lr=7).selection_factors(10, within) for within in (True, False)} == {(7, 7)}


@pytest.mark.parametrize(
    ("cells", "within"), [("selective unselective", True), ("none", True), ("dcs", False), ("selective dcs", False)]
)
def test_the_factor_is_another_where_logits_have_no_limit(cells: str, within: bool) -> None:
    net, optim = nn.ModuleList(network("resnet18", cell) for cell in cells.split()), OptimConfig(lr=1e-3)
    assert limited(net) is within
    found = {group["kind"]: factors_of(group) for group in make_optimiser(net, optim, 10).param_groups}["selection"]
    assert found == (optim.selection_factors(10, True) if within else (FIXED, FIXED))


class Run:
    """What resuming puts back: an optimiser."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self.optimiser, self.position = optimiser, Position()

    def restore(self, state: dict[str, object]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]


def test_a_run_of_before_is_refused_in_one_line(tmp_path: Path) -> None:
    net = nn.Linear(2, 2, bias=False)
    folder, data = RunFolder(tmp_path), {"format": 1, "sha256": "0"}
    folder.write("data.json", data)
    old = torch.optim.Adam(net.parameters())
    folder.save({"optimiser": old.state_dict()}, Position(), 1)
    run = Run(make_optimiser(net, OptimConfig(), 1))
    with pytest.raises(UserError, match="weight decay acted on every parameter; start the run again"):
        folder.continue_with(run, data)
    folder.save({"optimiser": run.optimiser.state_dict()}, Position(), 1)
    folder.continue_with(run, data)
