"""One training loop for searched and fixed networks; query and gallery are looked at once, at the end."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import torch

from dnas.data.augment import augment
from dnas.data.images import Images, decode, joined
from dnas.data.market import Split, check_matches, hold_out, load_market
from dnas.data.sampler import PKSampler
from dnas.errors import UserError
from dnas.eval.embed import embed, retrieve_within
from dnas.eval.information import probe
from dnas.eval.ranking import Ranking, rank
from dnas.loss.objective import Objective
from dnas.nn.dcs_attention import selected_shares, set_temperature
from dnas.nn.pretrained import load_weights
from dnas.nn.reid_net import ReIDNet
from dnas.run import seeds
from dnas.run.averages import Averages
from dnas.run.device import pick_device
from dnas.run.files import load_tensors, read_json, replace_file
from dnas.run.folder import INHERITED, RunFolder
from dnas.run.progress import EpochProgress, console
from dnas.run.schedules import geometric
from retrain.config import RetrainConfig
from retrain.models import genotype_path, pick_model, stored_config


class Retraining:
    """State of a retraining: network, optimiser, data."""

    def __init__(self, config: RetrainConfig) -> None:
        self.config, self.device = config, pick_device(config.device)
        self.model = pick_model(config)
        data = load_market(config.data)
        rest, held = hold_out(data.train, config.holdout, config.seed)
        if len(held):
            check_matches(held, held, "held-out identities")
        if config.test:
            check_matches(data.query, data.gallery, "query and gallery")
        self.size = (self.model.input.height, self.model.input.width)
        self.train = decode(rest, *self.size)
        self.held_out: Images | None = decode(held, *self.size) if len(held) else None
        self.test: tuple[Split, Split] = (data.query, data.gallery)
        self.fingerprint = data.fingerprint()
        torch.manual_seed(seeds.derive(config.seed, "init"))
        self.net = ReIDNet(self.model.spec, self.model.input, self.train.identities)
        if config.weights is not None:
            load_weights(self.net, Path(config.weights))
        if config.inherit:
            assert config.genotype is not None
            load_inherited(self.net, genotype_path(config.genotype).parent / INHERITED)
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dim = self.model.spec.out(self.model.input).channels.size
        self.objective = Objective(config.loss, self.train.identities, dim).to(self.device)
        self.optimiser = torch.optim.Adam(
            self.net.parameters(), config.optim.lr, weight_decay=config.optim.weight_decay
        )
        self.epoch = 0

    def run(self, folder: RunFolder) -> None:
        """Train to the end, from wherever this state is, then evaluate."""
        epochs = self.config.optim.epochs
        log = folder.path / "log.txt"
        with EpochProgress(f"retrain {self.model.name}", epochs, self.epoch, log) as progress:
            while self.epoch < epochs:
                start = time.perf_counter()
                metrics = self._train_epoch()
                trained = time.perf_counter() - start
                if self.held_out and self.config.eval_every and (self.epoch + 1) % self.config.eval_every == 0:
                    metrics["held_out"] = retrieve_within(self.net, self.held_out).metrics()
                    metrics["information"] = {
                        "train": probe(embed(self.net, self.train), self.train, self.objective.statistics.beta),
                        "held_out": probe(
                            embed(self.net, self.held_out), self.held_out, self.objective.statistics.beta
                        ),
                    }
                folder.log(metrics, {"train_s": trained, "epoch_s": time.perf_counter() - start})
                self.epoch += 1
                folder.save(self.state())
                news = dict(metrics["loss"])
                progress.epoch(
                    self.epoch - 1,
                    news | ({"held-out mAP": metrics["held_out"]["mAP"]} if "held_out" in metrics else {}),
                )
        self.evaluate(folder)

    def state(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in ("net", "objective", "optimiser")}
        return {"epoch": self.epoch, **parts}

    def restore(self, state: dict[str, Any]) -> None:
        for name in ("net", "objective", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.epoch = state["epoch"]

    def _train_epoch(self) -> dict[str, Any]:
        config, epoch, optim = self.config, self.epoch, self.config.optim
        set_temperature(self.net, geometric(optim.dcs_temperature, optim.dcs_temperature_end, epoch, optim.epochs))
        if config.loss.refresh == "epoch" and self.objective.eta((epoch + 1) / optim.epochs) > 0:
            clustering = seeds.generator(config.seed, "cluster", epoch)
            labels = self.train.labels.to(self.device)
            self.objective.statistics.refresh(embed(self.net, self.train), labels, clustering)
        sampler = PKSampler(self.train.labels.numpy(), optim.identities, optim.images, config.seed)
        batches = sampler.epoch(epoch)
        self.net.train()
        losses, watched = Averages(), Averages()
        for step, indices in enumerate(batches):
            torch.manual_seed(seeds.derive(config.seed, "noise", epoch, step))
            for group in self.optimiser.param_groups:
                group["lr"] = optim.lr_at(epoch + step / len(batches))
            index = torch.from_numpy(indices)
            pixels = self.train.pixels[index].to(self.device, non_blocking=True)
            labels = self.train.labels[index].to(self.device, non_blocking=True)
            inputs = augment(pixels, config.input, seeds.generator(config.seed, "augment", epoch, step))
            terms = self.objective(self.net(inputs), labels, (epoch + step / len(batches)) / optim.epochs)
            self.optimiser.zero_grad(set_to_none=True)
            sum(terms.values(), torch.zeros((), device=self.device)).backward()
            self.optimiser.step()
            losses.add(terms)
            watched.add(self.objective.watched)
        return {
            "epoch": epoch,
            "lr": optim.lr_at(epoch),
            "loss": losses.means(),
            "assignment": watched.means(),
            "selected": selected_shares(self.net),
        }

    def evaluate(self, folder: RunFolder) -> None:
        """Write cost.json and summary.json (and per_query.npz): what compare reads."""
        beta = self.objective.statistics.beta
        information = {"train": probe(embed(self.net, self.train), self.train, beta)}
        summary: dict[str, Any] = {
            "model": self.model.name,
            "start": "weights" if self.config.weights else "inherited" if self.config.inherit else "scratch",
            "seed": self.config.seed,
            "epochs": self.epoch,
            "information": information,
        }
        news = []
        if self.held_out:
            summary["held_out"] = retrieve_within(self.net, self.held_out).metrics()
            information["held_out"] = probe(embed(self.net, self.held_out), self.held_out, beta)
            news.append(f"held-out mAP {summary['held_out']['mAP']:.1%}")
        if self.config.test:
            query, gallery = (decode(split, *self.size) for split in self.test)
            query_QD, gallery_GD = embed(self.net, query), embed(self.net, gallery)
            ranking = rank(query_QD, gallery_GD, (query.pids, query.camids), (gallery.pids, gallery.camids))
            summary["test"] = ranking.metrics()
            summary["queries_without_match"] = int((~ranking.valid).sum())
            information["test"] = probe(torch.cat([query_QD, gallery_GD]), joined(query, gallery), beta)
            save_ranking(folder.path / "per_query.npz", ranking, query)
            news.append(f"mAP {summary['test']['mAP']:.1%}, Rank-1 {summary['test']['rank1']:.1%}")
        cost = self.model.spec.cost(self.model.input)
        counted = {"macs": cost.macs.value, "params": cost.params.value}
        folder.write("cost.json", {**counted, "latency": latency(self.net, self.size)})
        folder.write("summary.json", summary)
        console.print(f"retrain {self.model.name}: {', '.join(news)}  ->  {folder.path}")


def load_inherited(net: ReIDNet, file: Path) -> None:
    """Weights from the supernet; the classifier is new, the search saw fewer identities.

    Raises:
        UserError: no such file, or weights of another network.
    """
    if not file.is_file():
        raise UserError(f"inherit: {file}: no such file; give --genotype the folder of a finished search")
    state = {name: value for name, value in load_tensors(file).items() if not str(name).startswith("classifier.")}
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()):
        raise UserError(f"{file}: expected a mapping of names to tensors")
    try:
        missing = set(net.load_state_dict(state, strict=False).missing_keys) - {"classifier.weight"}
    except RuntimeError as error:
        raise UserError(f"{file}: does not fit this network ({str(error).splitlines()[-1].strip()})") from error
    if missing:
        raise UserError(f"{file}: does not fit this network, entry '{min(missing)}' is missing")


def save_ranking(file: Path, ranking: Ranking, query: Images) -> None:
    """Per-query results, so that runs can be compared query by query."""
    columns = {
        "ap": ranking.ap,
        "first_match": ranking.first_match,
        "inp": ranking.inp,
        "pids": query.pids,
        "camids": query.camids,
    }
    replace_file(file, lambda stream: np.savez_compressed(stream, **columns))  # type: ignore[arg-type]


@torch.inference_mode()
def latency(net: ReIDNet, size: tuple[int, int], repeats: int = 30) -> dict[str, float | str]:
    """Milliseconds to embed one image: median and quartiles over `repeats`, after three warm-ups."""
    device = next(net.parameters()).device
    net.eval()
    x = torch.zeros(1, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        net.embed(x).sum().item()  # .item() waits for the device
        times.append((time.perf_counter() - start) * 1e3)
    low, middle, high = quantiles(times[3:], n=4)
    return {"median_ms": middle, "q25_ms": low, "q75_ms": high, "device": device.type}


def retrain(config: RetrainConfig) -> RunFolder:
    """Retrain in a new folder. The genotype is copied there: the search may go on, or move away."""
    state = Retraining(config)
    folder = RunFolder.create(config.out, "retrain", config, state.fingerprint)
    if config.genotype is not None:
        source = genotype_path(config.genotype)
        folder.write(folder.genotype_file.name, read_json(source))
        if config.inherit:
            folder.save_inherited(load_tensors(source.parent / INHERITED))
    state.run(folder)
    return folder


def resume(path: str | Path, space: str | None = None) -> RunFolder:
    """Go on with the retraining in a folder, from its last whole epoch.

    Args:
        space: file of the space, if the network was searched in one of your own.

    Raises:
        UserError: no retraining there, other data than before, or a damaged checkpoint.
    """
    folder = RunFolder.open(path)
    state = Retraining(stored_config(folder, space))
    folder.continue_with(state, state.fingerprint)
    state.run(folder)
    return folder
