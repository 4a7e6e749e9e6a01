"""The tables of a report: results, configurations, where a run comes from."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dnas.draw.page import Cell, Code, Item, Table, Text
from dnas.run.config import flat
from dnas.run.folder import RunFolder
from dnas.task import pick_task


def as_dict(content: object) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


def _cell(value: object) -> Cell:
    """A value of a configuration or result."""
    if isinstance(value, bool) or value is None:
        return Cell({True: "true", False: "false", None: "-"}[value], word=True)
    if isinstance(value, int | float):
        return Cell(f"{value:,}" if isinstance(value, int) else f"{value:.6g}", float(value))
    return Cell(str(value), word=True)


def pairs_table(title: str, rows: Mapping[str, object], folded: bool = False) -> Table:
    return Table(
        title, ("", "value"), [(Cell(key, word=True), _cell(value)) for key, value in rows.items()], folded=folded
    )


def sortable_table(title: str, caption: str, rows: Sequence[Mapping[str, str]]) -> Table:
    """A sortable table from cells of text; the number that a cell begins with is what it is sorted by."""

    def cell(text: str) -> Cell:
        first = text.split(" ")[0].replace(",", "")
        try:
            number = float(first)
        except ValueError:
            return Cell(text, word=True)
        return Cell(text, number if math.isfinite(number) else None)

    return Table(title, list(rows[0]), [[cell(text) for text in row.values()] for row in rows], caption, sortable=True)


def _percent(value: object) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "-"


def _interval(found: Mapping[str, Any], value: str, percent: bool = False) -> str | None:
    """A number with its 95 % interval; none where the file has none."""
    numbers = [found.get(key) for key in (value, "low", "high")]
    if not all(isinstance(number, int | float) for number in numbers):
        return None
    middle, low, high = ((100 if percent else 1) * float(number) for number in numbers if number is not None)
    places = 1 if percent else 2
    return f"{middle:+.{places}f} [{low:+.{places}f}, {high:+.{places}f}]"


def search_summary(folder: RunFolder, found: Mapping[str, Any]) -> Table:
    genotype = as_dict(folder.json("genotype.json"))
    cost, budget = as_dict(genotype.get("cost")), as_dict(found.get("budget"))
    entropy, fidelity = as_dict(found.get("entropy")), as_dict(found.get("fidelity"))
    equal = as_dict(found.get("health")).get("equal")
    asked = f"{fidelity.get('networks')} random networks, {fidelity.get('epochs')} epochs each" if fidelity else ""
    metric = str(found.get("metric", "mAP"))
    rows: dict[str, object] = {
        "space": genotype.get("space"),
        "decisions": len(as_dict(genotype.get("choices"))),
        "epochs": f"{found.get('epochs')} of {found.get('of_epochs')}",
        "budget": ", ".join(f"{key} {value:,.0f}" if value else "none" for key, value in budget.items()),
        "multiply-accumulates of the network": cost.get("macs"),
        "parameters": cost.get("params"),
        f"held-out {metric}, derived network": _percent(as_dict(found.get("held_out")).get(metric)),
        f"held-out {metric}, supernet": _percent(as_dict(found.get("held_out_supernet")).get(metric)),
        "derived by": _derived(as_dict(found.get("options")), metric),
        "mean entropy (1: undecided)": sum(entropy.values()) / max(len(entropy), 1) if entropy else None,
        "choices whose options are equal on held-out data": len(equal) if isinstance(equal, list) else None,
        "with inherited weights, above": _standing(as_dict(found.get("standing"))),
        "held against short trainings of their own": asked or "no (dnas fidelity, --verify)",
    }
    if fidelity:
        rows["supernet's verdict and theirs (Spearman)"] = _interval(as_dict(fidelity.get("correlation")), "value")
        rows[f"above the mean random network ({fidelity.get('metric')})"] = _interval(
            as_dict(fidelity.get("gain")), "mean", percent=True
        )
    return pairs_table("What was found", rows)


def _derived(options: Mapping[str, Any], metric: str) -> str:
    explained = options.get("explained")
    if not isinstance(explained, int | float):
        return "the logits"
    return f"options: they explain {explained:.0%} of the held-out {metric} of random networks"


def _standing(found: Mapping[str, Any]) -> str | None:
    others, own = found.get("others"), found.get("found")
    if not isinstance(others, list) or not isinstance(own, int | float):
        return None
    below = sum(isinstance(other, int | float) and other < own for other in others)
    return f"{below} of {len(others)} {found.get('peers')}"


def results_table(summary: Mapping[str, Any], cost: Mapping[str, Any]) -> Table:
    test, held = as_dict(summary.get("test")), as_dict(summary.get("held_out"))
    measure = pick_task(str(summary.get("task", "reid"))).measure
    information, latency = as_dict(summary.get("information")), as_dict(cost.get("latency"))
    rows: dict[str, object] = {
        "model": summary.get("model"),
        "start": summary.get("start"),
        "seed": summary.get("seed"),
        "evaluated": summary.get("evaluated"),
        **{name: _percent(test.get(key)) for key, name in measure.names.items() if key in test},
        **({f"held-out {measure.name}": _percent(held.get(measure.key))} if held else {}),
        "multiply-accumulates": cost.get("macs"),
        "parameters": cost.get("params"),
        "latency of one image (ms)": latency.get("median_ms"),
        **{f"IB, {part} (log classes)": as_dict(values).get("IB") for part, values in information.items()},
    }  # fmt: skip
    return pairs_table("Results", rows)


def selection_table(selection: Mapping[str, Any]) -> Table:
    """What every channel selection did in inference at the end."""
    rows = [
        {
            "site": site,
            "channels open": _percent(as_dict(use).get("share")),
            "open for some images and positions only": _percent(as_dict(use).get("depending")),
            "perplexity of the affinity": _percent(as_dict(use).get("perplexity")),
        }
        for site, use in selection.items()
    ]
    return sortable_table("What attention selects", "perplexity as a share of the tokens", rows)


def origin(folder: RunFolder) -> list[Item]:
    """Configuration, data, environment, and a command that makes the run again."""
    config, data = folder.config(), as_dict(folder.json("data.json"))
    rows = {key: value for key, value in flat(data).items() if key != "left_out"}
    left_out = data.get("left_out")
    rows |= {"images left out": len(left_out)} if isinstance(left_out, list) else {}
    return [
        Text("The command that makes it again:"),
        Code(command_of(folder)),
        pairs_table("Configuration", flat(config), folded=True),
        pairs_table("Data and its fingerprint", rows, folded=True),
        pairs_table("Environment", as_dict(folder.json("env.json")), folded=True),
    ]


def command_of(folder: RunFolder) -> str:
    """What makes the run again, in a new folder."""
    config = folder.config()
    words = ["dnas", folder.verb(), "--config", str(folder.config_file), "--out", "NEW"]
    space = config.get("space")
    return shlex.join([*words, *(["--space", space] if isinstance(space, str) and space.endswith(".py") else [])])
