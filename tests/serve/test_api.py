"""The names of the package: quick to import, and the whole road from Python."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dnas
from dnas.data.augment import InputConfig
from dnas.run.schedules import OptimConfig
from dnas.version import own_version


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, dnas; print(dnas.__version__, sorted({'torch', 'numpy', 'PIL', 'faiss'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == [own_version(), "[]\n"]


def test_names() -> None:
    assert {*dnas.__all__} <= {*dir(dnas)}
    for name in dnas.__all__:
        assert getattr(dnas, name) is not None
    with pytest.raises(AttributeError, match="module 'dnas' has no attribute 'nothing'"):
        dnas.nothing  # noqa: B018


@pytest.mark.slow
def test_the_whole_road(pedestrians: Path, tmp_path: Path) -> None:
    """Retrain, load, embed, fill a gallery, find: a picture finds itself first."""
    size, optim = InputConfig(height=32, width=16), OptimConfig(identities=3, images=2, epochs=1)
    folder = dnas.run_retraining(
        dnas.RetrainConfig(
            str(pedestrians), str(tmp_path / "run"), backbone="resnet18", backbone_width=0.125, test=False,
            device="cpu", input=size, optim=optim,
        )
    )  # fmt: skip
    run = dnas.load(folder.path, "cpu")
    assert isinstance(run, dnas.Embedder)
    pictures = [str(file) for file in sorted((pedestrians / "query").glob("*.jpg"))]
    vectors = run.embed(pictures)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    dnas.Gallery.create(tmp_path / "gallery", run).add(pictures)
    gallery = dnas.Gallery.open(tmp_path / "gallery")  # finds its network by itself
    for picture, [match] in zip(pictures, gallery.find(pictures, k=1), strict=True):
        assert match.similarity == pytest.approx(1, abs=1e-5)
        assert match.path == picture
    search = dnas.run_search(
        dnas.SearchConfig(
            data=str(pedestrians), out=str(tmp_path / "search"), space="tiny_reid_ca", holdout=0.4, device="cpu",
            input=size, optim=OptimConfig(identities=3, images=2, epochs=1),
        )
    )  # fmt: skip
    assert search.genotype_file.is_file()
