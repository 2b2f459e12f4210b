"""Sums over what data-parallel workers computed, added in one order: the same bits from any number of workers."""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

CHUNK = 2**22  # numbers that are exchanged at a time, of each worker


def add_in_order(total: Tensor | None, own: Sequence[Tensor], ranks: int) -> Tensor:
    """`total`, one long vector, and what ranks 0 to `ranks` - 1 have in `own`, one rank after another.

    Every rank calls it, those that have nothing to add too, with tensors of the same shapes. One process that adds the
    same terms itself comes to the same bits. An all-reduce doesn't: its order follows from the number of ranks.
    """
    flat = torch.cat([value.flatten() for value in own])
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
    """Writes the parts of a sum where the tensors that were added lie; their memory order stays."""
    at = 0
    for place in places:
        place.copy_(total[at : at + place.numel()].view(place.shape))
        at += place.numel()


def share_first(tensors: Iterable[Tensor]) -> None:
    """All ranks get rank 0's values: machines of another kind may draw others from one seed."""
    for tensor in tensors:
        dist.broadcast(tensor, 0)
