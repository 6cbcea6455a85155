"""What devices say when something is wrong with them: there are few exceptions, and many texts."""

from __future__ import annotations

import re

import torch

from restormer_cli.errors import DeviceError
from restormer_cli.system.limits import is_memory_message

#: A library of the device got no memory, or so it must be taken: what cannot make its handle or
#: finds no way to compute mostly could not allocate. The last two lines are pieces of work that are
#: too large to be counted. Where a smaller piece fails as well, nothing is lost but the attempt.
_TOO_MUCH = re.compile(
    r"""alloc(ation)?_?failed | memory_?allocation | out_?of_?memory | insufficient[ ]memory
    | failed[ ]to[ ]allocate | could[ ]not[ ]allocate | not[ ]enough[ ]memory
    | invalid[ ]buffer[ ]size
    | (blas|dnn|solver|miopen)_?status_?(not_?initialized|internal_?error|execution_?failed)
    | unable[ ]to[ ]find[ ]an[ ]engine | unable[ ]to[ ]find[ ]a[ ]valid[ ]cudnn[ ]algorithm
    | 32bitindexmath | int_max | total[ ]bytes[ ]of[ ]ndarray
    | invalid[ ]configuration[ ]argument""",
    re.IGNORECASE | re.VERBOSE,
)
#: A driver or a library of a device speaks, whatever it says.
_FROM_DEVICE = re.compile(
    r"\b(CUDA|HIP|cuDNN|MIOpen|Metal|MPS|NVML|NVIDIA|HSA)\b|\b(CUBLAS|CUDNN|HIPBLAS)_STATUS_"
)
_REMEDIES = {
    r"no kernel image|not compiled for": "install a PyTorch that is made for it",
    r"busy or unavailable|exclusive": "wait until nobody else uses it",
    r"\bdriver\b(?! error)": "update its driver",
}


def is_out_of_memory(error: BaseException) -> bool:
    """True if a device or the system refused memory, or the work was too much to be given at once.

    Then less at once may do.
    """
    # PyTorch before 2.5 has the exception for CUDA alone.
    named = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
    if isinstance(error, (MemoryError, named)):
        return True
    text = str(error)
    return is_memory_message(text) or _TOO_MUCH.search(text) is not None


def is_device_trouble(error: BaseException) -> bool:
    """True if it is the device that an operation failed on, and not the operation."""
    if isinstance(error, NotImplementedError):  # PyTorch has no such operation for it
        return False
    accelerator = getattr(torch, "AcceleratorError", MemoryError)  # new in PyTorch 2.8
    return (
        isinstance(error, accelerator)
        or is_out_of_memory(error)
        or _FROM_DEVICE.search(str(error)) is not None
    )


def unusable(device: torch.device | str, error: BaseException) -> DeviceError:
    """What to tell a person of a device that fails before any work, with the remedy."""
    text = first_line(error)
    remedies = [r for pattern, r in _REMEDIES.items() if re.search(pattern, text, re.IGNORECASE)]
    if is_out_of_memory(error):
        remedies = ["free some of its memory"]
    return DeviceError(
        f"{device} cannot be used ({text}); {', or '.join([*remedies[:1], 'say --device cpu'])}"
    )


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without full stop; its kind if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
