"""Options that held-out data cannot tell apart are equal, not undecided."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dnas.search.equal import MOST, rivals
from dnas.space.spec import Decision
from dnas.task.task import Each

KNOWN = {key: Decision(key, ("x", "y", "z")) for key in ("alike", "better", "decided")}
P = {
    "alike": torch.tensor([0.36, 0.33, 0.31]),
    "better": torch.tensor([0.33, 0.31, 0.36]),
    "decided": torch.tensor([0.9, 0.05, 0.05]),
}


def test_a_choice_is_held_against_its_likeliest_rival() -> None:
    rng, asked = np.random.default_rng(0), []
    base = rng.uniform(size=200)
    noise = rng.normal(size=200)

    def recalibrated(choices: dict[str, Any]) -> dict[str, Any]:
        asked.append(choices)
        return choices

    def each(network: dict[str, Any]) -> Each:
        score_N = base + (network["alike"] == "y") * 0.1 * noise - (network["better"] != "z") * (0.1 + 0.05 * noise)
        return Each(score_N, np.arange(200) // 4)

    choices = {"alike": "x", "better": "z", "decided": "x"}
    children, task = SimpleNamespace(recalibrated=recalibrated), SimpleNamespace(each=each)
    found = rivals(["alike", "better"], KNOWN, P, choices, children, task)  # type: ignore[arg-type]
    assert asked == [choices, {**choices, "alike": "y"}, {**choices, "better": "x"}]
    assert found["alike"].equal
    assert not found["better"].equal
    assert found["better"].plain()["other"] == "x"
    assert abs(found["better"].difference.mean - 0.1) < 0.02
    assert rivals([], KNOWN, P, choices, children, task) == {}  # type: ignore[arg-type]
    assert len(asked) == 3


def test_the_least_decided_come_first() -> None:
    known = {f"k{n}": Decision(f"k{n}", ("x", "y")) for n in range(MOST + 5)}
    p = {key: torch.tensor([0.5 + 0.001 * n, 0.5 - 0.001 * n]) for n, key in enumerate(known)}
    children = SimpleNamespace(recalibrated=lambda choices: choices)
    task = SimpleNamespace(each=lambda network: Each(np.ones(5), np.arange(5)))
    found = rivals(list(reversed(known)), known, p, dict.fromkeys(known, "x"), children, task)  # type: ignore[arg-type]
    assert list(found) == [f"k{n}" for n in range(MOST)]
