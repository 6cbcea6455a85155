"""How much memory a device has left for this process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from restormer_cli.system.memory import FREE_MEMORY_SHARE, free_memory, held_memory


@dataclass(frozen=True)
class Shares:
    """What is this process's own, of memory that it divides with others like it."""

    device: float = 1.0
    """Of the memory of its GPU."""
    machine: float = 1.0
    """Of main memory, as far as a GPU needs it."""


WHOLE = Shares()


def available_memory(device: torch.device, max_memory: int | None, shares: Shares) -> int:
    """Bytes that may be taken beyond what is taken already."""
    if device.type == "cpu":
        if max_memory is None:
            return int(FREE_MEMORY_SHARE * shares.machine * free_memory())
        return max_memory - held_memory()[0]
    free, total, reserved, used = _card_memory(device) if device.type == "cuda" else _mps_memory()
    free += reserved - used  # what the allocator keeps for later
    if max_memory is not None:
        return min(max_memory - used, free)
    available = int(FREE_MEMORY_SHARE * free)
    if shares.device < 1:  # what the others will take may be free as yet
        available = min(available, int(FREE_MEMORY_SHARE * shares.device * total) - used)
    return available


def whole_memory() -> int:
    """Bytes of main memory that this process has and can still get."""
    return free_memory() + held_memory()[0]


def _card_memory(device: torch.device) -> tuple[int, int, int, int]:
    """Bytes of a card: free, in all, taken by PyTorch here, and used of these."""
    free, total = torch.cuda.mem_get_info(device)
    return free, total, torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)


def _mps_memory() -> tuple[int, int, int, int]:
    """The same of an Apple GPU, whose memory is main memory, of which it is to leave some."""
    reserved, used = torch.mps.driver_allocated_memory(), torch.mps.current_allocated_memory()
    free = free_memory()
    recommended = getattr(torch.mps, "recommended_max_memory", None)
    total = reserved + free if recommended is None else recommended()  # PyTorch 2.4 does not say
    return max(0, min(free, total - reserved)), total, reserved, used
