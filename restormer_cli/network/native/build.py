"""Compile the kernels; needs nothing but Python's standard library and a compiler.

The build backend calls :func:`build` when a wheel or an editable installation is made.
``python build.py`` does it by hand.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / ("kernels.dll" if sys.platform == "win32" else "kernels.so")
SOURCES = ("kernels.c", "lanes.h", "processor.c")
_X86 = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}
_X86["avx512bf16"] = [*_X86["avx512"], "-mavx512bf16"]
#: What is compiled for a machine: a name for the processors that can run it, and their options.
TARGETS = {"x86_64": _X86, "aarch64": {"neon": []}}
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def machine() -> str:
    """``x86_64``, ``aarch64``, or nothing for a machine that there are no kernels for."""
    return _MACHINES.get(platform.machine().lower(), "")


def digest() -> str:
    """Of the sources; a library that was compiled from others is not used."""
    return hashlib.sha256(b"".join((FOLDER / name).read_bytes() for name in SOURCES)).hexdigest()


def compiler() -> list[str] | None:
    """The command of a C compiler: the machine's own, else that of the package ``ziglang``."""
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    return None


def build(command: list[str]) -> Path:
    """Compile the library with the compiler that ``command`` calls.

    Raises
    ------
    subprocess.CalledProcessError
        If it cannot; ``stderr`` says why.
    """
    options = ["-O3", "-fno-math-errno", "-std=gnu11", "-fPIC", "-ffp-contract=fast", "-fvisibility=hidden"]
    with tempfile.TemporaryDirectory() as folder:

        def compiled(source: str, name: str, *more: str) -> str:
            out = str(Path(folder) / f"{name}.o")
            _call([*command, *options, *more, "-c", str(FOLDER / source), "-o", out])
            return out

        objects = [compiled("processor.c", "processor", f'-DDIGEST="{digest()}"')]
        for target, flags in TARGETS[machine()].items():
            objects.append(compiled("kernels.c", target, f"-DTARGET={target}", *flags))
        made = Path(folder) / LIBRARY.name
        _call([*command, "-shared", *objects, "-o", str(made)])
        shutil.copy(made, LIBRARY)
    return LIBRARY


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    found = compiler()
    if found is None:
        raise SystemExit("there is no C compiler")
    print(build(found))
