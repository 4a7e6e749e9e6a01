"""Pictures of a trained network at work: attention, Grad-CAM, channels, ranked lists, the embedding, distances.

From its run folder, its checkpoint and the images of its data set, after the fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from dnas.data.images import Images, normalise
from dnas.data.splits import ReIDData, check_matches, together
from dnas.draw.attention import ChannelUse, Maps, draw_channels, draw_maps
from dnas.draw.retrieval import Hit, RankedList, draw_distances, draw_plane, draw_ranked
from dnas.errors import UserError
from dnas.eval.embed import embed
from dnas.eval.ranking import rank
from dnas.nn.sites import Site, sites_of
from dnas.nn.vit import Block
from dnas.run.device import Device
from retrain.load import TrainedRun, load
from retrain.sites import channel_use, entering, grid_of, position_maps, selection_by_place

MOST_POINTS = 2000
"""Images in a picture of the embedding."""
MOST_PAIRS = 1_000_000
"""Pairs of different identities whose distance is drawn."""
MOST_IMAGES = 2000
"""Images over which the use of channels is averaged."""
MOST_COLUMNS = 8
"""Sites of attention in one picture (a transformer has one in every block: then some of them)."""


class Look:
    """A trained run with query and gallery of its data set (or of another), embedded once when that is needed.

    Raises:
        UserError: not a retraining, or no data to look at.
    """

    def __init__(
        self, path: str | Path, data: str | None = None, device: Device = "auto", space: str | None = None
    ) -> None:
        self.run: TrainedRun = load(path, device, space)
        self.data: ReIDData = self.run.data(data)
        check_matches(self.data.query, self.data.gallery, "query and gallery")
        self.queries = len(self.data.query)

    ranks = True
    """Whether there are queries to rank a gallery for."""
    aim = "nearest match"
    """What an image should be similar to."""

    @property
    def name(self) -> str:
        """What tells this run from others: its folder and the weight of the bound."""
        return f"{self.run.folder.path.name}, eta {self.run.config.loss.eta:g}"

    @cached_property
    def sites(self) -> list[Site]:
        """The attention of the network."""
        return sites_of(self.run.network)

    @property
    def has_cameras(self) -> bool:
        """Whether it is known which camera took an image."""
        return self.data.protocol.known

    @property
    def attends(self) -> bool:
        """Whether there are attention maps to look at."""
        return any(site.module.over_positions for site in self.sites)

    @property
    def weighs_channels(self) -> bool:
        """Whether there are channels to look at."""
        return any(bool(site.module.channel_word) for site in self.sites)

    @cached_property
    def images(self) -> Images:
        """The queries, then the gallery."""
        return self.run.decode(together(self.data.query, self.data.gallery))

    @cached_property
    def embedding(self) -> Tensor:
        config = self.run.config
        return embed(self.run.network, self.images, distance=config.distance, flip_average=config.flip_average)

    def _distances(self, rows: Sequence[int]) -> Tensor:
        """From some of the images to all of the gallery."""
        own, gallery = self.embedding[list(rows)], self.embedding[self.queries :]
        return 1 - own @ gallery.T if self.run.config.distance == "cosine" else torch.cdist(own, gallery)

    def pixels(self, number: int) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self.images.pixels[int(self.images.rows[number])].numpy()
        return found

    def input(self, numbers: Sequence[int]) -> Tensor:
        """Images as the network takes them."""
        rows = self.images.rows[torch.tensor(list(numbers))]
        device = next(self.run.network.parameters()).device
        return normalise(self.images.pixels.index_select(0, rows).to(device))

    @cached_property
    def precisions(self) -> NDArray[np.float64]:
        """Average precision of every query."""
        ids = self.images.ids
        query, gallery = ((ids[0][part], ids[1][part]) for part in (slice(self.queries), slice(self.queries, None)))
        parts = self.embedding[: self.queries], self.embedding[self.queries :]
        return rank(*parts, query, gallery, self.run.config.distance).ap

    def chosen(self, count: int) -> list[int]:
        """Queries that have a match, of as many identities as there are, always the same ones."""
        valid = np.flatnonzero(~np.isnan(self.precisions))
        return valid[np.linspace(0, len(valid) - 1, min(count, len(valid))).astype(int)].tolist()  # type: ignore[no-any-return]

    def label(self, number: int) -> str:
        return f"identity {self.images.pids[number]}" + self._camera(number)

    def _camera(self, number: int) -> str:
        return f", camera {self.images.camids[number]}" if self.has_cameras else ""

    def ranked(self, count: int = 6, top: int = 10, best: bool = False) -> Figure:
        """Ranked lists, the worst (or best) queries first."""
        order = np.argsort(np.nan_to_num(self.precisions, nan=2.0) * (-1 if best else 1), kind="stable")
        order = order[~np.isnan(self.precisions[order])][:count]
        lists, (pids, sources) = [], self.images.ids
        for query, distance_G in zip(order.tolist(), self._distances(order.tolist()).cpu(), strict=True):
            g = slice(self.queries, None)
            junk_G = (pids[g] == pids[query]) & (sources[g] == sources[query])
            distance_G = distance_G.masked_fill(torch.from_numpy(junk_G), torch.inf)
            nearest = distance_G.topk(min(top, int((~junk_G).sum())), largest=False)
            hits = [
                Hit(
                    self.pixels(self.queries + place), distance,
                    int(self.images.camids[self.queries + place]) if self.has_cameras else None,
                    bool(pids[self.queries + place] == pids[query]),
                )
                for distance, place in zip(nearest.values.tolist(), nearest.indices.tolist(), strict=True)
            ]  # fmt: skip
            title = f"query{self._camera(query)}\nAP {100 * self.precisions[query]:.1f} %"
            lists.append(RankedList(self.pixels(query), title, hits))
        return draw_ranked(lists)

    def distances(self) -> Figure:
        """Histograms of same and different identities, over pairs of a query and a gallery image of another source."""
        rng = np.random.default_rng(0)
        (pids, sources), n = self.images.ids, self.queries
        per_query = max(MOST_PAIRS // n, 1)
        same, different = [], []
        for start in range(0, n, 256):
            rows = range(start, min(start + 256, n))
            for query, distance in zip(rows, self._distances(rows).cpu().double().numpy(), strict=True):
                other = sources[n:] != sources[query]
                same.append(distance[other & (pids[n:] == pids[query])])
                rest = np.flatnonzero(other & (pids[n:] != pids[query]))
                different.append(distance[rng.choice(rest, min(per_query, len(rest)), replace=False)])
        return draw_distances(
            np.concatenate(same), np.concatenate(different), self.run.config.distance, self.data.protocol.said
        )

    def plane(self, method: str = "tsne") -> Figure:
        """The embedding of query and gallery in a plane: t-SNE (van der Maaten and Hinton, 2008) or PCA."""
        keep = np.flatnonzero(self.images.pids != 0)  # distractors are no identity
        keep = np.random.default_rng(0).permutation(keep)[:MOST_POINTS]
        points = self.embedding[torch.from_numpy(keep).to(self.embedding.device)].cpu().double()
        if method == "tsne" and len(points) > 3:
            from sklearn.manifold import TSNE
            from threadpoolctl import threadpool_limits

            tsne = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), init="pca", random_state=0)
            with threadpool_limits(1):  # a thousand tiny steps: threads would wait for each other
                places = tsne.fit_transform(points.numpy())
        else:
            centred = points - points.mean(0)
            places = (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T).numpy()
        how = "t-SNE" if method == "tsne" else "PCA"
        camids = self.images.camids[keep] if self.has_cameras else None
        return draw_plane(places, self.images.pids[keep], camids, how)

    def channels(self) -> Figure:
        """Which channels every site selects or weighs, by channel, identity, camera and place.

        Raises:
            UserError: the network has no attention on channels.
        """
        network, sites = self.run.network, self.sites
        kept = np.random.default_rng(0).permutation(len(self.images))[:MOST_IMAGES]
        batch = min((site.module.at_once for site in sites), default=MOST_IMAGES)
        found: dict[int, list[Tensor]] = {}
        places: dict[int, list[Tensor]] = {}
        with torch.no_grad():
            for start in range(0, len(kept), batch):
                with entering([site.module for site in sites]) as given:
                    network.embed(self.input(kept[start : start + batch].tolist()))
                for number, (site, entered) in enumerate(zip(sites, given, strict=True)):
                    use = channel_use(site, entered[0])
                    if use is not None:
                        found.setdefault(number, []).append(use.cpu())
                    place = selection_by_place(network, site, entered[0])
                    if place is not None:
                        places.setdefault(number, []).append(place.cpu())
        if not found:
            raise self._without("on channels (selective, dcs, se, eca, cbam_channel, channel)")
        uses = [
            ChannelUse(
                sites[number].name,
                torch.cat(parts).double().numpy(),
                sites[number].module.gates_channels,
                sites[number].module.channel_word,
                torch.cat(places[number]).double().mean(0).numpy() if number in places else None,
            )
            for number, parts in found.items()
        ]
        return draw_channels(uses[:MOST_COLUMNS], self.images.pids[kept], self.images.camids[kept])

    def _without(self, what: str) -> UserError:
        return UserError(f"{self.run.folder.path}: {self.run.model.name} has no attention {what}")

    def attention_maps(self, numbers: Sequence[int], token: tuple[float, float], prefix: str = "") -> list[Maps]:
        """What each site that works on positions does to some images.

        Raises:
            UserError: the network has no such site.
        """
        network = self.run.network
        sites = [site for site in self.sites if site.module.over_positions]
        if not sites:
            raise self._without("on positions (dcs, non_local, cbam_spatial)")
        if len(sites) > MOST_COLUMNS:
            sites = [sites[n] for n in np.linspace(0, len(sites) - 1, MOST_COLUMNS).astype(int)]
        with torch.no_grad(), entering([site.module for site in sites]) as given:
            network.embed(self.input(numbers))
        columns = []
        for site, entered in zip(sites, given, strict=True):
            maps = position_maps(network, site, entered[0], token).cpu().double().numpy()
            columns.append(Maps(f"{prefix}{site.name}", list(maps), _middle(site, entered[0], token)))
        return columns

    def wanted(self, numbers: Sequence[int]) -> Tensor:
        """The vectors (B, D) that some images should be similar to: unit vectors of their nearest matches."""
        (pids, sources), n = self.images.ids, self.queries
        targets = []
        for query, distance_G in zip(numbers, self._distances(numbers).cpu(), strict=True):
            match = torch.from_numpy((pids[n:] == pids[query]) & (sources[n:] != sources[query]))
            targets.append(int(distance_G.masked_fill(~match, torch.inf).argmin()) + n)
        with torch.no_grad():
            return self.run.network.embed(self.input(targets))

    def grad_cam(self, numbers: Sequence[int], title: str) -> Maps:
        """How much every position adds to the similarity of an image to what it should be similar to.

        Gradient times activation of the last map that has positions (in a transformer, the patches before the last
        block), as in Grad-CAM (arXiv 1610.02391), position by position as in HiResCAM (arXiv 2011.08891). What belongs
        to no position (the neck's mean) is spread evenly, so that the sum is the similarity; after mean pooling that
        is exact. Negative parts are cut off.
        """
        network, wanted_BD = self.run.network, self.wanted(numbers)
        grid = grid_of(network)
        parts: list[nn.Module] = list(network.backbone.children())
        if grid is not None:  # the last block mixes the patches into the class token: before it they still count
            parts = [*[module for module in network.modules() if isinstance(module, Block)][-2:-1]]
        kept: list[Tensor] = []

        def keep(module: nn.Module, given: object, out: Tensor) -> None:
            if out.requires_grad and (grid is not None or out.shape[2] * out.shape[3] > 1):
                out.retain_grad()
                kept.append(out)

        hooks = [part.register_forward_hook(keep) for part in parts]
        try:
            raw_BD = network.raw(self.input(numbers))
            similarity_B = (raw_BD * wanted_BD).sum(1) / raw_BD.detach().norm(dim=1)
            similarity_B.sum().backward()
        finally:
            for hook in hooks:
                hook.remove()
            network.zero_grad(set_to_none=True)
        map_ = kept[-1]
        assert map_.grad is not None
        parts_BHW = (map_.grad * map_).detach()
        parts_BHW = parts_BHW.sum(1) if grid is None else parts_BHW[:, 1:].sum(2).unflatten(1, grid)
        rest_B = similarity_B.detach() - parts_BHW.sum((1, 2))
        weighed = (parts_BHW + rest_B[:, None, None] / parts_BHW[0].numel()).relu()
        return Maps(title, list(weighed.cpu().double().numpy()))


def _middle(site: Site, x: Tensor, token: tuple[float, float]) -> tuple[float, float] | None:
    """The middle of the position that looks; none where no single one does."""
    looking = site.module.looking(x, token)
    if looking is None:
        return None
    row, col = ((number + 0.5) / size for number, size in zip(looking, x.shape[2:], strict=True))
    return row, col


def draw_attention(looks: Sequence[Look], count: int, token: tuple[float, float]) -> Figure:
    """Attention maps of some queries, of one run or of several side by side."""
    first = looks[0]
    numbers = first.chosen(count)
    columns = [
        column
        for look in looks
        for column in look.attention_maps(numbers, token, f"{look.name}\n" if len(looks) > 1 else "")
    ]
    return draw_maps([first.pixels(n) for n in numbers], [first.label(n) for n in numbers], columns)


def draw_grad_cam(looks: Sequence[Look], count: int) -> Figure:
    """Grad-CAM of some queries, of one run or of several side by side."""
    first = looks[0]
    numbers = first.chosen(count)
    columns = [look.grad_cam(numbers, f"similarity to its {look.aim}\n{look.name}") for look in looks]
    return draw_maps([first.pixels(n) for n in numbers], [first.label(n) for n in numbers], columns)
