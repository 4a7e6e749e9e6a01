"""Which network a retraining trains: the filled description of a genotype, or a fixed backbone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from dnas.errors import UserError
from dnas.eval.measure import Measure
from dnas.nn.attention import attention
from dnas.nn.backbones import STAGES, backbone
from dnas.nn.chain import Chain, Skip
from dnas.nn.vit_stage import cell_of
from dnas.run.config import from_plain
from dnas.run.folder import RunFolder
from dnas.run.paths import with_paths
from dnas.space.genotype import check_genotype, read_genotype
from dnas.space.holes import Shape
from dnas.space.spec import Choices, Space, Spec, decisions, fill, image
from dnas.task import pick_task
from retrain.config import RetrainConfig
from search_spaces import load_space, named_space

DEFAULT_SIZE = (256, 128)
"""Height and width that fixed backbones are meant for."""


@dataclass(frozen=True)
class Model:
    """A closed description with its input shape, and what to call it."""

    name: str
    spec: Spec
    input: Shape


def genotype_path(path: str | Path) -> Path:
    """A genotype file, from itself or from the run folder that holds it."""
    path = Path(path)
    return path / "genotype.json" if path.is_dir() else path


def genotype_space(file: Path, space: str | None) -> tuple[Space, Spec]:
    """The space of a genotype file and the description it fills, checked against each other."""
    genotype = read_genotype(file)
    found = load_space(space) if space else named_space(genotype.space)
    check_genotype(genotype, found, file)
    height, width = (genotype.cost.get(side) for side in ("height", "width"))
    if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 and max(height, width) <= 4096:
        found = found.resized(height, width)  # what it was searched for
    return found, fill(found.spec, genotype.choices)


def pick_model(config: RetrainConfig) -> Model:
    """The network that the configuration asks for.

    Raises:
        UserError: an unknown name, or a genotype that does not fit its space or the backbone.
    """
    if config.genotype is not None and config.backbone is None:
        space, spec = genotype_space(genotype_path(config.genotype), config.space)
        size = (config.input.height or space.height, config.input.width or space.width)
        return Model(f"searched {space.name}", spec, image(*size))
    assert config.backbone is not None
    what, cells = attention_cells(config)
    small, stride = config.backbone_small, config.backbone_stride
    spec = backbone(config.backbone, config.backbone_width, small, lambda stage: cells[stage - 1], stride)
    name = config.backbone + (f" x{config.backbone_width:g}" if config.backbone_width != 1 else "")
    name += f" s{stride}" if stride else ""
    name += f" + {what}" if any(not cell.idle for cell in cells) else ""
    size = (config.input.height or DEFAULT_SIZE[0], config.input.width or DEFAULT_SIZE[1])
    return Model(name, spec, image(*size))


def attention_cells(config: RetrainConfig) -> tuple[str, list[Spec]]:
    """The cell after each stage of a fixed backbone, and what to call them: by name, or those that a search found.

    Raises:
        UserError: an unknown name, another number of them than stages, or a genotype without attention sites.
    """
    if config.genotype is not None:
        file = genotype_path(config.genotype)
        space, filled = genotype_space(file, config.space)
        found = attention_sites(filled)
        if not found:
            raise UserError(f"{file}: the space '{space.name}' has no attention sites that a backbone could take over")
        if max(found) > STAGES:
            raise UserError(
                f"{file}: attention of stage {max(found)} has no place: {config.backbone} has {STAGES} stages"
            )
        return f"attention of searched {space.name}", [found.get(stage, Skip()) for stage in range(1, STAGES + 1)]
    names = config.attention.split(",")
    names = names * STAGES if len(names) == 1 else names
    if len(names) != STAGES:
        raise UserError(
            f"attention: found {len(names)} names, allowed: one, or {STAGES} with commas between, one a stage"
        )
    return config.attention, [attention(name) for name in names]


def attention_sites(spec: Spec) -> dict[int, Spec]:
    """Stage number (`Chain.stage`) -> its attention cell (or none) in a filled description."""
    found: dict[int, Spec] = {}
    for part in spec.parts if isinstance(spec, Chain) else ():
        if isinstance(part, Chain) and part.stage:
            cell = cell_of(part)
            if cell is not None:
                found[part.stage] = cell
    return found


def stored_config(folder: RunFolder, space: str | None = None) -> RetrainConfig:
    """The configuration of a retraining, read back from its folder, with the genotype that was copied there.

    Args:
        space: file of the space, typed by the user; one that the folder names is not run.
    """
    config = from_plain(RetrainConfig, folder.config(), str(folder.config_file))
    genotype = str(folder.genotype_file) if config.genotype is not None else None
    config = with_paths(config, folder.bases)
    return replace(config, out=str(folder.path), genotype=genotype, space=space)


def network_of(what: str, space: str | None = None) -> Model:
    """What a genotype file, a run folder or the name of a space describes, for drawing.

    Raises:
        UserError: none of these.
    """
    path = Path(what)
    if path.is_dir() and RunFolder.open(path).verb() == "retrain":
        return pick_model(stored_config(RunFolder.open(path), space))
    if path.is_dir() or path.suffix == ".json":
        file = genotype_path(path)
        found, spec = genotype_space(file, space)
        return Model(found.name, spec, found.input)
    found = load_space(what)
    return Model(f"space {found.name}", found.spec, found.input)


@dataclass(frozen=True)
class Found:
    """An open space with the probabilities of its choices, as a search left them."""

    space: Space
    probabilities: dict[str, list[float]]


def open_space(what: str, space: str | None = None) -> Found:
    """The space of a genotype or search, with softmax of the logits that derived it there; or a space by name.

    Raises:
        UserError: no logits, or others than the space has decisions.
    """
    path = Path(what)
    if not (path.is_dir() or path.suffix == ".json"):
        return Found(load_space(what), {})
    file = genotype_path(path)
    found, _ = genotype_space(file, space)
    said = read_genotype(file).search
    options = said.get("options")
    logits = (options if isinstance(options, dict) else said).get("logits")
    known = decisions(found.spec)
    if not isinstance(logits, dict) or logits.keys() != known.keys():
        raise UserError(f"{file}: search: logits: found none for the decisions of the space '{found.name}'")
    probabilities = {}
    for key, decision in known.items():
        row = logits[key]
        numbers = isinstance(row, list) and all(isinstance(value, int | float) for value in row)
        if not numbers or len(row) != len(decision.options) or not all(abs(value) < 1e300 for value in row):
            raise UserError(f"{file}: search: logits: {key}: expected {len(decision.options)} numbers")
        shifted = [math.exp(value - max(row)) for value in row]
        probabilities[key] = [value / sum(shifted) for value in shifted]
    return Found(found, probabilities)


def search_options(folder: RunFolder) -> dict[str, list[str]]:
    """What the options of a search's choices are called; nothing where its space is a file of the user's own."""
    name = folder.config().get("space")
    if not isinstance(name, str) or name.endswith(".py"):
        return {}
    known = decisions(named_space(name).spec)
    return {key: [str(option) for option in decision.options] for key, decision in known.items()}


def search_found(folder: RunFolder) -> Choices:
    """The options of the network that a search has derived; nothing before the end of its first epoch."""
    return read_genotype(folder.genotype_file).choices if folder.genotype_file.exists() else {}


def run_measure(folder: RunFolder) -> Measure:
    """What a run is judged by, from its configuration."""
    return pick_task(str(folder.config().get("task", "reid"))).measure
