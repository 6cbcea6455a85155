"""Explains errors of the system, such as a lack of memory, in one sentence."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from restormer_cli.errors import UsageError
from restormer_cli.system.units import format_bytes

#: Least address space for PyTorch and OpenCV. With less some of their libraries end the process
#: instead of raising an error (measured: at 0.4 GB).
LEAST_ADDRESS_SPACE = 1 << 30
#: Messages of the loader, native libraries and Python when memory is short.
_MEMORY = (
    "failed to map segment",
    "cannot allocate memory",
    "can't allocate memory",
    "cannot map zero-fill pages",
    "bad_alloc",
    "could not create a primitive",
    "out of memory",
)
_GONE = "the working folder is not there any more; change to another one"
_THREAD = "can't start new thread"


def reason(error: BaseException) -> str | None:
    """Explain an error as a sentence; None for an error of ours.

    Parameters
    ----------
    error
        An error of the system, of Python's import or of a native library.
    """
    text = _root(error)
    if isinstance(error, MemoryError) or is_memory_message(text):
        what = "to load the libraries" if is_loading(error) else "to go on"
        return f"not enough memory {what}{_in_brackets(text)}; {_remedy()}"
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return "the system opens no more files; raise the limit of open files (ulimit -n)"
    if _THREAD in text:
        return "the system starts no more threads; raise the limit of processes (ulimit -u)"
    if isinstance(error, ImportError) or (is_loading(error) and isinstance(error, OSError)):
        return (
            f"a library cannot be loaded{_in_brackets(text)}; install restormer-cli and what it "
            "depends on again"
        )
    if isinstance(error, FileNotFoundError) and _folder_is_gone():
        return _GONE
    if not isinstance(error, OSError):
        return None
    what = error.strerror or text
    return what if error.filename is None else f"{os.fsdecode(error.filename)}: {what}"


def is_memory_message(text: str) -> bool:
    """True if a message of a native library means that memory is short."""
    return any(words in text.lower() for words in _MEMORY)


def is_loading(error: BaseException) -> bool:
    """True if an error was raised while a library was being loaded, so before any work."""
    return isinstance(error, ImportError) or _passes_import(error.__traceback__)


def _passes_import(trace: TracebackType | None) -> bool:
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":  # Python hides the frames of import
            return True
        trace = trace.tb_next
    return False


def _root(error: BaseException) -> str:
    """The first line of the first error of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else ""


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def address_space() -> int | None:
    """Most bytes that this process may map (``ulimit -v``); None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def check_torch_can_load() -> None:
    """Check that nothing keeps PyTorch from loading; call it before importing PyTorch.

    Raises
    ------
    UsageError
        If it does not fit into the address space, or the working folder is gone, from which
        Intel's library ends the process without a word.
    """
    if _folder_is_gone():
        raise UsageError(_GONE)
    limit = address_space()
    if limit is not None and limit < LEAST_ADDRESS_SPACE:
        raise UsageError(
            f"not enough memory: the system allows {format_bytes(limit)} of address space, and "
            f"PyTorch takes {format_bytes(LEAST_ADDRESS_SPACE)}; raise the limit (ulimit -v)"
        )


def _remedy() -> str:
    limit = address_space()
    if limit is None:
        return "free some"
    return f"the system allows {format_bytes(limit)} of address space: raise the limit (ulimit -v)"


def _folder_is_gone() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd is the same
    except OSError:
        return True
    return False
