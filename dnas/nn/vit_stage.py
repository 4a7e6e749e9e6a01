"""A stage of a vision transformer with any attention cell: channel selection inside its blocks, others on the patches.

Only the class token leaves the network: what a cell does to the patches after the last block is lost. In the last
stage it therefore works before the last block, which carries it into the class token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dnas.nn.chain import Chain, Skip
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.patch_cell import PatchCell
from dnas.nn.selective_attention import SelectiveAttention
from dnas.nn.vit import TransformerStage
from dnas.space.spec import OneOf, Spec


def stage_parts(blocks: TransformerStage, cell: Spec, last: bool) -> tuple[Spec, ...]:
    """The parts of a stage with `cell`, one that is open too: two holes of one key then share the decision.

    Args:
        blocks: those of the stage, without selection.
        last: whether no block comes after this stage.
    """
    outside = on_patches(cell)
    if isinstance(outside, Skip):
        return (inside(blocks, cell),)
    if not last:
        return inside(blocks, cell), outside
    before = replace(blocks, blocks=blocks.blocks - 1)
    final = replace(blocks, index=blocks.index + before.blocks, blocks=1)
    return (*([inside(before, cell)] if before.blocks else []), outside, inside(final, cell))


def inside(blocks: TransformerStage, cell: Spec) -> Spec:
    """The blocks with the selection that `cell` stands for, or without any."""
    if isinstance(cell, OneOf):
        return _each(cell, lambda option: inside(blocks, option))
    if isinstance(cell, SelectiveAttention):
        return replace(blocks, select=True, kind="selective")
    return replace(blocks, select=isinstance(cell, DCSAttention))


def on_patches(cell: Spec) -> Spec:
    """What of `cell` works between the blocks: nothing of a selection, which is inside them."""
    if isinstance(cell, OneOf):
        return _each(cell, on_patches)
    return Skip() if isinstance(cell, Skip | DCSAttention | SelectiveAttention) else PatchCell(cell)


def _each(cell: OneOf, change: Callable[[Spec], Spec]) -> Spec:
    """Every option changed; where that makes all of them alike, nothing is open."""
    options = {name: change(option) for name, option in cell.options.items()}
    first = next(iter(options.values()))
    return first if all(option == first for option in options.values()) else OneOf(cell.key, options)


def cell_of(stage: Chain) -> Spec | None:
    """The attention cell of a filled stage of any backbone, `Skip` if it has a place without one, none without a place.

    It is the last part; in a vision transformer inside the blocks or between them.
    """
    cells = [part.cell for part in stage.parts if isinstance(part, TransformerStage | PatchCell)]
    cells = cells or [stage.parts[-1]]
    found = next((cell for cell in cells if cell.attention), cells[-1])
    return found if found.attention or found.idle else None
