"""What a task is judged by, in words and keys: what tables, pictures and cards say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """The numbers of a task.

    Args:
        key: of the number that decides, a share from 0 to 1: mAP, top1.
        names: key -> what a person calls it, for every number that is a share; the important ones first.
        unseen: what is held out: identities, images.
        tested: what is looked at once, at the end.
        resampled: what the intervals of a comparison resample.
        purpose: what the network is for.
    """

    key: str
    names: Mapping[str, str]
    unseen: str
    tested: str
    resampled: str
    purpose: str

    @property
    def name(self) -> str:
        """Of the number that decides."""
        return self.names[self.key]

    @property
    def shown(self) -> list[str]:
        """Keys of the two numbers that a comparison shows."""
        return list(self.names)[:2]


RETRIEVAL = Measure(
    "mAP",
    {"mAP": "mAP", "rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"},
    unseen="identities",
    tested="query and gallery",
    resampled="query identities",
    purpose="re-identification",
)
CLASSIFICATION = Measure(
    "top1",
    {"top1": "top-1", "mean_class": "mean over classes"},
    unseen="images",
    tested="test images",
    resampled="test images",
    purpose="image classification",
)
