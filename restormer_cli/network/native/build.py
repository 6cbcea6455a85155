"""Compile the kernels; needs nothing but Python's standard library and a C compiler.

The build backend calls this when a wheel or an editable installation is made (``hatch_build.py``).
``python build.py`` does it by hand.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / ("kernels.dll" if sys.platform == "win32" else "kernels.so")
#: Ending of the file beside it that tells what it was made from.
RECORD = ".sha256"
SOURCES = ("kernels.c", "lanes.h", "dot_products.h", "products.h", "passes.h", "processor.c")
OPTIONS = ("-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma")
#: For each machine, by the names that ``processor.c`` gives: what is compiled, and how.
TARGETS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx2": ("-mavx2", "-mfma"),
        "avx512": _AVX512,
        "avx512bf16": (*_AVX512, "-mavx512bf16"),
    },
    "aarch64": {"neon": ()},
}
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_OLDEST_MACOS = "11.0"


def machine() -> str:
    """What is compiled for: ``x86_64``, ``aarch64``, or nothing where there are no kernels."""
    # A Python may be for another machine than the system that it runs on.
    name = sysconfig.get_platform().rsplit("-", 1)[-1]
    if sys.platform == "darwin":
        name = platform.machine()  # the other may be "universal2"
    if sys.platform not in {"linux", "darwin", "win32"} or sys.maxsize < 2**32:
        return ""
    return _MACHINES.get(name.lower(), "")


def wheel_platform() -> str:
    """The platform that a wheel with the library is for, as its name tells it."""
    if sys.platform == "darwin":
        return f"macosx_{_OLDEST_MACOS.replace('.', '_')}_{platform.machine()}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def record(library: Path) -> str:
    """The digests of the sources and of the library made from them.

    It stands in a file beside the library. One that is cut off would crash the process when it is
    loaded; one from other sources might do anything.
    """
    sources = (FOLDER / name for name in SOURCES)
    # Git may have changed the ends of lines.
    text = b"".join(source.read_bytes().replace(b"\r\n", b"\n") for source in sources)
    digests = (hashlib.sha256(data).hexdigest() for data in (text, library.read_bytes()))
    return "\n".join(digests)


def is_sound(library: Path) -> bool:
    """True if the library is whole and made from these sources."""
    try:
        return library.with_suffix(RECORD).read_text(encoding="ascii") == record(library)
    except (OSError, ValueError):
        return False


def compilers() -> list[list[str]]:
    """Commands of C compilers, in the order in which to try them.

    First the machine's own, or what the environment variable ``CC`` says; then that of the package
    ``ziglang``, which comes from PyPI.
    """
    commands = []
    if os.environ.get("CC"):
        commands.append(shlex.split(os.environ["CC"]))
    elif sys.platform == "linux" or (sys.platform == "darwin" and _has_command_line_tools()):
        commands += [[name] for name in ("cc", "gcc", "clang") if shutil.which(name)]
    if importlib.util.find_spec("ziglang"):
        commands.append([sys.executable, "-m", "ziglang", "cc"])
    return commands


def _has_command_line_tools() -> bool:
    """True if macOS's ``cc`` is a compiler; else it opens a window that offers to install one."""
    return subprocess.run(["xcode-select", "-p"], check=False, capture_output=True).returncode == 0


def can_compile() -> bool:
    """True if there is a compiler that takes the sources and links a library."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            build(into=Path(folder) / LIBRARY.name, check_only=True)
        except OSError:
            return False
    return True


def build(into: Path = LIBRARY, *, check_only: bool = False) -> None:
    """Compile the library with the first of the compilers that can.

    With ``check_only`` it is not optimised, which takes a fifth of the time.

    Raises
    ------
    OSError
        If none can; it says why the last one could not.
    """
    trouble = "there is no C compiler" if machine() else "there are no kernels for this machine"
    if machine():
        for command in compilers():
            try:
                _build([*command, "-O0"] if check_only else [*command, "-O3"], into)
            except subprocess.CalledProcessError as error:
                trouble = f"{shlex.join(error.cmd)} failed:\n{error.stderr}"
            except OSError as error:
                trouble = str(error)
            else:
                return
    raise OSError(trouble)


def _build(command: list[str], into: Path) -> None:
    options = [*command, *OPTIONS, *_platform_options("ziglang" in command)]
    with (
        tempfile.TemporaryDirectory(dir=into.parent, prefix="build-") as folder,
        concurrent.futures.ThreadPoolExecutor() as threads,
    ):

        def compile_(source: str, name: str, *more: str) -> str:
            out = str(Path(folder) / f"{name}.o")
            _call([*options, *more, "-c", str(FOLDER / source), "-o", out])
            return out

        jobs = [threads.submit(compile_, "processor.c", "processor")]
        for target, flags in TARGETS[machine()].items():
            for bfloat16, precision in enumerate(("float32", "bfloat16")):
                variant = f"{precision}_{target}"
                more = (f"-DVARIANT={variant}", f"-DBFLOAT16={bfloat16}", *flags)
                jobs.append(threads.submit(compile_, "kernels.c", variant, *more))
        made = Path(folder) / into.name
        _call([*options, "-shared", *(job.result() for job in jobs), "-o", str(made)])
        record_of_made = made.with_suffix(RECORD)
        record_of_made.write_text(record(made), encoding="ascii")
        made.replace(into)  # never half-written: a process may be using the old one
        record_of_made.replace(into.with_suffix(RECORD))


def _platform_options(zig: bool) -> list[str]:
    if sys.platform == "win32":
        return []
    if sys.platform != "darwin":
        return ["-fPIC"]
    if zig:
        return ["-fPIC", "-target", f"{machine()}-macos.{_OLDEST_MACOS}"]
    return ["-fPIC", "-arch", platform.machine(), f"-mmacosx-version-min={_OLDEST_MACOS}"]


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")


if __name__ == "__main__":
    build()
