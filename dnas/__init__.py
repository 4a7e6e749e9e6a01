"""Differentiable architecture search with informative attention for person re-identification.

    import dnas

    folder = dnas.run_retraining(dnas.RetrainConfig(data="market", out="runs/x", backbone="resnet50"))
    run = dnas.load("runs/x")                       # or an exported file: dnas.load("net.onnx")
    vectors = run.embed(["a.jpg", "b.png"])         # (2, D), float32
    gallery = dnas.Gallery.open("gallery", run)     # made by dnas index
    matches = gallery.find("a.jpg", k=10)

Importing this package is quick: torch comes with the first of these names that is used. (`dnas.search` is the package
of the search engine; the calls that start something are `run_search` and `run_retraining`.)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnas.search.config import SearchConfig as SearchConfig
    from dnas.serve.gallery import Gallery as Gallery
    from dnas.serve.gallery import Match as Match
    from dnas.serve.load import load as load
    from dnas.serve.network import Embedder as Embedder
    from dnas.serve.runs import run_retraining as run_retraining
    from dnas.serve.runs import run_search as run_search
    from retrain.config import RetrainConfig as RetrainConfig

    __version__: str

_WHERE = {
    "Embedder": "dnas.serve.network",
    "Gallery": "dnas.serve.gallery",
    "Match": "dnas.serve.gallery",
    "RetrainConfig": "retrain.config",
    "SearchConfig": "dnas.search.config",
    "load": "dnas.serve.load",
    "run_retraining": "dnas.serve.runs",
    "run_search": "dnas.serve.runs",
}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from dnas.version import own_version

        return own_version()
    if name not in _WHERE:
        raise AttributeError(f"module 'dnas' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
