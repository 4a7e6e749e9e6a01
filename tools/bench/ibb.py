"""The cost of the information bottleneck bound. Usage: python tools/bench/ibb.py [--json] [--rounds N]

The reference is the double sum evaluated directly: a loop over centroids that fills B x C x C temporaries.
Keys: speedup_751, speedup_1041 (reference over ours, forward and backward), extra_mb_751 (largest memory held
beyond the inputs), step_share_resnet50 (share of a ResNet-50 training step at 256x128, batch 64), ema_over_epoch
(time per epoch of moving averages over that of a refresh by a pass, ResNet-50 at 256x128); of the bound on attention at
the four stages of a ResNet-50: sites_step_share_resnet50 (of the same step), sites_checkpoint_mb_10000.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from timing import held_mb, interleaved, ratio
from torch import Tensor
from torch.nn import functional as F

from dnas.loss.ibb import ClassStatistics, bound
from dnas.loss.objective import LossConfig, Objective
from dnas.loss.site_bound import SiteBounds
from dnas.nn.backbones import backbone
from dnas.nn.reid_net import ReIDNet
from dnas.space.spec import image

B, D = 64, 512


def direct(
    features: Tensor, inputs: Tensor, centroids: Tensor, input_centroids: Tensor, q: Tensor, y: Tensor
) -> Tensor:
    """Both terms as written, sum_a sum_b over B x C x C, distances by a loop over centroids."""
    phi_f, phi_x = (
        torch.stack([-((rows - centre) ** 2).sum(1) for centre in centres], 1).softmax(1)
        for rows, centres in ((features, centroids), (inputs, input_centroids))
    )
    joint = phi_f[:, :, None] * phi_x[:, None, :]  # B x C x C
    first = (joint * phi_x[:, None, :].log()).sum((1, 2)).mean()
    y_onehot = F.one_hot(y, q.shape[0]).to(q.dtype)
    second = (phi_f[:, :, None] * y_onehot[:, None, :] * q.T.log()[None]).sum((1, 2)).mean()
    return first - second


def variants(c: int, beta: float = 8.0) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Forward and backward of ours and of the reference, on the same statistics."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(B, D, generator=g)
    y = torch.randint(c, (B,), generator=g)
    ours = ClassStatistics(c, D, beta=beta)
    ours.centroid_sum_KD.copy_(torch.randn(c, D, generator=g))
    ours.known_K.fill_(True)
    ours.weight_C.fill_(1.0)
    ours.phi_sum_CK.copy_(torch.rand(c, c, generator=g).softmax(1))
    inputs, input_centroids = (F.normalize(torch.randn(n, D, generator=g), dim=1) * beta**0.5 for n in (B, c))

    def run_ours() -> Tensor:
        f = features.clone().requires_grad_()
        bound(ours.log_assignment(f), ours.log_q_rows(y)).backward()
        assert f.grad is not None
        return f.grad

    def run_direct() -> Tensor:
        f = features.clone().requires_grad_()
        scale = beta**0.5
        unit = F.normalize(f, dim=1) * scale
        direct(unit, inputs, ours.centroids_KD * scale, input_centroids, ours.phi_sum_CK, y).backward()
        assert f.grad is not None
        return f.grad

    return run_ours, run_direct


def finite_with_zeros() -> bool:
    """Zeros in Q must not give NaN."""
    statistics_ = ClassStatistics(751, D)
    statistics_.update(torch.randn(B, D), torch.arange(B))
    f = torch.randn(B, D, requires_grad=True)
    bound(statistics_.log_assignment(f), statistics_.log_q_rows(torch.full((B,), 700))).backward()
    assert f.grad is not None
    return bool(f.grad.isfinite().all())


def resnet50_step(eta: float, refresh: Literal["epoch", "ema"] = "ema") -> Callable[[], None]:
    """One training step with the bound's term asleep or awake."""
    torch.manual_seed(0)
    x = image(256, 128)
    net = ReIDNet(backbone("resnet50"), x, 751).to(memory_format=torch.channels_last)
    objective = Objective(LossConfig(eta=eta, eta_warmup=0.0, refresh=refresh), 751, 2048)
    optimiser = torch.optim.Adam(net.parameters())
    images = torch.randn(B, 3, 256, 128).contiguous(memory_format=torch.channels_last)
    y = torch.arange(16).repeat_interleave(4)

    def step() -> None:
        terms = objective(net(images), y, 1.0)
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the information bottleneck bound.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, float] = {}
    table = Table(title=f"forward and backward of the bound, B = {B}, D = {D}, {torch.get_num_threads()} threads")
    for column in ("C", "ours (ms)", "direct (ms)", "speed-up (quartiles)", "ours (MB)", "direct (MB)"):
        table.add_column(column, justify="right")
    for c in (751, 1041, 10_000):
        ours, direct_ = variants(c)
        mb = held_mb(ours)
        if c == 10_000:  # the direct form would hold 51 GB here
            seconds = interleaved({"ours": ours}, options.rounds * 4)
            table.add_row(f"{c:,}", f"{1e3 * statistics.median(seconds['ours']):.1f}", "-", "-", f"{mb:.1f}", "51,000")
            continue
        torch.testing.assert_close(ours(), direct_(), atol=1e-6, rtol=1e-3)  # the same gradient
        seconds = interleaved({"ours": ours, "direct": direct_}, options.rounds)
        middle, low, high = ratio(seconds["direct"], seconds["ours"])
        found[f"speedup_{c}"] = middle
        times = [f"{1e3 * statistics.median(seconds[name]):.1f}" for name in ("ours", "direct")]
        table.add_row(f"{c:,}", *times, f"{middle:.0f} ({low:.0f}-{high:.0f})", f"{mb:.1f}", f"{held_mb(direct_):.0f}")
        if c == 751:
            found["extra_mb_751"] = mb
    assert finite_with_zeros()
    # what the term adds to a step: timed by itself at D = 2048, since the difference of two long steps is noise
    step = resnet50_step(eta=0.1)
    statistics_ = ClassStatistics(751, 2048)
    embedding, y = torch.randn(B, 2048), torch.arange(16).repeat_interleave(4)

    def term() -> None:
        f = embedding.clone().requires_grad_()
        statistics_.update(embedding, y)
        bound(statistics_.log_assignment(f), statistics_.log_q_rows(y)).backward()

    net = ReIDNet(backbone("resnet50"), image(256, 128), 751).eval()

    @torch.inference_mode()
    def embed_batch() -> None:
        net.embed(torch.randn(B, 3, 256, 128))

    stages = (256, 512, 1024, 2048)
    sites = SiteBounds(751, stages, None)
    pooled = [torch.randn(B, dim) for dim in stages]

    def site_terms() -> None:
        value = sites([part.clone().requires_grad_() for part in pooled], y, tight=False, follow=True, asleep=False)
        assert value is not None
        value.backward()

    variants_ = {"step": step, "term": term, "embed": embed_batch, "sites": site_terms}
    seconds = interleaved(variants_, options.rounds)
    middle, low, high = ratio(seconds["term"], seconds["step"])
    found["step_share_resnet50"] = middle
    sites_share, sites_low, sites_high = ratio(seconds["sites"], seconds["step"])
    found["sites_step_share_resnet50"] = sites_share
    held = SiteBounds(10_000, stages, None).state_dict().values()
    found["sites_checkpoint_mb_10000"] = sum(tensor.numel() * tensor.element_size() for tensor in held) / 1e6
    with_ema = seconds["step"]
    with_pass = [s - t + e for s, t, e in zip(seconds["step"], seconds["term"], seconds["embed"], strict=True)]
    found["ema_over_epoch"], ema_low, ema_high = ratio(with_ema, with_pass)
    console = Console()
    console.print(table)
    console.print(f"share of a ResNet-50 step at 256x128, batch {B}: {middle:.2%} ({low:.2%}-{high:.2%})")
    console.print(
        f"the same of the bound on attention at four stages: {sites_share:.2%} ({sites_low:.2%}-{sites_high:.2%});"
        f" in a checkpoint of 10,000 identities {found['sites_checkpoint_mb_10000']:.0f} MB"
    )
    over = f"{found['ema_over_epoch']:.2f} ({ema_low:.2f}-{ema_high:.2f})"
    console.print(f"epoch with moving averages over epoch with a refreshing pass: {over}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
