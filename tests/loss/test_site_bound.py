"""The bound on what attention puts out: against plain loops, and small enough for very many identities."""

import math

import pytest
import torch

from dnas.errors import UserError
from dnas.loss.ibb import information_bottleneck, log_assignment
from dnas.loss.objective import LossConfig, Objective
from dnas.loss.site_bound import DIM, SiteBounds, SiteStatistics

C, D = 5, 7


def followed(dim: int = D, rounds: int = 6) -> tuple[SiteStatistics, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    site = SiteStatistics(C, dim, beta=3.0).double()
    for _ in range(rounds):
        features, labels = torch.randn(8, dim, dtype=torch.float64), torch.randint(0, C - 1, (8,))
        site.update(site.projected(features), labels)
    return site, features, labels


@pytest.mark.parametrize("tight", [False, True])
def test_equals_loops(tight: bool) -> None:
    site, features, labels = followed()
    known = [c for c in range(C) if bool(site.known_C[c])]
    assert C - 1 not in known  # never seen: no centroid, probability zero
    centroids = {c: site.centroid_sum_CP[c] / site.centroid_sum_CP[c].norm() for c in known}

    def phi(unit: torch.Tensor) -> dict[int, float]:
        weight = {c: math.exp(-3.0 * float(((unit - centre) ** 2).sum())) for c, centre in centroids.items()}
        return {c: value / sum(weight.values()) for c, value in weight.items()}

    total = 0.0
    for feature, label in zip(features, labels, strict=True):
        own = phi(feature / feature.norm())
        q = {c: (1 - 1e-6) * value + 1e-6 / C for c, value in phi(centroids[int(label)]).items()}
        total += sum(p * ((math.log(p) if tight else 0.0) - math.log(q[c])) for c, p in own.items())
    found = site.bound(site.projected(features), labels, tight)
    assert float(found) == pytest.approx(total / len(labels), rel=1e-6)


def test_centroids_are_moving_averages_over_the_visits_of_an_identity() -> None:
    site = SiteStatistics(C, 2, momentum=0.5)
    east, north = torch.tensor([[3.0, 0], [0, 2.0]])
    site.update(site.projected(torch.stack([east, north, east])), torch.tensor([1, 1, 2]))
    site.update(site.projected(torch.stack([north])), torch.tensor([2]))
    assert site.centroid_sum_CP[1].tolist() == pytest.approx([0.25, 0.25])
    assert site.centroid_sum_CP[2].tolist() == pytest.approx([0.25, 0.5])
    assert site.known_C.tolist() == [False, True, True, False, False]


def test_it_is_a_bound_on_the_exact_value() -> None:
    """The tight form bounds IB, as for every Q."""
    site, features, labels = followed()
    phi_f = log_assignment(site.projected(features), torch.nn.functional.normalize(site.centroid_sum_CP, dim=1), 3.0,
                           site.known_C).exp()  # fmt: skip
    for _ in range(20):
        phi_x = torch.randn(8, 4, dtype=torch.float64).mul(3).softmax(1)
        exact = information_bottleneck(phi_f, phi_x, labels)["IB"]
        assert float(exact) <= float(site.bound(site.projected(features), labels, tight=True)) + 1e-12


def test_a_projection_keeps_distances_and_is_made_again_from_its_number() -> None:
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(30, 2048), dim=1)
    first, again, other = (SiteStatistics(2, 2048, number=n) for n in (3, 3, 4))
    found = first.projected(features)
    assert found.shape == (30, DIM)
    assert torch.equal(found, again.projected(features))
    assert not torch.equal(found, other.projected(features))
    assert float((found @ found.T - features @ features.T).abs().max()) < 0.3
    assert "project_DP" not in first.state_dict()


def test_ten_thousand_identities_at_four_sites_add_less_than_a_hundred_megabytes() -> None:
    state = SiteBounds(10_000, (256, 512, 1024, 2048), None).state_dict()
    assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) < 50e6


class Result(tuple):  # type: ignore[type-arg]
    """What a network gives, with its sites."""

    stages: tuple[torch.Tensor, ...]


def result(sites: int) -> Result:
    torch.manual_seed(1)
    found = Result((torch.randn(8, D), torch.randn(8, D), torch.randn(8, C)))
    found.stages = tuple(torch.randn(8, D, requires_grad=True) for _ in range(sites))
    return found


def test_which_terms_the_objective_has() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    for on, terms in (("embedding", {"ibb"}), ("attention", {"ibb_attention"}), ("both", {"ibb", "ibb_attention"})):
        objective = Objective(LossConfig(eta=0.5, eta_warmup=0.5, ibb_on=on), C, D, (D, D))  # type: ignore[arg-type]
        assert {"ibb", "ibb_attention"}.isdisjoint(objective(result(2), labels, 0.1))  # asleep, but it follows
        output = result(2)
        found = objective(output, labels, 0.9)
        assert {name for name in found if name.startswith("ibb")} == terms
        if "ibb_attention" in found:
            found["ibb_attention"].backward()
            assert all(bool(site.grad.any()) for site in output.stages)  # type: ignore[union-attr]
            assert objective.sites is not None
            each = [s.bound(s.projected(p), labels, False) for s, p in zip(objective.sites, output.stages, strict=True)]
            assert float(found["ibb_attention"].detach()) == pytest.approx(0.5 * float(sum(each).detach()) / 2)
    assert not any("sites" in name for name in Objective(LossConfig(), C, D, (D,)).state_dict())
    Objective(LossConfig(ibb_on="attention"), C, D, (D,)).statistics.refresh(torch.randn(8, D), labels)  # unused
    with pytest.raises(UserError, match=r"loss\.ibb_on: found both, this network has no stages"):
        Objective(LossConfig(ibb_on="both"), C, D)
