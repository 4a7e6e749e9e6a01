"""Is the selection of channels alive, and moved by the data? What does it cost?

    python tools/bench/selection.py [--json] [--cell selective] [--steps 360] [--ids 480] [--seed 0] [--rounds 8]

ResNet-18 x0.25 with the cell after each stage, synthetic pedestrians of 64x32 pixels, batches of 64, a fifth of the
identities held out. Keys; of several sites the smallest value:

    theta_signal         cosine of what theta moved by in 100 steps (of the same tokens) on two disjoint halves of the
                         identities, less the mean of their cosines with runs on shuffled labels
    theta_decay          cosine of what theta moved by with weight decay and without
    gradient_over_old    |dL/dtheta|, mean of steps 1 to 20, over that of the cell `dcs` with the same seed and batches
    perplexity_low, perplexity_high    of the affinity's rows, as a share of the tokens, at the start: least, largest
    learned_over_random  held-out mAP with the learned masks minus that with random ones of equal share, in points
    step_over_open       seconds of a training step with the cell over the same with M = 1 (cell `unselective`)
    shares, depending    by site: channels open in inference; those open for some images and positions only

What theta moves by is taken from a network that has seen all the labels for 150 steps, the same one for all runs: of a
random network no feature tells anybody apart, and whatever moves theta then is not the labels. Each half goes on with
its own rows of the classifier (with all of them, the missing identities' logits fall, in opposite directions on the two
halves), and what theta moves by is the mean of sixteen runs, with batches, augmentation and masks drawn anew: most of
what a single run moves by is noise (they take half an hour of one core). With many identities, for those of a half
have to stand for all of them. Theta is that of the tokens at the start: the tokens themselves go on moving, alike
whatever the labels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import interleaved, interval
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.data.augment import Augmenter, InputConfig, draw
from dnas.data.images import Images, decode
from dnas.data.layouts import load_data
from dnas.data.sampler import PKSampler
from dnas.data.splits import hold_out
from dnas.data.synthetic import SynthConfig, synthesise
from dnas.eval.embed import embed, retrieve_within
from dnas.eval.selection import other_masks, replaced_masks, selection_report, selection_use, spaced
from dnas.loss.objective import LossConfig, Objective
from dnas.nn.attention import attention
from dnas.nn.backbones import backbone
from dnas.nn.channel_selection import ChannelSelection, set_temperature
from dnas.nn.reid_net import ReIDNet
from dnas.run.parameters import set_rate
from dnas.run.schedules import OptimConfig, geometric, make_optimiser
from dnas.space.spec import image

HEIGHT, WIDTH = 64, 32
EPOCHS = 30
EARLY, START, MOVED, REPEATS = 20, 150, 100, 16
"""Steps whose gradients are compared; before theta's way is watched, and on it; how many ways make a mean."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Lesson:
    """What a training is given; `steps` are those of its whole schedule."""

    images: Images
    steps: int
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(epochs=EPOCHS, lr=3e-3))
    shuffled: int | None = None

    @property
    def labels(self) -> Tensor:
        labels: Tensor = torch.unique(self.images.labels, return_inverse=True)[1]
        if self.shuffled is None:
            return labels
        return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.shuffled))]


class Training:
    """A network with one cell after each stage, and what trains it; a seed gives the same start whatever the lesson."""

    def __init__(self, cell: str, lesson: Lesson, seed: int) -> None:
        self.cell, self.lesson, self.labels, self.seed, self.steps_done = cell, lesson, lesson.labels, seed, 0
        classes, x = int(self.labels.max()) + 1, image(HEIGHT, WIDTH)
        spec = backbone("resnet18", 0.25, small=True, attention=lambda stage: attention(cell))
        torch.manual_seed(seed)
        self.net = ReIDNet(spec, x, classes)
        self.net.to(memory_format=torch.channels_last)
        self.objective = Objective(LossConfig(), classes, spec.out(x).channels.size)
        self.augment, optim = Augmenter(InputConfig()), lesson.optim
        self.optimiser = make_optimiser(self.net, optim, lesson.steps // EPOCHS)
        self.sampler = PKSampler(self.labels.numpy(), optim.identities, optim.images, seed)
        self.gradients: list[float] | None = None
        """Sums over the steps of |dL/dtheta|, by site, where they are wanted: it costs time."""

    def turned(self, lesson: Lesson, seed: int) -> Training:
        """A copy that goes on with another lesson, whose identities are some of these, and with an optimiser anew."""
        known, own = (torch.unique(images.labels) for images in (self.lesson.images, lesson.images))
        state = self.net.state_dict()
        state["classifier.weight"] = state["classifier.weight"][torch.searchsorted(known, own)]
        found = Training(self.cell, lesson, seed)
        found.net.load_state_dict(state)
        found.steps_done = self.steps_done
        return found

    def run(self, steps: int) -> Training:
        """So many steps of the schedule."""
        for _ in range(steps):
            self.step()
        return self

    def step(self) -> None:
        step, optim = self.steps_done, self.lesson.optim
        epoch, number = divmod(step, len(self.sampler))
        index = torch.from_numpy(self.sampler.epoch(epoch)[number])
        key = 100_000 * self.seed + step
        torch.manual_seed(1000 + key)
        batch = self.lesson.images.take(index, CPU)
        inputs = self.augment(batch, draw(len(index), torch.Generator().manual_seed(key)))
        at = step / self.lesson.steps
        self.net.train()
        tau = geometric(optim.dcs_temperature, optim.dcs_temperature_end, int(at * EPOCHS), EPOCHS)
        set_temperature(self.net, tau)
        watching = self.gradients is not None
        watched: AbstractContextManager[list[float]] = gradients_of_theta(self.net) if watching else nullcontext([])
        with watched as found:
            terms = self.objective(self.net(inputs), self.labels[index], at)
            self.optimiser.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
        if self.gradients is not None:
            self.gradients = [sum(pair) for pair in zip_longest(self.gradients, found, fillvalue=0.0)]
        set_rate(self.optimiser, optim.lr_at(at * EPOCHS), optim.warming(at * EPOCHS))
        self.optimiser.step()
        self.steps_done += 1


def selecting(net: ReIDNet) -> list[ChannelSelection]:
    return [module for module in net.modules() if isinstance(module, ChannelSelection)]


@contextmanager
def gradients_of_theta(net: ReIDNet) -> Iterator[list[float]]:
    """Filled at the end with the mean |dL/dtheta| of every site."""
    kept: list[Tensor] = []
    found: list[float] = []

    def watched(theta: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def keep(x_BNC: Tensor) -> Tensor:
            kept.append(theta(x_BNC))
            kept[-1].retain_grad()
            return kept[-1]

        return keep

    sites = selecting(net)
    for site in sites:
        site.theta = watched(site.theta)  # type: ignore[assignment]
    try:
        yield found
    finally:
        for site in sites:
            del site.theta
    found += [float(theta.grad.abs().mean()) for theta in kept if theta.grad is not None]


def tokens_of(net: ReIDNet, images: Images) -> list[Tensor]:
    """What every selection is given."""
    found: dict[nn.Module, list[Tensor]] = {site: [] for site in selecting(net)}
    hooks = [site.register_forward_pre_hook(lambda site, given: found[site].append(given[0])) for site in found]
    embed(net, images)
    for hook in hooks:
        hook.remove()
    return [torch.cat(parts) for parts in found.values()]


@torch.no_grad()
def theta_of(net: ReIDNet, tokens: Sequence[Tensor]) -> list[Tensor]:
    """Theta of every site, of these tokens."""
    return [site.theta(x_BNC).flatten() for site, x_BNC in zip(selecting(net), tokens, strict=True)]


def cosines(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[float]:
    return [float(F.cosine_similarity(a, b, dim=0)) for a, b in zip(first, second, strict=True)]


def signal(cell: str, whole: Lesson, seed: int) -> dict[str, list[float]]:
    """theta_signal, what it is the difference of, and theta_decay of every site."""
    train = whole.images
    start = Training(cell, whole, seed).run(START)
    tokens = tokens_of(start.net, spaced(train, 32))
    before = theta_of(start.net, tokens)

    def way(number: int, lessons: Sequence[Lesson]) -> list[Tensor]:
        """What theta of every site moves by, in the mean over lessons."""
        seeds = (1000 * seed + 100 * number + repeat for repeat in range(1, len(lessons) + 1))
        ends = [theta_of(start.turned(one, s).run(MOVED).net, tokens) for one, s in zip(lessons, seeds, strict=True)]
        return [torch.stack(parts).mean(0) - own for own, *parts in zip(before, *ends, strict=True)]

    first, second = (way(k, [replace(whole, images=train.subset(train.labels % 2 == k))] * REPEATS) for k in (0, 1))
    shuffled = way(2, [replace(whole, shuffled=repeat) for repeat in range(REPEATS)])
    plain, undecayed = (way(3, [replace(whole, optim=replace(whole.optim, weight_decay=decay))])
                        for decay in (whole.optim.weight_decay, 0.0))  # fmt: skip
    chance = [sum(pair) / 2 for pair in zip(cosines(first, shuffled), cosines(second, shuffled), strict=True)]
    halves = cosines(first, second)
    found = [own - other for own, other in zip(halves, chance, strict=True)]
    return {"theta_signal": found, "halves": halves, "shuffled": chance, "theta_decay": cosines(plain, undecayed)}


def gradients(cell: str, lesson: Lesson, seed: int) -> list[float]:
    found = []
    for name in (cell, "dcs"):
        training = Training(name, lesson, seed)
        training.gradients = []
        found.append(training.run(EARLY).gradients or [])
    return [new / old for new, old in zip(*found, strict=True)]


def masks(net: ReIDNet, held: Images) -> dict[str, float]:
    """Held-out mAP in percent with the learned masks and with others in their place."""
    found = {"learned": 100 * retrieve_within(net, held).metrics()["mAP"]}
    for name, replacement in other_masks(selection_use(net, held)).items():
        with replaced_masks(net, replacement):
            found[name] = 100 * retrieve_within(net, held).metrics()["mAP"]
    return found


def step_cost(cell: str, train: Images, rounds: int) -> tuple[float, float, float]:
    made = {name: Training(name, Lesson(train, 10_000), 0) for name in (cell, "unselective")}
    steps = {name: lambda training=training: training.run(4) for name, training in made.items()}
    seconds = interleaved(steps, rounds)
    return interval(seconds[cell], seconds["unselective"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", default="selective", help="a cell that selects channels")
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--ids", type=int, default=480)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cell = options.cell
    with tempfile.TemporaryDirectory() as folder:
        synthesise(SynthConfig(f"{folder}/pedestrians", ids=options.ids))
        rest, held = hold_out(load_data(f"{folder}/pedestrians", tested=False).train, 0.2, 0)
        train_images, held_images = decode(rest, HEIGHT, WIDTH), decode(held, HEIGHT, WIDTH)
    lesson = Lesson(train_images, options.steps)
    training = Training(cell, lesson, options.seed)
    start = selection_report(training.net, held_images)
    accuracy = masks(training.run(lesson.steps).net, held_images)
    end = selection_report(training.net, held_images)
    over_old = gradients(cell, lesson, options.seed)
    by_site = {"gradient_over_old": over_old, **signal(cell, lesson, options.seed)}
    perplexities = [use["perplexity"] for use in start.values()]
    middle, low, high = step_cost(cell, train_images, options.rounds)
    found: dict[str, Any] = {
        **{name: min(by_site[name]) for name in ("gradient_over_old", "theta_signal", "theta_decay")},
        "perplexity_low": min(perplexities),
        "perplexity_high": max(perplexities),
        "learned_over_random": accuracy["learned"] - accuracy["random"],
        "step_over_open": middle,
        "shares": [use["share"] for use in end.values()],
        "depending": [use["depending"] for use in end.values()],
        "held_out_mAP": accuracy,
    }
    title = f"{cell}, {lesson.steps} steps"
    table = Table("site", "perplexity at the start", "share", "depending", *by_site, title=title)
    for number, (name, use) in enumerate(end.items()):
        values = (
            perplexities[number],
            use["share"],
            use["depending"],
            *(column[number] for column in by_site.values()),
        )
        table.add_row(name, *(f"{value:.3g}" for value in values))
    console = Console(width=140)
    console.print(table)
    console.print(
        "held-out mAP (%) with masks: " + ", ".join(f"{name} {value:.1f}" for name, value in accuracy.items())
    )
    console.print(f"a step with selection over one with every channel: {middle:.3f} ({low:.3f}-{high:.3f})")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
