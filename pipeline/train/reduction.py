"""Sums over a step's micro batches, bit-identical for any number of workers.

`losses` runs the forward and backward pass of this worker's micro batches in turn and yields each loss; `statistics`
are the net's running means and variances, as the last pass left them.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

CHUNK = 2**22  # numbers exchanged at a time, of each worker


def summed(losses: Iterator[Tensor], statistics: Sequence[Tensor], world: int) -> list[Tensor]:
    """Return [loss, *statistics], summed over micro batches and workers."""
    sums: list[Tensor] = []
    for loss in losses:
        if sums:
            torch._foreach_add_(sums, [loss, *statistics])
        else:
            sums = [part.clone() for part in (loss, *statistics)]
    if world > 1:
        flat = torch.cat([part.flatten() for part in sums])
        dist.all_reduce(flat)
        put(flat, sums)
    return sums


def summed_in_order(
    net: nn.Module, losses: Iterator[Tensor], statistics: Sequence[Tensor], rank: int, world: int, share: int
) -> list[Tensor]:
    """Sum as summed() does, with gradients, in the order of micro batches.

    The gradients are those of `net`. A step has `share` micro batches. Those from `rank` on in steps of `world` are
    this worker's, one at least.
    """
    total: Tensor | None = None
    for first in range(0, share, world):
        if first + rank < share:
            net.zero_grad(set_to_none=True)
            loss = next(losses)
        grads = [value.grad for value in net.parameters() if value.grad is not None]
        total = add_in_order(total, [loss, *statistics, *grads], min(world, share - first))
    assert total is not None
    sums = [torch.empty_like(part) for part in (loss, *statistics)]
    put(total, [*sums, *grads])
    return sums


def add_in_order(total: Tensor | None, terms: Sequence[Tensor], ranks: int) -> Tensor:
    """Return `total`, one long vector, plus the `terms` of each rank in turn.

    Ranks are 0 to `ranks` - 1. Every rank calls it, even with nothing to add, with tensors of the same shapes. One
    process that adds the same terms gets the same bits. An all-reduce doesn't: its order depends on the number of
    ranks.
    """
    flat = torch.cat([value.flatten() for value in terms])
    sums = []
    for at, chunk in zip(range(0, len(flat), CHUNK), flat.split(CHUNK), strict=True):
        parts = [torch.empty_like(chunk) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, chunk)
        added = parts[0] if total is None else total[at : at + CHUNK] + parts[0]
        for part in parts[1:ranks]:
            added += part
        sums.append(added)
    return torch.cat(sums)


def put(total: Tensor, places: Iterable[Tensor]) -> None:
    """Copy the parts of a sum into tensors, whose memory order stays."""
    at = 0
    for place in places:
        place.copy_(total[at : at + place.numel()].view(place.shape))
        at += place.numel()


def share_first(tensors: Iterable[Tensor]) -> None:
    """Give all ranks rank 0's values: machine types may draw others from a seed."""
    for tensor in tensors:
        dist.broadcast(tensor, 0)
