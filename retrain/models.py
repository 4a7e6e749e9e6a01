"""Which network a retraining trains: the filled description of a genotype, or a fixed backbone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dnas.nn.attention import attention
from dnas.nn.backbones import backbone
from dnas.run.config import from_plain
from dnas.run.folder import RunFolder
from dnas.space.genotype import check_genotype, read_genotype
from dnas.space.holes import Shape
from dnas.space.spec import Space, Spec, fill, image
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
        UserError: an unknown name, or a genotype that does not fit its space.
    """
    if config.genotype is not None:
        space, spec = genotype_space(genotype_path(config.genotype), config.space)
        size = (config.input.height or space.height, config.input.width or space.width)
        return Model(f"searched {space.name}", spec, image(*size))
    assert config.backbone is not None
    cell = attention(config.attention)
    spec = backbone(config.backbone, config.backbone_width, config.backbone_small, lambda stage: cell)
    name = config.backbone + (f" x{config.backbone_width:g}" if config.backbone_width != 1 else "")
    name += f" + {config.attention}" if config.attention != "none" else ""
    size = (config.input.height or DEFAULT_SIZE[0], config.input.width or DEFAULT_SIZE[1])
    return Model(name, spec, image(*size))


def stored_config(folder: RunFolder, space: str | None = None) -> RetrainConfig:
    """The configuration of a retraining, read back from its folder, with the genotype that was copied there.

    Args:
        space: file of the space, typed by the user; one that the folder names is not run.
    """
    config = from_plain(RetrainConfig, folder.config(), str(folder.config_file))
    genotype = str(folder.genotype_file) if config.genotype is not None else None
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
