"""Embedding, exported networks and galleries, each beside what it can be at best.

    python tools/bench/serve.py [--images 512] [--vectors 1000000] [--files 50000] [--json]

Keys: embed_over_forward (images/s of embedding JPEG files of 256x128 over the bare forward pass on prepared tensors),
onnx_over_torch (images/s, from uint8 pixels), find_ms_100k and numpy_ms_100k (one query in 100,000 x 512, exact, and
numpy's matrix product with a partial sort), recall_1m and approx_over_exact_1m (recall at 10 and speed of one query in
--vectors clustered ones; both 1 where a graph does not pay), build_s_1m, add_per_s, mb_per_10k_images (slope of the
peak memory from a fifth of --files to all of them, with a network that costs nothing).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import interleaved, ratio

from dnas.data.images import normalise
from dnas.nn.backbones import backbone
from dnas.nn.reid_net import ReIDNet
from dnas.serve import nearest
from dnas.serve.embed import embed_listing
from dnas.serve.export import write
from dnas.serve.exportable import Exportable, traced
from dnas.serve.exported import onnx_network
from dnas.serve.gallery import Gallery
from dnas.serve.graph import Approximate, build
from dnas.serve.interface import Interface
from dnas.serve.listing import list_pictures
from dnas.serve.network import Embedder, Network, Pixels, TorchNetwork, Vectors
from dnas.serve.prepare import Prepare
from dnas.serve.store import Row
from dnas.space.spec import image

HEIGHT, WIDTH, DIM = 256, 128, 512


def interface(prepared: bool = True) -> Interface:
    return Interface("0" * 64, "resnet18", HEIGHT, WIDTH, DIM, "cosine", False, prepared=prepared)


@dataclass(frozen=True)
class People:
    """How vectors lie.

    Args:
        pictures: of a person, about: 26 in the galleries of Market-1501 and MSMT17, and in the demonstration's.
        dims: the dimensions that strangers differ in (participation ratio); similarities of strangers then spread by
            dims^-0.5. 12 in the demonstration's gallery; infinite: all of them, which is the worst for any index.
    """

    pictures: int
    dims: float


class Free:
    """A network that costs nothing."""

    interface, source = interface(), Path("free")

    def stream(self, batches: Iterator[Pixels]) -> Iterator[Vectors]:
        for pixels in batches:
            yield np.full((len(pixels), DIM), DIM**-0.5, np.float32)


def photographs(folder: Path, count: int, distinct: int = 32) -> None:
    """JPEG crops of 256x128 about as large as those of a published set; hard links to a few."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for k in range(count):
        file = folder / f"{k:06}.jpg"
        if k < distinct:
            coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
            coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(file, quality=90)
        else:
            os.link(folder / f"{k % distinct:06}.jpg", file)


def clustered(people: People, count: int, seed: int = 0) -> Vectors:
    """Unit vectors of so many pictures."""
    rng = np.random.default_rng(seed)
    spread = np.exp(-np.arange(DIM, dtype=np.float32) / people.dims)
    centres = np.random.default_rng(0).standard_normal((count // people.pictures + 1, DIM), np.float32)
    found = np.empty((count, DIM), np.float32)
    for start in range(0, count, 50_000):
        part = slice(start, min(start + 50_000, count))
        who = rng.integers(0, len(centres), part.stop - start)
        found[part] = (centres[who] + 0.7 * rng.standard_normal((part.stop - start, DIM), np.float32)) * spread
        found[part] /= np.linalg.norm(found[part], axis=1, keepdims=True)
    return found


def embedding(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Files against prepared tensors, onnxruntime against torch."""
    photographs(folder / "photographs", count)
    listing = list_pictures([str(folder / "photographs")])
    net = ReIDNet(backbone("resnet18"), image(HEIGHT, WIDTH), 10).eval()
    cpu = torch.device("cpu")
    in_torch = TorchNetwork(Exportable(net), interface(), Path("torch"), cpu)
    file = folder / "net.onnx"
    with_preparation = Exportable(net, prepare=Prepare(HEIGHT, WIDTH)).requires_grad_(False).eval()
    write(traced(with_preparation, HEIGHT, WIDTH), interface(), file)
    in_onnx = onnx_network(file, "cpu")
    pixels = np.stack([np.asarray(Image.open(path)) for path in listing.paths[:64]])
    prepared = normalise(torch.from_numpy(pixels))
    batches = max(count // 64, 1)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(batches):
                in_torch.net(prepared)

    def from_files() -> None:
        embed_listing(Embedder(in_torch), listing, folder / "vectors.npz")

    def through(network: Network) -> None:
        for _ in network.stream(iter([pixels] * batches)):
            pass

    seconds = interleaved(
        {"forward": forward, "embed": from_files, "torch": lambda: through(in_torch), "onnx": lambda: through(in_onnx)},
        rounds,
    )
    share = 64 * batches / count
    return {
        "embed_over_forward": ratio(seconds["forward"], seconds["embed"])[0] / share,
        "onnx_over_torch": ratio(seconds["torch"], seconds["onnx"])[0],
    }


def exact(people: People, rounds: int) -> dict[str, float]:
    """One query in 100,000 vectors."""
    vectors = clustered(people, 100_000)
    query = clustered(people, 100_000, seed=1)[:1]
    index = nearest.Exact(vectors, "cosine")

    def by_numpy() -> None:
        near = vectors @ query[0]
        near[np.argpartition(near, -10)[-10:]].sort()

    seconds = interleaved({"ours": lambda: index.search(query, 10), "numpy": by_numpy}, rounds * 5)
    return {f"{name}_ms_100k": 1e3 * float(np.median(seconds[key])) for name, key in
            (("find", "ours"), ("numpy", "numpy"))}  # fmt: skip


def approximate(people: People, count: int, rounds: int) -> dict[str, float]:
    """Recall and speed of the graph, on queries that are not in it."""
    vectors, queries = clustered(people, count), clustered(people, count, seed=1)[:200].copy()
    ids = np.arange(count)
    start = time.perf_counter()
    graph = build(ids, vectors, "cosine")
    build_s = time.perf_counter() - start
    whole = nearest.Exact(vectors, "cosine")
    found = Approximate(graph, ids, vectors, "cosine") if graph.pays else whole
    truth, near = whole.search(queries, 10)[1], found.search(queries, 10)[1]
    same = [len({*a} & {*b}) / 10 for a, b in zip(truth.tolist(), near.tolist(), strict=True)]
    one = [queries[k : k + 1] for k in range(5)]
    seconds = interleaved(
        {
            "exact": lambda: [whole.search(query, 10) for query in one],
            "found": lambda: [found.search(query, 10) for query in one],
        },
        rounds,
    )
    faster = ratio(seconds["exact"], seconds["found"])[0]
    return {"recall_1m": float(np.mean(same)), "approx_over_exact_1m": faster, "build_s_1m": build_s}


def adding(folder: Path, people: People) -> dict[str, float]:
    vectors = clustered(people, 20_000)
    gallery = Gallery.create(folder / "gallery", Embedder(Free()))
    rows = [Row(f"/pictures/{k:07}.jpg", {"identity": k // 5, "camera": k % 6}) for k in range(len(vectors))]
    start = time.perf_counter()
    for first in range(0, len(vectors), 4096):
        gallery.add_vectors(rows[first : first + 4096], vectors[first : first + 4096])
    return {"add_per_s": len(vectors) / (time.perf_counter() - start)}


PEAK = """
import resource, sys
sys.path.insert(0, sys.argv[3])
import serve
from pathlib import Path
listing = serve.list_pictures([sys.argv[1]])
serve.embed_listing(serve.Embedder(serve.Free()), listing, Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def memory(folder: Path, files: int) -> dict[str, float]:
    """Peak memory of a process that embeds so many files, over one with a fifth of them."""
    peaks = []
    for count in (files // 5, files):
        photographs(folder / str(count), count)
        words = [str(folder / str(count)), str(folder / f"{count}.npz"), str(Path(__file__).parent)]
        done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.splitlines()[-1]))
    return {"mb_per_10k_images": (peaks[1] - peaks[0]) / (files - files // 5) * 10_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--pictures", type=int, default=26, help="of a person")
    parser.add_argument("--dims", type=float, default=64, help="that strangers differ in; inf: all of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    people = People(options.pictures, options.dims)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = embedding(folder, options.images, options.rounds)
        found |= exact(people, options.rounds)
        found |= adding(folder, people)
        found |= memory(folder, options.files)
        found |= approximate(people, options.vectors, options.rounds)
    table = Table("what", "measured", title=f"{torch.get_num_threads()} threads; {options.vectors:,} vectors as '1m'")
    for key, value in found.items():
        table.add_row(key, f"{value:,.3f}")
    Console().print(table)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
