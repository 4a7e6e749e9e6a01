"""The training step: accumulation, clipping, moving averages, precision; and several processes against one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

from dnas.cli import main
from dnas.data.augment import InputConfig, augment, draw
from dnas.data.images import Batch
from dnas.data.sampler import PKSampler
from dnas.errors import UserError
from dnas.loss.objective import LossConfig, Objective
from dnas.nn.attention import attention
from dnas.nn.backbones import backbone
from dnas.nn.reid_net import ReIDNet
from dnas.run import distributed, seeds
from dnas.run.folder import RunFolder
from dnas.run.parameters import Factors
from dnas.run.schedules import OptimConfig
from dnas.run.step import Stepper, TrainConfig
from dnas.space.spec import image
from retrain.load import load
from tests.ranks import leave

C, P, K = 6, 4, 2
SIZE = (32, 16)


def make(train: TrainConfig | None = None, loss: LossConfig | None = None, optim: OptimConfig | None = None) -> Stepper:
    torch.manual_seed(0)
    spec = backbone("resnet18", 0.125, small=True, attention=lambda stage: attention("dcs"))
    net = ReIDNet(spec, image(*SIZE), C).double()
    distributed.synchronised(net, torch.device("cpu"))
    loss = loss or LossConfig(eta_warmup=0, centre=0.01, circle=0.001)
    objective = Objective(loss, C, 64).double()
    optim = optim or OptimConfig(epochs=10, warmup=0, lr=0.01, selection_lr=3)
    return Stepper(net, objective, optim, train or TrainConfig(), 3)


def test_the_selection_of_channels_has_its_rate_by_the_steps_of_an_epoch() -> None:
    """Three batches, two of which make a step: two steps."""
    net = ReIDNet(backbone("resnet18", 0.125, attention=lambda stage: attention("selective")), image(*SIZE), C)
    optim = OptimConfig(epochs=200, lr=0.01)
    stepper = Stepper(net, Objective(LossConfig(), C, 64), optim, TrainConfig(accumulate=2), 3)
    assert stepper.selection_factors == optim.selection_factors(2, True) != optim.selection_factors(3, True)
    assert stepper.reach == optim.reach(2, stepper.selection_factors)
    for group in stepper.optimiser.param_groups:  # as of a run that began with others
        group |= {"warming": 2.0, "after": 3.0}
    assert stepper.reach == optim.reach(2, Factors(2.0, 3.0))
    pixels, labels = images()
    inputs = augment(whole(pixels), InputConfig(), draw(len(pixels), torch.Generator().manual_seed(0)))
    for at, factor in ((optim.warmup - 0.1, 2), (optim.warmup, 3)):
        for _ in range(2):
            stepper(inputs, labels, at, last=False)
        rates = {group["kind"]: group["lr"] for group in stepper.optimiser.param_groups}
        assert rates["selection"] == pytest.approx(factor * optim.lr_at(at))


def images() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    labels = torch.arange(C).repeat_interleave(4)
    return torch.randint(0, 256, (len(labels), *SIZE, 3), generator=g, dtype=torch.uint8), labels


def whole(pixels: torch.Tensor) -> Batch:
    return Batch(pixels, torch.arange(len(pixels)), torch.zeros(len(pixels)))


def train(steps: int) -> dict[str, torch.Tensor]:
    """`steps` steps on this rank's part of the global batches, in double precision."""
    stepper = make()
    pixels, labels = images()
    sampler = PKSampler(labels.numpy(), P, K, seed=0)
    stepper.net.train()
    batches = [batch for epoch in range(steps) for batch in sampler.epoch(epoch)][:steps]
    for step, batch in enumerate(batches):
        rows = distributed.own(len(batch))
        index = torch.from_numpy(batch[rows])
        numbers = draw(len(batch), seeds.generator(0, "augment", step))[rows]
        torch.manual_seed(step)
        inputs = augment(whole(pixels[index]), InputConfig(pad=2, jitter=0.2), numbers).double()
        stepper(inputs, labels[index], step / steps, last=False)
    state = stepper.net.state_dict() | {f"objective {n}": v for n, v in stepper.objective.state_dict().items()}
    return {name: value for name, value in state.items() if value.is_floating_point()}


def _rank(rank: int, folder: str, count: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    torch.save(train(10), f"{folder}/{rank}.pt")
    leave()


@pytest.mark.slow
def test_two_processes_train_as_one_on_the_global_batch(tmp_path: Path) -> None:
    """Mining, batch norm, noise, augmentation, the bound's statistics and centres over both ranks: 10 steps."""
    multiprocessing.spawn(_rank, (str(tmp_path), 2), nprocs=2)
    expected = train(10)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    start = {name: value for name, value in make().net.state_dict().items() if value.is_floating_point()}
    moved = max(float((expected[name] - value).abs().max()) for name, value in start.items())
    assert moved > 0.01
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-9, msg=name)
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-9, msg=name)


def test_ranks_have_different_identities_and_as_many_steps() -> None:
    labels = images()[1].numpy()
    for batch in PKSampler(labels, P, K, seed=0).epoch(3):
        half = len(batch) // 2
        assert not set(labels[batch[:half]]) & set(labels[batch[half:]])
        assert len(set(labels[batch])) == P


def watch(stepper: Stepper, see: Callable[[list[torch.Tensor]], None]) -> None:
    """Show the gradients to `see` before every step of the optimiser."""
    parameters = list(stepper.net.parameters())
    stepper.optimiser.register_step_pre_hook(lambda *_: see([p.grad for p in parameters if p.grad is not None]))


def test_accumulated_batches_are_one_step_of_their_mean() -> None:
    pixels, labels = images()
    inputs = augment(whole(pixels), InputConfig(flip=0, pad=0, erase=0), draw(len(pixels), torch.Generator())).double()
    loss = LossConfig(eta=0)
    gradients = []
    for count in (1, 2):
        stepper = make(TrainConfig(accumulate=count), loss, OptimConfig(epochs=10, warmup=0, optimiser="sgd"))
        stepper.net.eval()  # batch norm would see other batches
        found: list[torch.Tensor] = []
        watch(stepper, lambda gradients, found=found: found.extend(g.clone() for g in gradients))
        rows = slice(0, 8)
        for n in range(count):
            stepper(inputs[rows], labels[rows], n / 10, last=False)
        gradients.append(found)
    assert len(gradients[0]) == len(gradients[1]) > 10  # two batches, one step
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_the_last_batch_of_an_epoch_is_not_lost() -> None:
    pixels, labels = images()
    inputs = augment(whole(pixels[:8]), InputConfig(), draw(8, torch.Generator())).double()
    stepper = make(TrainConfig(accumulate=4))
    before = [p.detach().clone() for p in stepper.net.parameters()]
    stepper(inputs, labels[:8], 0.0, last=False)
    assert all(torch.equal(a, b) for a, b in zip(before, stepper.net.parameters(), strict=True))
    stepper(inputs, labels[:8], 0.1, last=True)
    assert not all(torch.equal(a, b) for a, b in zip(before, stepper.net.parameters(), strict=True))


def test_clipping_bounds_the_gradient() -> None:
    pixels, labels = images()
    inputs = augment(whole(pixels[:8]), InputConfig(), draw(8, torch.Generator())).double()
    norms = []
    for clip in (0.0, 0.01):
        stepper = make(TrainConfig(clip=clip))
        found: list[float] = []
        watch(stepper, lambda gradients, found=found: found.append(float(nn.utils.get_total_norm(gradients))))
        stepper(inputs, labels[:8], 0.0, last=False)
        norms += found
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_moving_average_is_what_it_says() -> None:
    pixels, labels = images()
    inputs = augment(whole(pixels[:8]), InputConfig(), draw(8, torch.Generator())).double()
    stepper = make(TrainConfig(ema=0.9))
    expected = None
    for step in range(3):
        stepper(inputs, labels[:8], step / 10, last=False)
        now = {name: value.clone() for name, value in stepper.net.state_dict().items() if value.is_floating_point()}
        expected = now if expected is None else {n: 0.9 * expected[n] + 0.1 * now[n] for n in now}
    assert expected is not None
    averaged = stepper.final.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value, msg=name)


def test_half_precision_needs_its_device() -> None:
    with pytest.raises(UserError, match="amp: found fp16 on cpu, allowed: none, bf16"):
        make(TrainConfig(amp="fp16"))


@pytest.mark.parametrize(("schedule", "expected"), [("step", [1, 0.1, 0.01]), ("cosine", [1, 0.59, 0.126])])
def test_schedules(schedule: str, expected: list[float]) -> None:
    optim = OptimConfig(epochs=100, lr=1.0, warmup=10, schedule=schedule)  # type: ignore[arg-type]
    assert [optim.lr_at(0), optim.lr_at(5)] == pytest.approx([0.1, 0.55])
    found = [optim.lr_at(epoch) for epoch in (10, 50, 80)]
    assert found == pytest.approx(expected, rel=0.05)
    with pytest.raises(UserError, match="milestones"):
        replace(optim, milestones=[40, 70])


@pytest.mark.slow
def test_recipes_train_and_go_on(pedestrians: Path, tmp_path: Path) -> None:
    """Both recipes in a few images; the moving average is what is evaluated, loaded and gone on with."""
    configs = Path(__file__).parent.parent.parent / "configs"
    small = ["--data", str(pedestrians), "--device", "cpu", "--input.height", "32", "--input.width", "16"]
    small += ["--input.pad", "2", "--optim.epochs", "2", "--optim.identities", "3", "--optim.images", "2"]
    small += ["--backbone", "osnet_x0_25", "--backbone_small", "true"]
    for name, extra in (("bot", ["--loss.circle", "0.01"]), ("rib", ["--train.amp", "bf16", "--flip_average", "true"])):
        out = tmp_path / name
        words = ["--config", str(configs / f"{name}.yaml"), *small, *extra, "--out", str(out)]
        assert main(["retrain", *words]) == 0
        summary = json.loads((out / "summary.json").read_text())
        assert summary["evaluated"] == ("moving average" if name == "rib" else "last epoch")
        state = RunFolder(out).load()
        assert ("ema" in state) == (name == "rib")
        loaded = load(out, "cpu").network.state_dict()
        source = state["ema"]["net"] if name == "rib" else state["net"]
        assert torch.equal(loaded["neck.weight"], source["neck.weight"])
    terms = json.loads((tmp_path / "bot" / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
    assert set(terms) == {"id", "triplet", "centre", "circle"}


@pytest.mark.slow
def test_torchrun_writes_one_run(pedestrians: Path, tmp_path: Path) -> None:
    """The command line under torchrun, on two processes, and on with one; nearly the losses of one process."""
    words = ["--data", str(pedestrians), "--device", "cpu", "--input.height", "32", "--input.width", "16"]
    words += ["--backbone", "resnet18", "--backbone_width", "0.125", "--optim.identities", "4", "--optim.images", "2"]
    words += ["--loss.refresh", "epoch", "--loss.eta_warmup", "0", "--attention", "none,dcs,none,se"]
    words += [
        "--optim.warmup",
        "0",
        "--optim.lr",
        "0.0001",
    ]  # Adam begins with signs: keep steps small
    both, one = tmp_path / "both", tmp_path / "one"
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "dnas.cli",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "retrain", *words, "--out", str(both), "--optim.epochs", "2"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert main(["retrain", *words, "--out", str(one), "--optim.epochs", "2"]) == 0
    rows = [[json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (both, one)]
    assert [row["epoch"] for row in rows[0]] == [0, 1]
    assert rows[0][0]["loss"] == pytest.approx(rows[1][0]["loss"], rel=1e-3)
    assert load(both, "cpu").model.name == "resnet18 x0.125 + none,dcs,none,se"


def test_fewer_batches_at_the_end_of_an_epoch_weigh_the_same() -> None:
    pixels, labels = images()
    inputs = augment(whole(pixels[:8]), InputConfig(), draw(8, torch.Generator())).double()
    gradients = []
    for accumulate in (1, 4):
        stepper = make(TrainConfig(accumulate=accumulate), LossConfig(eta=0))
        found: list[torch.Tensor] = []
        watch(stepper, lambda gradients, found=found: found.extend(g.clone() for g in gradients))
        torch.manual_seed(0)
        stepper(inputs, labels[:8], 0.0, last=True)
        gradients.append(found)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_several_processes_are_started_by_torchrun(
    pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["--data", str(pedestrians), "--out", str(tmp_path / "run")]
    for verb, more in (("search", []), ("retrain", ["--backbone", "resnet18"])):
        assert main([verb, *words, *more]) == 2
        assert "WORLD_SIZE is set and RANK is not: start several processes with torchrun" in capsys.readouterr().err
