"""The processes of a job, as torchrun, SLURM or Lightning number them: who does which part."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether this is the first process of a job, or a process by itself."""
    return all(int(os.environ.get(rank, 0)) == 0 for rank in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are under torchrun; (0, 1) for a process by itself."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def join() -> None:
    """Makes this process one of the group, where there is a group."""
    import torch.distributed as dist

    if rank_and_world()[1] > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


def wait_for_all() -> None:
    """Returns when every process of the group has come here."""
    import torch.distributed as dist

    dist.barrier()
