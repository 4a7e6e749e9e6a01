"""What a query may be matched with: the part of the evaluation protocol that is the data's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dnas.data.hashes import content_hashes
from dnas.errors import UserError

Cameras = Literal["auto", "other", "ignore"]
"""A setting: `auto` is `other` where the data say which camera took an image, and `ignore` where they do not."""


@dataclass(frozen=True)
class Protocol:
    """What is left out of the gallery of a query.

    Args:
        cameras: `other`: images of the query's identity by the query's own camera (Market-1501): what counts is another
            camera. `ignore`: the query's own image (its very bytes), nothing else: leave one out, where query and
            gallery are the same.
        known: whether the data say which camera took an image.
    """

    cameras: Literal["other", "ignore"] = "other"
    known: bool = True

    @staticmethod
    def of(wanted: Cameras, known: Sequence[tuple[str, bool]]) -> Protocol:
        """The protocol for data sets, each with whether it knows cameras.

        Raises:
            UserError: cameras are wanted where there are none, or some sets have them and some do not.
        """
        without = [name for name, has in known if not has]
        if wanted == "ignore" or (wanted == "auto" and len(without) == len(known) > 0):
            return Protocol("ignore", not without)
        if without:
            beside = "" if wanted == "other" else ", and other sets have"
            raise UserError(
                f"cameras: {without[0]} does not say which camera took an image{beside}; --cameras ignore ranks without"
            )
        return Protocol()

    @property
    def elsewhere(self) -> str:
        """Where a match lies, in words."""
        return "in another camera" if self.cameras == "other" else "in another image"

    @property
    def said(self) -> str:
        """The protocol in words."""
        return "across cameras" if self.cameras == "other" else "cameras ignored"

    def sources(self, files: Sequence[Path], camids: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number an image: a query has no match among images of its own number.

        Raises:
            UserError: a file cannot be read.
        """
        if self.cameras == "other":
            return camids
        hashes = np.frombuffer(b"".join(content_hashes(files)), np.uint8).reshape(-1, 32)
        return np.ascontiguousarray(hashes[:, :8]).view(np.int64)[:, 0]


ACROSS_CAMERAS = Protocol()
