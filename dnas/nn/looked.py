"""What pictures can be made of an attention module: it says so itself.

A module of a new attention cell derives from `Looked` and overrides what it can show; nothing else needs to know it.
Shapes: B batch, N tokens, C channels, H W.
"""

from __future__ import annotations

from torch import Tensor, nn

from dnas.nn.channel_selection import ChannelSelection

Grid = tuple[int, int]
"""Patches along height and width."""
Token = tuple[float, float]
"""Row and column of a position, both 0 to 1."""


class Looked(nn.Module):
    """An attention module that can be looked at. In every method `x` is what entered it.

    `grid` is that of the patches where the network is a vision transformer, else none.
    """

    over_positions = False
    """Whether there is a map over the picture to look at (`position_map`)."""
    channel_word = ""
    """What `channel_use` measures, for the axis of a picture; empty where all channels are treated alike."""
    gates_channels = False
    """Whether `channel_use` are gates (0 to 2, one where nothing is done); else shares (0 to 1)."""
    at_once = 64
    """Images that are looked at together: fewer where what is looked at is large."""

    @property
    def selection(self) -> ChannelSelection | None:
        """What selects channels in it, if anything does."""
        return None

    def position_map(self, x: Tensor, token: Token, grid: Grid | None) -> Tensor:
        """Where the position `token` looks, or what every position is multiplied by (B, H', W')."""
        raise NotImplementedError(f"{type(self).__name__} has no map over positions")

    def looking(self, x: Tensor, token: Token) -> tuple[int, int] | None:
        """Row and column of the one position of `x` that looks; none where no single one does."""
        return None

    def channel_use(self, x: Tensor) -> Tensor | None:
        """What is done to every channel (B, C); none where all are treated alike."""
        opened_BNC = self.opened(x)
        return None if opened_BNC is None else opened_BNC.mean(1)

    def opened(self, x: Tensor) -> Tensor | None:
        """Which channels it opens (1) at every token in inference (B, N, C); none where it does not select."""
        return None

    def queries_and_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What its affinity is the softmax of the products of (.., N, C) and (.., K, C), scales included."""
        raise NotImplementedError(f"{type(self).__name__} compares nothing")

    def by_place(self, values_BN: Tensor, x: Tensor, grid: Grid | None) -> Tensor:
        """A value for every token, laid out as its picture is (B, H', W')."""
        found: Tensor = values_BN.unflatten(1, x.shape[2:])
        return found


def place(token: Token, height: int, width: int) -> tuple[int, int]:
    """Row and column of a position in a map of this size."""
    row, col = (min(int(share * size), size - 1) for share, size in zip(token, (height, width), strict=True))
    return row, col
