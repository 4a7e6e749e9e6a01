"""Person re-identification: P x K batches, retrieval of held-out identities, query and gallery at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dnas.data.images import Images
from dnas.data.layouts import load_data
from dnas.data.sampler import PKSampler
from dnas.data.splits import check_matches, hold_out, split_images, together
from dnas.eval.embed import Distance, embed
from dnas.eval.measure import RETRIEVAL
from dnas.eval.ranking import Ranking, rank
from dnas.eval.retrieval import PER_QUERY, retrieve, save_ranking
from dnas.eval.threshold import calibrate
from dnas.nn.network import Network
from dnas.nn.reid_net import ReIDNet
from dnas.run.files import read_column
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Spec
from dnas.task.images import ImageTask, Parts
from dnas.task.task import LOGIT_SHARE, Each


class ReIDTask(ImageTask):
    """Identities never seen decide."""

    measure = RETRIEVAL

    @classmethod
    def network(cls, spec: Spec, x: Shape, classes: int, builder: Builder | None = None) -> Network:
        return ReIDNet(spec, x, classes, builder)

    def parts(self) -> Parts:
        config, needs = self.config, self.needs
        bad = config.input.on_bad_image
        data = load_data(config.data, needs.test_on, tested=needs.tested, on_bad_image=bad, cameras=config.cameras)
        rest, held = hold_out(data.train, config.holdout, config.held_by)
        self.deciding = check_matches(held, held, "held-out identities") if len(held) else 0
        if needs.tested:
            check_matches(data.query, data.gallery, "query and gallery")
        self.data, self.query, self.gallery = data, data.query, data.gallery
        weights, logits = split_images(rest, LOGIT_SHARE, config.seed) if needs.logits else (rest, rest)
        return Parts(weights, logits, held, data.fingerprint)

    def indices(self, images: Images, epoch: int) -> NDArray[np.int64]:
        optim = self.config.optim
        return PKSampler(images.labels.numpy(), optim.identities, optim.images, self.config.seed).epoch(epoch)

    def judge(self, network: Network, images: Images) -> tuple[dict[str, float], Tensor]:
        ranking, embedding_ND = self._within(network, images)
        return ranking.metrics(), embedding_ND

    def each(self, network: Network) -> Each:
        assert self.held_out is not None
        return Each(self._within(network, self.held_out)[0].ap, np.asarray(self.held_out.pids))

    def _within(self, network: Network, images: Images) -> tuple[Ranking, Tensor]:
        """Every image is a query among all others of the set."""
        distance, flip_average = self.distance
        embedding_ND = embed(network, images, distance=distance, flip_average=flip_average)
        return rank(embedding_ND, embedding_ND, images.ids, images.ids, distance), embedding_ND

    def tested(self) -> Images:
        """The queries, then the gallery."""
        return self.decode(together(self.query, self.gallery))

    def test(self, network: Network, folder: Path | None = None) -> dict[str, Any]:
        images = self.tested()
        ranking, embedding_ND = retrieve(network, images, len(self.query), *self.distance)
        if folder is not None:
            save_ranking(folder / PER_QUERY, ranking, self.query)
        return {
            "test": ranking.metrics(),
            "queries_without_match": int((~ranking.valid).sum()),
            "information": {"test": self.probe("test", images, embedding_ND)},
        }

    def thresholds(self, network: Network) -> dict[str, Any] | None:
        return None if self.held_out is None else calibrate(network, self.held_out, *self.distance)

    @staticmethod
    def scores(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Average precision and identity of every query."""
        return read_column(folder / PER_QUERY, "ap"), read_column(folder / PER_QUERY, "pids")

    @property
    def distance(self) -> tuple[Distance, bool]:
        """What embeddings are compared by, and whether they are means with those of the mirror image."""
        wanted = self.needs.protocol or {}
        return wanted.get("distance", "cosine"), wanted.get("flip_average", False)

    def protocol(self) -> dict[str, Any]:
        distance, flip_average = self.distance
        return {"distance": distance, "flip_average": flip_average, "cameras": self.data.protocol.cameras}

    def said(self) -> str:
        known = f"{self.classes} training"
        if self.held_out is None:
            return f"{known} identities"
        decided = f"{self.deciding} queries, {self.data.protocol.said}"
        return f"{known} and {self.held_out.classes} held-out identities ({decided})"

    def headline(self, metrics: Mapping[str, float]) -> str:
        ignored = " (cameras ignored)" if self.data.protocol.cameras == "ignore" else ""
        return super().headline(metrics) + ignored
