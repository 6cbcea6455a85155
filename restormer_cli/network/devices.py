"""Device and precision: what this machine has, what is used, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from restormer_cli.errors import DeviceError
from restormer_cli.network import kernels, native
from restormer_cli.system.memory import free_memory
from restormer_cli.system.units import format_bytes

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

    @property
    def precision(self) -> str:
        return precision_name(self.dtype)


def precision_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``, and so on."""
    return str(dtype).removeprefix("torch.")


def choose(device: str = "auto", precision: str = "auto") -> Choice:
    """Settle on a device and a precision.

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


def spread(device: str = "auto") -> list[str]:
    """The devices that a name stands for when each can have a process of its own."""
    if device in {"auto", "cuda"} and torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [device]


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
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(f"{name} is not there: PyTorch sees {count} CUDA devices here")
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
        major_minor = torch.cuda.get_device_capability(device)
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


def describe(device: str = "auto", precision: str = "auto") -> list[str]:
    """Lines for ``restormer devices``: what is here, what would be used, and why."""
    lines = [
        f"cpu     {torch.get_num_threads()} threads, {format_bytes(free_memory())} of memory free"
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        lines.append(
            f"cuda:{index}  {properties.name}, {format_bytes(free)} of {format_bytes(total)} free"
        )
    if not torch.cuda.is_available():
        built = "finds no card" if torch.version.cuda else "is a build without CUDA"
        lines.append(f"cuda    not there: PyTorch {torch.__version__} {built}")
    lines.append("mps     Apple GPU" if torch.backends.mps.is_available() else "mps     not there")
    choice = choose(device, precision)
    lines.append(f"used: {choice.device}, because {choice.device_reason}")
    lines.append(f"      {choice.precision}, because {choice.precision_reason}")
    if choice.device.type == "cpu":
        lines.append(f"      {native.describe(choice.dtype)}")
    kernels.try_operators(choice.device, choice.dtype)
    lines += [*kernels.notices(), *native.notices()]
    return lines
