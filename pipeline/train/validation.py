"""Validation: a score after each epoch, on videos that are neither trained on nor tested.

Legend: V views, T frames, H, W pixels, C channels, K classes.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist

from models.video import VideoNet
from pipeline.clips import loading, sampling, views
from pipeline.config.schema import Protocol, Recipe
from pipeline.decode.frame_store import FrameStore
from pipeline.direction import source
from pipeline.errors import UserError
from pipeline.train.numerics import autocast
from pipeline.train.run import Run
from pipeline.train.step import loss_of

Items = list[tuple[str, list[int]]]  # (video, labels)


@dataclass(frozen=True)
class Score:
    """Score of a net on the validation videos."""

    loss: float
    accuracy: float | None  # top-1; None where a video may have several labels
    videos: int

    @property
    def value(self) -> float:
        """The larger, the better: accuracy, or the negative loss where there is none."""
        return -self.loss if self.accuracy is None else self.accuracy

    def numbers(self) -> dict[str, float]:
        """Return the score as numbers of an epoch's line in the curve."""
        accuracy = {} if self.accuracy is None else {"validation_accuracy": self.accuracy}
        return {"validation_loss": self.loss, **accuracy, "validation_videos": self.videos}


def parts(run: Run) -> tuple[Items, Items]:
    """Return the videos to train on and those to validate on; the latter are none without recipe.validate.

    A share is drawn from the training videos by the run's split and seed, with both directions of a video. Test videos
    are in neither.

    Raises:
        UserError: The split lacks a part that the recipe names, or has too few videos for a share.
    """
    recipe, where = run.recipe, f"recipes.{run.experiment.recipe}"
    trained = {part: run.part(part) for part in recipe.train}
    if empty := [part for part, videos in trained.items() if not videos]:
        raise UserError(
            f"{where}.train lists {empty[0]}, but split {run.split} of {run.experiment.dataset} has no part {empty[0]}"
        )
    items = [item for videos in trained.values() for item in videos]
    if recipe.validate is None:
        return items, []
    where += ".validate"
    if recipe.validate == "val":
        if not (held := run.part("val")):
            raise UserError(
                f"{where} is val, but split {run.split} of {run.experiment.dataset} has no part val; "
                "give a share such as 0.1 to take videos from training"
            )
        return items, held
    videos = list(dict.fromkeys(source(name) for name, _ in items))
    count = round(recipe.validate * len(videos))
    if not 0 < count < len(videos):
        raise UserError(f"{where} is {recipe.validate}: {count} of {len(videos)} training videos; choose another share")
    drawn = sampling.generator("validation", run.seed, run.split).permutation(len(videos))[:count]
    chosen = {videos[at] for at in drawn.tolist()}
    kept = [item for item in items if source(item[0]) not in chosen]
    return kept, [item for item in items if source(item[0]) in chosen]


@torch.inference_mode()
def score(
    run: Run, net: VideoNet, store: FrameStore, items: Items, device: torch.device, rank: int, world: int
) -> Score:
    """Score a net on the center clip of each video; ranks share the batches, whose number doesn't change the result."""
    recipe = run.recipe
    protocol = _protocol(recipe)
    batches = [items[at : at + protocol.batch] for at in range(0, len(items), protocol.batch)]
    net.eval()
    clips = loading.TrainClips(store, items, recipe, run.seed, run.mirrored())  # for its targets
    measured = {at: _batch(run, net, clips, batches[at], protocol, device) for at in range(rank, len(batches), world)}
    if world > 1:
        gathered: list[dict[int, tuple[float, int]]] = [{} for _ in range(world)]
        dist.all_gather_object(gathered, measured)
        measured = {at: value for each in gathered for at, value in each.items()}
    ordered = [measured[at] for at in range(len(batches))]
    loss = sum(loss for loss, _ in ordered) / len(items)
    right = sum(right for _, right in ordered)
    return Score(loss, right / len(items) if recipe.loss == "softmax" else None, len(items))


def _protocol(recipe: Recipe) -> Protocol:
    """Return one center clip and crop as the recipe's frames are taken."""
    kind = "uniform_clips" if recipe.sampling == "dense" else recipe.sampling
    return Protocol(1, "center", kind, recipe.size, "softmax", recipe.micro_batch, recipe.stride)


def _batch(
    run: Run, net: VideoNet, clips: loading.TrainClips, items: Items, protocol: Protocol, device: torch.device
) -> tuple[float, int]:
    """Return the summed loss of some videos, and how many are right."""
    recipe, store = run.recipe, clips.store
    shown = [
        (name, view) for name, _ in items for view in views.views(protocol, name, store.entry(name), recipe.frames)
    ]
    pixels = loading.load_views(store, shown, recipe.size, recipe.input, recipe.stack)  # (V, T, H, W, C) uint8
    x = loading.normalise(torch.from_numpy(pixels).to(device), net.mean, net.std, net.channels)
    targets = torch.from_numpy(clips.targets([labels for _, labels in items])).to(device)  # (V,) or (V, K)
    with autocast(recipe, device):
        logits = net(x).float()  # (V, K)
    right = int((logits.argmax(dim=1) == targets).sum()) if recipe.loss == "softmax" else 0
    return float(loss_of(recipe, logits, targets)) * len(items), right
