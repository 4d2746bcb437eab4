"""One process or many: the same calls, which do nothing to a process that is alone.

Nothing here starts processes.  ``torchrun``, Ray Train or a notebook does; ``init`` joins what it finds.
"""

import os
from collections import Counter

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _joined() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _joined() else 1


def is_main() -> bool:
    return rank() == 0


def init(device: str | None = None) -> torch.device:
    """This process's device, after joining the group that ``torchrun``'s environment describes, if it describes one.

    ``device`` is ``"cpu"`` or ``"cuda"``; left out, CUDA where there is one.  Gloo carries CPU tensors, NCCL those
    on GPUs.  A group that exists already (Ray Train's) is left as it is.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = torch.device(kind)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        torch.cuda.set_device(place)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not _joined():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return place


def _carried() -> torch.device:
    """Where a tensor must lie for the group's backend to carry it."""
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def total(tensor: Tensor) -> Tensor:
    """The sum of every rank's ``tensor``, on every rank, on the device it came from."""
    if world() == 1:
        return tensor
    carried = tensor.detach().to(_carried(), copy=True)
    dist.all_reduce(carried)
    return carried.to(tensor.device)


def agree(value: float) -> float:
    """Rank 0's ``value``, on every rank."""
    if world() == 1:
        return value
    carried = torch.tensor(value, dtype=torch.float64, device=_carried())
    dist.broadcast(carried, src=0)
    return carried.item()


def merge(counts: Counter[str]) -> Counter[str]:
    """The sum of every rank's ``counts``, on every rank."""
    if world() == 1:
        return counts
    gathered: list[Counter[str]] = [Counter() for _ in range(world())]
    dist.all_gather_object(gathered, counts)
    return sum(gathered, Counter())


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Give ``module`` rank 0's buffers, BatchNorm's statistics above all, on every rank: one broadcast a dtype.

    ``DistributedDataParallel`` does so where a forward begins only: after a step each rank has statistics of its own
    share, and with them another network than the one that rank 0 saves.
    """
    if world() == 1:
        return
    alike: dict[torch.dtype, list[Tensor]] = {}
    for buffer in module.buffers():
        alike.setdefault(buffer.dtype, []).append(buffer)
    for buffers in alike.values():
        carried = torch.cat([b.flatten() for b in buffers]).to(_carried())
        dist.broadcast(carried, src=0)
        for buffer, values in zip(buffers, carried.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def wrap(module: nn.Module) -> nn.Module:
    """``module`` whose backward averages the gradients of all ranks; itself in a single process.

    Never ``static_graph``: with a gradient penalty it silently leaves gradients unreduced.  No ``device_ids``: with
    them the wrapper would move the epoch, a CPU scalar, to the GPU, and reading it there would wait for the GPU.
    """
    return DistributedDataParallel(module) if world() > 1 else module
