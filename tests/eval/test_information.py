"""The information of a set of images: against the definitions on whole matrices, and what a look computes anew."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.data.images import Images
from dnas.eval import information
from dnas.eval.information import probe
from dnas.loss.ibb import UNIFORM_SHARE, bound, information_bottleneck


def images(n: int = 30, identities: int = 5, distractors: int = 0) -> Images:
    g = torch.Generator().manual_seed(0)
    pids = np.concatenate([np.zeros(distractors, np.int64), 7 + np.arange(n) % identities])
    labels = torch.from_numpy(np.unique(pids, return_inverse=True)[1])
    base = torch.randint(0, 256, (int(labels.max()) + 1, 8, 4, 3), generator=g)
    noise = torch.randint(-60, 60, (len(pids), 8, 4, 3), generator=g)
    pixels = (base[labels] + noise).clamp(0, 255).to(torch.uint8)
    return Images(pixels, torch.arange(len(pids)), labels, pids, np.arange(len(pids)) % 3)


def assignment(features_ND: Tensor, labels_N: Tensor, beta: float) -> Tensor:
    """phi by plain distances to the normalised class means."""
    means = [F.normalize(features_ND[labels_N == k].mean(0), dim=0) for k in range(int(labels_N.max()) + 1)]
    return torch.stack([-beta * (features_ND - mean).square().sum(1) for mean in means], 1).softmax(1)


def perplexed(inputs_ND: Tensor, labels_N: Tensor) -> Tensor:
    """phi(X) at the beta where its mean entropy is half of log C, by bisection."""
    low, high = 1e-3, 1e6
    for _ in range(80):
        middle = math.sqrt(low * high)
        phi = assignment(inputs_ND, labels_N, middle)
        above = float(torch.special.entr(phi).sum(1).mean()) > 0.5 * math.log(phi.shape[1])
        low, high = (middle, high) if above else (low, middle)
    return phi


@pytest.mark.parametrize("distractors", [0, 4])
def test_it_is_the_definition(distractors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(information, "CHUNK", 35)  # seven rows at a time
    found_images = images(distractors=distractors)
    embedding = F.normalize(torch.randn(len(found_images), 6) + 2 * F.one_hot(found_images.labels, 6), dim=1)
    found = probe(embedding, found_images, 1.5)
    clean = images()
    embedding, y = embedding[distractors:].double(), clean.labels
    pixels = torch.cat(list(found_images.batches(64, torch.device("cpu"))))[distractors:]
    phi_f = assignment(embedding, y, 1.5)
    phi_x = perplexed(F.normalize(pixels.flatten(1).double(), dim=1), y)
    expected = {name: float(value) for name, value in information_bottleneck(phi_f, phi_x, y).items()}
    q = torch.stack([phi_f[y == k].mean(0) for k in range(5)])
    log_q = (q + UNIFORM_SHARE * (1 / 5 - q)).log()[y]
    entropy_x = float(torch.special.entr(phi_x).sum(1).mean())
    expected["tight bound"] = float(bound(phi_f.log(), log_q, tight=True))
    paper = float(bound(phi_f.log(), log_q)) - entropy_x + float(torch.special.entr(phi_x.mean(0)).sum())
    expected["paper bound + H(X)"] = paper
    expected["H(F)"] = float(torch.special.entr(phi_f.mean(0)).sum())
    for name, value in expected.items():
        assert found[name] == pytest.approx(value / math.log(5), abs=1e-6), name
    assert found["perplexity"] == pytest.approx(float(torch.special.entr(phi_f).sum(1).mean().exp()), abs=1e-9)
    assert found["identities"] == 5


def test_one_identity_and_images_all_alike() -> None:
    one = images(identities=1)
    assert probe(F.normalize(torch.randn(30, 4), dim=1), one, 1.0)["I(F;Y)"] == pytest.approx(0, abs=1e-9)
    alike = images()
    alike.pixels.fill_(9)
    found = probe(F.normalize(torch.randn(30, 4), dim=1), alike, 1.0)
    assert found["I(F;X)"] == pytest.approx(0, abs=1e-6)
    assert all(math.isfinite(value) for value in found.values())
