"""The bound and the exact information bottleneck against plain loops, and the inequalities as properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from dnas.loss.ibb import ClassStatistics, bound, default_beta, information_bottleneck, log_assignment
from dnas.loss.objective import LossConfig, Objective
from dnas.nn.network import Output


def plain_information(phi_f: Tensor, phi_x: Tensor, y: Tensor) -> tuple[float, float]:
    """I(F~; X~) and I(F~; Y) by their definitions."""
    n, c_f, c_x = len(y), phi_f.shape[1], phi_x.shape[1]
    classes = sorted(set(y.tolist()))
    p_f = [sum(float(phi_f[i, a]) for i in range(n)) / n for a in range(c_f)]
    with_x = with_y = 0.0
    for a in range(c_f):
        for b in range(c_x):
            joint = sum(float(phi_f[i, a] * phi_x[i, b]) for i in range(n)) / n
            p_b = sum(float(phi_x[i, b]) for i in range(n)) / n
            with_x += joint * math.log(joint / (p_f[a] * p_b)) if joint > 0 else 0.0
        for label in classes:
            joint = sum(float(phi_f[i, a]) for i in range(n) if y[i] == label) / n
            p_y = sum(1 for i in range(n) if y[i] == label) / n
            with_y += joint * math.log(joint / (p_f[a] * p_y)) if joint > 0 else 0.0
    return with_x, with_y


def test_exact_information_equals_plain_loops() -> None:
    y = torch.tensor([0, 2, 2, 1, 0, 2])
    phi_f, phi_x = (torch.randn(6, 3, dtype=torch.float64).mul(3).softmax(1) for _ in range(2))
    with_x, with_y = plain_information(phi_f, phi_x, y)
    found = information_bottleneck(phi_f, phi_x, y)
    assert float(found["I(F;X)"]) == pytest.approx(with_x, abs=1e-12)
    assert float(found["I(F;Y)"]) == pytest.approx(with_y, abs=1e-12)
    assert float(found["IB"]) == pytest.approx(with_x - with_y, abs=1e-12)


def test_assignment_equals_plain_distances() -> None:
    f, c = (F.normalize(torch.randn(n, 8, dtype=torch.float64), dim=1) for n in (5, 3))
    expected = torch.stack([torch.stack([-4.0 * ((fi - ca) ** 2).sum() for ca in c]).softmax(0) for fi in f])
    torch.testing.assert_close(log_assignment(f, c, 4.0).exp(), expected)


@pytest.mark.parametrize("tight", [False, True])
def test_bound_equals_plain_loops(tight: bool) -> None:
    phi, q = (torch.randn(n, 4, dtype=torch.float64).softmax(1) for n in (6, 4))
    y = torch.tensor([0, 1, 2, 3, 1, 1])
    total = 0.0
    for i in range(6):
        for a in range(4):
            total -= float(phi[i, a]) * math.log(float(q[y[i], a]))
            total += float(phi[i, a]) * math.log(float(phi[i, a])) if tight else 0.0
    assert float(bound(phi.log(), q.log()[y], tight)) == pytest.approx(total / 6, abs=1e-12)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**31), n=st.integers(1, 12), c=st.integers(1, 6), scale=st.sampled_from([0.01, 1.0, 8.0, 60.0])
)
def test_ib_below_tight_below_paper(seed: int, n: int, c: int, scale: float) -> None:
    """IB <= tight <= paper + H(X~) for every phi, Q and y; empty classes and n = 1 included."""
    g = torch.Generator().manual_seed(seed)
    log_f, log_x, log_q = (
        (torch.randn(rows, c, generator=g, dtype=torch.float64) * scale).log_softmax(1) for rows in (n, n, c)
    )
    y = torch.randint(c, (n,), generator=g)
    ib = float(information_bottleneck(log_f.exp(), log_x.exp(), y)["IB"])
    tight = float(bound(log_f, log_q[y], tight=True))
    marginal = log_x.exp().mean(0)
    first = -float(torch.special.entr(log_x.exp()).sum(1).mean())
    paper = first + float(bound(log_f, log_q[y])) + float(torch.special.entr(marginal).sum())
    assert ib <= tight + 1e-9
    assert tight <= paper + 1e-9


def test_gradient_of_both_forms() -> None:
    features = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    centroids = F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1)
    log_q = torch.randn(4, 4, dtype=torch.float64).log_softmax(1)
    y = torch.tensor([0, 1, 2, 3, 0])
    for tight in (False, True):

        def loss(f: Tensor, tight: bool = tight) -> Tensor:
            return bound(log_assignment(F.normalize(f, dim=1), centroids, 5.0), log_q[y], tight)

        assert torch.autograd.gradcheck(loss, (features,))


def test_the_first_term_has_no_gradient() -> None:
    """The paper's bound as written, with its double sum over B x C x C, has the gradient of our part of it."""
    features = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    centroids = F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1)
    log_q, phi_x = (
        torch.randn(4, 4, dtype=torch.float64).log_softmax(1),
        torch.randn(5, 4, dtype=torch.float64).softmax(1),
    )
    y = torch.tensor([0, 1, 2, 3, 0])
    phi_f = log_assignment(F.normalize(features, dim=1), centroids, 5.0).exp()
    first = (phi_f[:, :, None] * phi_x[:, None, :] * phi_x.log()[:, None, :]).sum((1, 2)).mean()
    assert float(torch.autograd.grad(first, features, retain_graph=True)[0].abs().max()) < 1e-15
    whole = first - (phi_f * log_q[y]).sum(1).mean()
    expected = torch.autograd.grad(whole, features)[0]
    ours = bound(log_assignment(F.normalize(features, dim=1), centroids, 5.0), log_q[y])
    torch.testing.assert_close(torch.autograd.grad(ours, features)[0], expected)


def test_float32_under_autocast() -> None:
    objective = Objective(LossConfig(eta=1.0, eta_warmup=0.0), identities=3, dim=8)
    features, y = torch.randn(6, 8, requires_grad=True), torch.arange(3).repeat(2)
    terms = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            terms.append(objective(Output(features, features, torch.randn(6, 3)), y, 1.0, follow=not enabled)["ibb"])
    assert terms[1].dtype == torch.float32
    torch.testing.assert_close(terms[1], terms[0], rtol=0, atol=0)


def test_refresh_gives_class_means_and_mean_assignments() -> None:
    statistics = ClassStatistics(4, 6, beta=3.0)
    features, y = torch.randn(10, 6), torch.tensor([0, 0, 1, 1, 1, 3, 3, 3, 3, 0])  # identity 2 is absent
    statistics.refresh(features, y)
    unit = F.normalize(features, dim=1)
    means = torch.stack([F.normalize(unit[y == a].mean(0), dim=0) for a in (0, 1, 3)])
    torch.testing.assert_close(statistics.centroids_KD[[0, 1, 3]], means)
    phi = log_assignment(unit, means, 3.0).exp()
    assert float(statistics.log_assignment(features).exp()[:, 2].max()) == 0.0  # no centroid, no probability
    expected = phi[y == 1].mean(0)
    torch.testing.assert_close(
        statistics.log_q_rows(torch.tensor([1])).exp()[0, [0, 1, 3]], expected, atol=1e-5, rtol=0
    )


def test_moving_averages_converge_to_the_pass() -> None:
    by_pass, moving = ClassStatistics(5, 8), ClassStatistics(5, 8)
    features, y = torch.randn(40, 8), torch.arange(5).repeat(8)
    by_pass.refresh(features, y)
    for _ in range(200):
        moving.update(features, y)
    torch.testing.assert_close(moving.centroids_KD, by_pass.centroids_KD)
    rows = torch.arange(5)
    torch.testing.assert_close(moving.log_q_rows(rows), by_pass.log_q_rows(rows), atol=1e-4, rtol=1e-4)


def test_finite_for_extreme_input() -> None:
    statistics = ClassStatistics(3, 4, beta=1e4)
    y = torch.tensor([0])
    for features in (torch.zeros(1, 4), torch.full((1, 4), 1e30), torch.full((1, 4), 1e-30)):
        value = features.clone().requires_grad_()
        statistics.update(value.detach(), y)
        for tight in (False, True):
            loss = bound(statistics.log_assignment(value), statistics.log_q_rows(y), tight)
            loss.backward()
            assert bool(loss.isfinite())
            assert value.grad is not None
            assert bool(value.grad.isfinite().all())


def test_default_beta_scales_with_identities() -> None:
    """At the default a centroid nearer by one unit of squared distance keeps half of the mass, at any C."""
    for c in (10, 751, 100_000):
        share = math.exp(default_beta(c)) / (math.exp(default_beta(c)) + c - 1)
        assert 0.5 <= share < 0.53
