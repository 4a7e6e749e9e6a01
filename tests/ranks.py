"""Several processes in a test."""

import torch


def leave() -> None:
    """End the process group of this process.

    Before torch 2.8 the group's end waits for gloo's threads with Python's lock in hand, and such a thread waits for
    the lock while it lets go of a tensor (pytorch pull request 154976): at a barrier it has time to.
    """
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
