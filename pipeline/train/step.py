"""One optimizer step: a worker's forward and backward passes, and the update.

Legend: N clips of a micro batch, T frames, H, W pixels, K classes.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.video import VideoNet
from pipeline.clips import loading
from pipeline.config.schema import Recipe
from pipeline.errors import UserError
from pipeline.train import reduction
from pipeline.train.numerics import autocast
from pipeline.train.run import Run
from pipeline.train.throughput import Meter


@dataclass(frozen=True)
class Worker:
    """Constants of a worker over a run's steps."""

    run: Run
    net: VideoNet
    parallel: nn.Module  # net, or DDP around it
    ordered: bool  # several workers, which add micro batches in one order
    optimizer: torch.optim.Optimizer
    loader: Iterator[tuple[Tensor, Tensor]]  # this worker's micro batches, all epochs one after another
    device: torch.device
    pixels: Tensor  # (N, T, H, W, C) float: memory of one micro batch after another
    share: int  # micro batches of a step; those from `rank` on in steps of `world` are this worker's
    rank: int
    world: int


def step(worker: Worker, epoch: int, step: int, meter: Meter) -> Tensor:
    """Do a step of all workers; return mean loss and unclipped gradient norm, (2,)."""
    # Running means and variances, and the count of batches; VGG has none.
    statistics = [b for name, b in worker.net.named_buffers() if "running_" in name or "num_batches_tracked" in name]
    worker.optimizer.zero_grad(set_to_none=True)
    losses = _micros(worker, epoch, step, meter, statistics)
    if worker.ordered:
        place = worker.rank, worker.world, worker.share
        loss, *summed = reduction.summed_in_order(worker.net, losses, statistics, *place)
    else:
        loss, *summed = reduction.summed(losses, statistics, worker.world)  # DDP sums the gradients
    # The step's update of the running statistics is the mean of its micro batches' updates.
    if statistics:
        torch._foreach_copy_(statistics, torch._foreach_div(summed, worker.share))
    norm = nn.utils.get_total_norm([value.grad for value in worker.net.parameters() if value.grad is not None])
    if worker.run.recipe.clip_grad is not None:
        nn.utils.clip_grads_with_norm_(worker.net.parameters(), worker.run.recipe.clip_grad, norm)
    worker.optimizer.step()
    return torch.stack((loss / worker.share, norm))


def _micros(worker: Worker, epoch: int, step: int, meter: Meter, statistics: list[Tensor]) -> Iterator[Tensor]:
    """Yield the losses of this worker's micro batches, all from equal statistics."""
    before = [buffer.clone() for buffer in statistics]
    for micro in range(worker.rank, worker.share, worker.world):
        if statistics:
            torch._foreach_copy_(statistics, before)
        yield micro_step(worker, epoch, step, micro, meter)


def micro_step(worker: Worker, epoch: int, step: int, micro: int, meter: Meter) -> Tensor:
    """Return a micro batch's loss, and add its gradients to the parameters'."""
    recipe, net = worker.run.recipe, worker.net
    with meter.waiting():
        batch, labels = next(worker.loader)
    # (N, T, H, W, C) uint8 -> (N, T, C, H, W) float
    x = loading.normalise(batch.to(worker.device, non_blocking=True), net.mean, net.std, net.channels, worker.pixels)
    # (N,) classes, or (N, K) of 0 and 1 for sigmoid; mixing makes it (N, K) shares
    target = labels.to(worker.device, non_blocking=True)
    # Dropout and mixing draw from the micro batch's place in the run, whichever worker does it.
    seed = loading.seed_of(worker.run.seed, epoch, step, micro)
    torch.manual_seed(seed)
    if recipe.augment.mixup:
        x, target = loading.mixup(x, target, net.head.out_features, recipe.augment.mixup, seed)

    def criterion(scores: Tensor) -> Tensor:
        return loss_of(recipe, scores.float(), target)

    exchanging = worker.parallel is not net
    hold = exchanging and micro + worker.world < worker.share  # DDP exchanges gradients once a step
    with worker.parallel.no_sync() if hold else contextlib.nullcontext():  # type: ignore[operator]
        with autocast(recipe, worker.device):
            try:
                logits = worker.parallel(x)  # (N, K)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise UserError(
                    f"recipes.{worker.run.experiment.recipe}: this net has a norm over maps of one value at size "
                    f"{recipe.size}, which needs a micro_batch of 2 at least, not {len(x)}; raise micro_batch or size"
                ) from None
        loss = criterion(logits) + net.penalty(criterion)
        # A step's gradient is the mean over its micro batches; DDP divides by the number of workers.
        (loss * ((worker.world if exchanging else 1) / worker.share)).backward()
    return loss.detach()


def loss_of(recipe: Recipe, scores: Tensor, target: Tensor) -> Tensor:
    """Return the recipe's loss of scores (N, K), a scalar.

    - softmax: cross entropy, the mean over clips; target is (N,) classes or (N, K) shares.
    - sigmoid: binary cross entropy, the mean over clips and classes. target is (N, K): 1 for each class of a clip, 0
      for others, between after mixup.

    Smoothing by s leaves 1 - s of the target. A softmax spreads the rest evenly over the K classes (Szegedy et al.
    2016, section 7), sigmoids over the two answers for each class.
    """
    smoothing = recipe.label_smoothing
    if recipe.loss == "softmax":
        return F.cross_entropy(scores, target, label_smoothing=smoothing)
    return F.binary_cross_entropy_with_logits(scores, target * (1 - smoothing) + smoothing / 2)
