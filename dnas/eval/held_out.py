"""Images of identities that a network was not trained on, looked at in many epochs: embedded once a look."""

from __future__ import annotations

from functools import cached_property

from torch.nn import functional as F

from dnas.data.images import Images
from dnas.eval.embed import Distance, embed
from dnas.eval.information import Probe
from dnas.eval.ranking import Ranking, rank
from dnas.nn.reid_net import ReIDNet


class HeldOut:
    """How good networks are on one set of images.

    Args:
        images: every one is a query among all the others.
        beta: inverse temperature of the information's assignment.
        distance, flip_average: as in `dnas.eval.embed.embed`.
    """

    def __init__(self, images: Images, beta: float, distance: Distance = "cosine", flip_average: bool = False) -> None:
        self.images, self.beta, self.distance, self.flip_average = images, beta, distance, flip_average

    @cached_property
    def probe(self) -> Probe:
        """Its input side is computed at the first look that wants it."""
        return Probe(self.images, self.beta)

    def look(self, network: ReIDNet, informed: bool = True) -> tuple[Ranking, dict[str, float]]:
        """Retrieval, and the information bottleneck (empty unless `informed`), from one embedding."""
        embedding_ND = embed(network, self.images, distance=self.distance, flip_average=self.flip_average)
        ids = (self.images.pids, self.images.camids)
        ranking = rank(embedding_ND, embedding_ND, ids, ids, self.distance)
        return ranking, self.probe(F.normalize(embedding_ND, dim=1)) if informed else {}
