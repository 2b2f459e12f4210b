"""Conversion of authors' weights to our names."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.errors import UserError
from pipeline.storage.atomic import writing
from stages import DATA

if TYPE_CHECKING:
    from models.video import VideoNet


def convert(file: Path, row: str | None, out: Path | None) -> str:
    """Write a file's tensors under the names of a row's net.

    Args:
        file: A state dict with the names of models/weights.py.
        row: Of params.yaml; default: the first row whose net, with or without attention, fits.
        out: Target; default: next to the file, with the suffix `-ours`.

    Returns:
        A line for the user.

    Raises:
        UserError: The file is missing, holds no weights or fits no net; with the first three names on either side, of
            the nearest net.
    """
    import torch

    from models import weights

    params = load.load()
    out = out or file.with_name(f"{file.stem}-ours.pth")
    if out.absolute() == file.absolute():
        raise UserError(f"{out} is the file itself; give another --out")
    rows = [row] if row else list(params.experiments)
    try:
        read = weights.read(file)
    except ValueError as error:
        raise UserError(str(error)) from None
    nearest = (-1, "")
    for name in rows:
        for attention in dict.fromkeys(("none", load.named(params, name).attention)):
            net = _net(params, name, attention)
            state = weights.ours(net, read)
            if not (problem := weights.misfit(net, state)):
                with writing(out) as temporary:
                    torch.save({key: value.contiguous() for key, value in state.items()}, temporary)
                classes = f"a classifier of {len(state['head.weight'])} classes" if "head.weight" in state else ""
                return f"{out}: {len(state)} tensors, {classes or 'no classifier'}; row {name}, attention {attention}"
            shapes = {key: value.shape for key, value in net.state_dict().items()}
            fitting = sum(value.shape == shapes.get(key) for key, value in state.items())
            nearest = max(nearest, (fitting, f"{file} does not fit row {name}, attention {attention}: {problem}"))
    raise UserError(nearest[1] or "params.yaml has no rows; give it one of the file's net")


def _net(params: Params, row: str, attention: str) -> "VideoNet":
    """Build a row's net without values."""
    import torch

    from models import video
    from stages.commands.catalogue import class_count

    experiment = params.experiments[row]
    recipe = params.recipe(experiment)
    classes = class_count(params.datasets[experiment.dataset], DATA / "splits" / experiment.dataset) or 1
    trained = attention == experiment.attention
    named = experiment.backbone, experiment.variant, attention
    try:
        with torch.device("meta"):
            return video.build(
                *named,
                recipe.frames,
                classes,
                knobs=experiment.knobs if trained else {},
                planes=recipe.planes if trained else 3,
            )
    except ValueError as error:
        raise UserError(f"experiments.{row}: {error}") from None
