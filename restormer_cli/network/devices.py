"""Device and precision: what this machine has, what is used, and why."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from restormer_cli.errors import DeviceError
from restormer_cli.network import kernels, native
from restormer_cli.network.device_errors import first_line, unusable
from restormer_cli.network.self_check import SelfCheck, check_device, example_network
from restormer_cli.system.memory import free_memory
from restormer_cli.system.units import format_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: First generation of NVIDIA cards (Ampere) that multiplies bfloat16 natively.
BFLOAT16_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Choice:
    """A device and a precision, each with the reason for it."""

    device: torch.device
    dtype: torch.dtype
    device_reason: str
    precision_reason: str
    trouble: str = ""
    """Why the GPU that would have been chosen is not."""

    @property
    def precision(self) -> str:
        return precision_name(self.dtype)


def precision_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``, and so on."""
    return str(dtype).removeprefix("torch.")


def choose(device: str = "auto", precision: str = "auto") -> Choice:
    """Settle on a device and a precision, without using the device.

    Parameters
    ----------
    device
        ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision
        ``auto`` (bfloat16 where the hardware multiplies it natively, else float32) or a name
        in :data:`DTYPES`.

    Raises
    ------
    DeviceError
        If there is no such device or precision here.
    """
    chosen, device_reason = _choose_device(device)
    dtype, precision_reason = _choose_precision(chosen, precision)
    return Choice(chosen, dtype, device_reason, precision_reason)


def choose_usable(device: str, precision: str, load: Callable[[Choice], T]) -> tuple[Choice, T]:
    """Settle on a device that something can be loaded on.

    Parameters
    ----------
    device, precision
        As above. ``auto`` takes the CPU if the GPU that it would take cannot be used; a warning
        is logged.
    load
        Called with a choice; raises DeviceError where it cannot be.

    Raises
    ------
    DeviceError
        If the device that was asked for is not there or cannot be used.
    """
    choice, loaded = _choose_usable(device, precision, load)
    if choice.trouble:
        logger.warning(f"{choice.trouble}; the CPU is used")
    return choice, loaded


def _choose_usable(device: str, precision: str, load: Callable[[Choice], T]) -> tuple[Choice, T]:
    try:
        choice = choose(device, precision)
        return choice, load(choice)
    except DeviceError as error:
        if device != "auto":
            raise
        trouble = str(error).partition(";")[0]  # without the remedy, which is taken
    choice = choose("cpu", precision)
    choice = replace(choice, device_reason=trouble, trouble=trouble)
    return choice, load(choice)


def cards() -> list[int]:
    """Numbers of the CUDA cards that programs can have.

    The tools of the driver count others as well: of a card that is split (MIG), a process gets one
    part, but they count all cards.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [index for index in range(count) if _is_there(index)]


def _is_there(index: int) -> bool:
    try:
        torch.cuda.get_device_properties(index)
    except (RuntimeError, AssertionError) as error:
        # A card that fails for any other reason is there, and its user is told.
        return re.search("invalid device|num_gpus", str(error), re.IGNORECASE) is None
    return True


def spread(device: str = "auto") -> list[str]:
    """The devices that a name stands for when each can have a process of its own."""
    several = cards() if device in {"auto", "cuda"} else []
    return [f"cuda:{index}" for index in several] or [device]


def _choose_device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0), "a CUDA device is there"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "no CUDA device is there, but Apple's MPS is"
        return torch.device("cpu"), "neither CUDA nor MPS is there"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"no device is called {name!r}; use auto, cpu, cuda, cuda:N or mps"
        ) from error
    if device.type == "cuda":
        found = cards()
        if (device.index or 0) not in found:
            raise DeviceError(f"{name} is not there: PyTorch sees {len(found)} CUDA devices here")
        return torch.device("cuda", device.index or 0), "asked for"
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps is not there: PyTorch finds no Apple GPU here")
    if device.type not in {"cpu", "mps"}:
        raise DeviceError(f"{name!r} is not supported; use auto, cpu, cuda, cuda:N or mps")
    return torch.device(device.type), "asked for"


def _choose_precision(device: torch.device, name: str) -> tuple[torch.dtype, str]:
    if name != "auto":
        if name not in DTYPES:
            raise DeviceError(f"no precision is called {name!r}; use auto, {', '.join(DTYPES)}")
        return DTYPES[name], "asked for"
    if device.type == "cuda":
        try:
            major_minor = torch.cuda.get_device_capability(device)
        except (RuntimeError, AssertionError) as error:
            raise unusable(device, error) from error
        if major_minor >= BFLOAT16_CAPABILITY:
            return torch.bfloat16, "the card multiplies bfloat16 natively"
        return torch.float32, "the card does not multiply bfloat16 natively"
    if device.type == "cpu":
        if _cpu_multiplies_bfloat16():
            return torch.bfloat16, "the processor multiplies bfloat16 natively"
        return torch.float32, "the processor has neither AMX nor AVX512-BF16"
    return torch.float32, "the exact one"


def _cpu_multiplies_bfloat16() -> bool:
    """AMX or AVX512-BF16, as the kernel reports them (Linux; elsewhere taken for absent)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return "amx_bf16" in flags or "avx512_bf16" in flags


def describe(device: str = "auto", precision: str = "auto") -> Iterator[str]:
    """Lines for ``restormer devices``: what is here, what would be used, why, and if it is right.

    Raises
    ------
    DeviceError
        After what is here, if what was asked for is not to be had.
    """
    threads, free = torch.get_num_threads(), format_bytes(free_memory())
    yield f"cpu     {threads} threads, {free} of memory free"
    for index in cards():
        yield f"cuda:{index}  {_describe_card(index)}"
    if not torch.cuda.is_available():
        built = "finds no card" if torch.version.cuda else "is a build without CUDA"
        yield f"cuda    not there: PyTorch {torch.__version__} {built}"
    yield "mps     Apple GPU" if torch.backends.mps.is_available() else "mps     not there"
    choice, check = _choose_usable(device, precision, _check)
    yield f"used: {choice.device}, because {choice.device_reason}"
    yield f"      {choice.precision}, because {choice.precision_reason}"
    if choice.device.type == "cpu":
        yield f"      {native.describe(choice.dtype)}"
    if check is not None:
        yield f"check: results are those of the CPU, as {check.seconds:.1f} s of work have shown"
    yield from kernels.notices()


def _describe_card(index: int) -> str:
    try:
        name = torch.cuda.get_device_properties(index).name
        free, total = torch.cuda.mem_get_info(index)
    except (RuntimeError, AssertionError) as error:
        return f"cannot be used: {first_line(error)}"
    return f"{name}, {format_bytes(free)} of {format_bytes(total)} free"


def _check(choice: Choice) -> SelfCheck | None:
    """Try the device with a network of no use; None for the CPU, which has none to compare with."""
    if choice.device.type == "cpu":
        kernels.try_operators(choice.device, choice.dtype)
        return None
    return check_device(example_network(), choice.device, choice.dtype)[1]
