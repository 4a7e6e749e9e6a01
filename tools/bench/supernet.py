"""What searching costs: width holes, operation choices, and a whole search step.

    python tools/bench/supernet.py [--json] [--rounds N] [--device cpu|cuda]

Training steps (draw, forward, backward, Adam), variants interleaved in random order in one process; every ratio with a
95 % interval, and a control: the reference against itself. Keys: width_over_plain (fbnetv2_reid_dcs with width holes
over its widest plain network), sampled8_over_one (a choice of 8 options, one drawn, over that operation alone),
sampled16_over_sampled2, full8_over_one, switch_over_one (a step of weights and logits with one alternative over a
plain one), sampled8_memory_over_one (parameters, optimiser state and what a step holds),
step_images_per_s (a whole search step on tiny_reid at 128 x 64, of the default mode: weights, logits, bound and cost).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from timing import held_mb, interleaved, interval

from dnas.data.synthetic import SynthConfig, synthesise
from dnas.nn.builder import PlainBuilder
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.nn.inverted_residual import InvertedResidual
from dnas.nn.network import Output
from dnas.run import seeds
from dnas.search.budget import Budget
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.estimators import ESTIMATORS
from dnas.search.estimators.estimator import Estimator
from dnas.search.relaxation import Relaxation
from dnas.search.search import Search
from dnas.search.supernet import SupernetBuilder
from dnas.space.holes import Shape
from dnas.space.spec import Builder, OneOf, Space, Spec, decisions, fill, image
from search_spaces import SPACES

Step = Callable[[], None]


class Training:
    """A training step of a network, open or closed."""

    def __init__(
        self, spec: Spec, x: Shape, batch: int, device: torch.device, mode: str = "sampled", last: bool = True
    ):
        torch.manual_seed(0)
        self.device = device
        known = decisions(spec)
        self.estimator: Estimator | None = None
        builder: Builder = PlainBuilder()
        if known:
            relaxation = Relaxation(known).to(device)
            builder = SupernetBuilder(relaxation.draw, share=False)
            space = Space("bench", spec, x.height, x.width)
            self.estimator = ESTIMATORS[mode](relaxation, Budget(BudgetConfig(), space), ArchConfig(mode))
        self.format = torch.channels_last if last else torch.contiguous_format
        self.net = spec.build(x, builder).to(device, memory_format=self.format)  # type: ignore[call-overload]
        self.images = torch.randn(batch, 3, x.height, x.width, device=device).contiguous(memory_format=self.format)
        self.optimiser = torch.optim.Adam(self.net.parameters())
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self) -> None:
        if self.estimator is not None:
            self.estimator.draw(1, 1.0, self.generator)
            self.estimator.use(0, gradient=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.net(self.images).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def memory_mb(self) -> float:
        """Parameters, optimiser state and the most that a step holds beyond them."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self()
            return torch.cuda.max_memory_allocated() / 1e6
        held = held_mb(self)
        state = [v for values in self.optimiser.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
        tensors: list[torch.Tensor] = [*self.net.parameters(), *state]
        return held + sum(t.numel() * t.element_size() for t in tensors) / 1e6


def choices(options: int, blocks: int = 4) -> Spec:
    """Blocks that are each a choice between `options` equal operations; with one option, those operations."""
    block = InvertedResidual(32, kernel=3, expand=6, residual=True)
    many = [OneOf(f"block{b}", {str(k): block for k in range(options)}) for b in range(blocks)]
    return Chain((ConvNormAct(32, 3, 2), *(many if options > 1 else [block] * blocks)))


def widths(rounds: int, device: torch.device, found: dict[str, float], table: Table) -> None:
    """(a) width holes against the widest plain network, and the memory layouts."""
    size, batch = ((256, 128), 64) if device.type == "cuda" else ((128, 64), 8)
    space = SPACES["fbnetv2_reid_dcs"].resized(*size)
    widest = {key: max(decision.options) for key, decision in decisions(space.spec).items()}
    plain = fill(space.spec, widest)
    variants: dict[str, Step] = {
        "plain": Training(plain, space.input, batch, device),
        "control": Training(plain, space.input, batch, device),
        "holes": Training(space.spec, space.input, batch, device),
        "holes, contiguous": Training(space.spec, space.input, batch, device, last=False),
    }
    seconds = interleaved(variants, rounds)
    name = f"fbnetv2_reid_dcs {size[0]}x{size[1]} x {batch}"
    row(table, f"{name}: plain / plain (control)", seconds["control"], seconds["plain"])
    found["width_over_plain"] = row(table, f"{name}: width holes / plain", seconds["holes"], seconds["plain"])
    row(table, f"{name}: contiguous / channels-last", seconds["holes, contiguous"], seconds["holes"])


def operations(rounds: int, device: torch.device, found: dict[str, float], table: Table) -> None:
    """(b) choices between operations against one operation."""
    x, batch = image(64, 32), 256 if device.type == "cuda" else 32
    variants: dict[str, Training] = {
        "one": Training(choices(1), x, batch, device),
        "control": Training(choices(1), x, batch, device),
        **{f"sampled {n}": Training(choices(n), x, batch, device) for n in (2, 8, 16)},
        "full 8": Training(choices(8), x, batch, device, "full"),
        "switch 8": Training(choices(8), x, batch, device, "switch"),
    }
    seconds = interleaved(variants, rounds)
    row(table, "one operation / one operation (control)", seconds["control"], seconds["one"])
    found["sampled8_over_one"] = row(table, "8 options, sampled / one", seconds["sampled 8"], seconds["one"])
    found["sampled16_over_sampled2"] = row(
        table, "16 options / 2 options, sampled", seconds["sampled 16"], seconds["sampled 2"]
    )
    found["switch_over_one"] = row(table, "8 options, switch, joint / one", seconds["switch 8"], seconds["one"])
    found["full8_over_one"] = row(table, "8 options, full / one", seconds["full 8"], seconds["one"])
    memory = {name: variants[name].memory_mb() for name in ("one", "sampled 8", "full 8")}
    found["sampled8_memory_over_one"] = memory["sampled 8"] / memory["one"]
    for name in ("sampled 8", "full 8"):
        table.add_row(f"memory: {name} / one ({memory['one']:.0f} MB)", f"{memory[name] / memory['one']:.2f}", "", "")


def row(table: Table, name: str, above: list[float], below: list[float]) -> float:
    middle, low, high = interval(above, below)
    table.add_row(name, f"{middle:.3f}", f"{low:.3f} - {high:.3f}", f"{1e3 * median(below):.0f}")
    return middle


@contextlib.contextmanager
def search_state(mode: str, device: torch.device) -> Iterator[Search]:
    """A search on synthetic pedestrians, ready to step."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        synthesise(SynthConfig(str(data), ids=48, cameras=3, images=2))
        config = SearchConfig(
            str(data), str(Path(folder) / "run"), device=device.type,
            arch=ArchConfig(mode=mode, prior=None), budget=BudgetConfig(macs="30M"),
        )  # fmt: skip
        yield Search(config, SPACES["tiny_reid"])


def step_parts(state: Search) -> dict[str, Step]:
    """The parts of a step, and the whole, at the end of the schedules (so that the bound is awake)."""
    at = 0.99 * state.config.optim.epochs
    generator = seeds.generator(0, "draw")
    state.begin_epoch(0, 0)
    state.net.train()
    inputs, labels = next(state.task.batches("weights", 0))
    inputs = inputs.clone()  # the next batch takes its place
    held, held_labels = next(state.task.batches("logits", 0))

    def sample() -> None:
        state.estimator.draw(1, 1.0, generator)
        state.estimator.use(0)

    def logits() -> None:
        state.estimator.draw(1 + state.estimator.lessons, 1.0, generator)
        state.logits(held, held_labels, at)

    def weights() -> None:
        sample()
        state.stepper(inputs, labels, at, last=False)

    def whole() -> None:
        weights()
        logits()
        if state.device.type == "cuda":
            torch.cuda.synchronize()

    sample()
    output = state.net(inputs)

    def objective() -> None:
        leaves = Output(*(tensor.detach().requires_grad_() for tensor in output[:3]))
        torch.stack(list(state.task.objective(leaves, labels, 1.0).values())).sum().backward()

    return {
        "whole step": whole,
        "weights: forward, backward, Adam": weights,
        "logits": logits,
        "a batch: taken, augmented": lambda: void(next(state.task.batches("weights", 0))),
        "draw": sample,
        "losses with the bound, backward to the features": objective,
        "expected cost": lambda: void(state.budget.count.expected(state.relaxation.distribution())),
        "deriving (once an epoch)": lambda: void(state.budget.derive(state.relaxation)),
    }


def void(_: object) -> None:
    """Drop a value."""


def whole_step(rounds: int, device: torch.device, found: dict[str, float], console: Console) -> None:
    """(c) images per second of a whole step, with its parts."""
    modes = tuple(dict.fromkeys((ArchConfig().mode, "score", "sampled")))
    for mode in modes:
        with search_state(mode, device) as state:
            seconds = interleaved(step_parts(state), rounds)
            images = state.config.optim.identities * state.config.optim.images
            table = Table(title=f"a search step, {mode}: tiny_reid 128x64, batches of {images}")
            for title in ("part", "ms", "share"):
                table.add_column(title, justify="left" if title == "part" else "right")
            whole = median(seconds["whole step"])
            for part, times in seconds.items():
                table.add_row(part, f"{1e3 * median(times):.1f}", f"{median(times) / whole:.1%}")
            console.print(table)
            console.print(f"{images / whole:.0f} training images per second")
            if mode == modes[0]:
                found["step_images_per_s"] = images / whole


def main() -> None:
    parser = argparse.ArgumentParser(description="What searching costs.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    device, console = torch.device(options.device), Console(width=120)
    found: dict[str, float] = {}
    table = Table(title=f"training steps on {device.type}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    for title in ("variant", "ratio", "95 % interval", "reference (ms)"):
        table.add_column(title, justify="left" if title == "variant" else "right")
    operations(options.rounds, device, found, table)
    widths(max(options.rounds // 2, 2), device, found, table)
    console.print(table)
    whole_step(max(options.rounds // 4, 2), device, found, console)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
