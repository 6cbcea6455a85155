"""The virtual environment that the scripts share; needs nothing but Python's standard library."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
STAMP = FOLDER / "installed.sha256"
NATIVE = ROOT / "restormer_cli" / "network" / "native"
OLDEST_PYTHON = (3, 10)


def inside() -> bool:
    """True if this is the environment's own Python."""
    return Path(sys.prefix).resolve() == FOLDER.resolve()


def command(name: str) -> Path:
    """A program of the environment."""
    folder = FOLDER / ("Scripts" if os.name == "nt" else "bin")
    return folder / (f"{name}.exe" if os.name == "nt" else name)


def ensure(extra: str = "") -> None:
    """Make the environment and install the checkout in it, unless that is done already.

    ``extra`` names an optional set of dependencies. An environment with more stays as it is.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise SystemExit("restormer-cli needs Python 3.10 or newer")
    # The kernels in C are compiled when the checkout is installed.
    names = ("pyproject.toml", "constraints.txt", "hatch_build.py")
    files = [*(ROOT / name for name in names), *sorted(NATIVE.glob("*.[ch]")), NATIVE / "build.py"]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    done = STAMP.read_text(encoding="utf-8").split() if STAMP.exists() else []
    if done[:1] == [wanted] and (not extra or extra in done[1:]):
        return
    extras = sorted({extra, *done[1:]} - {""})
    print(f"Installing into {FOLDER.name}; this takes a few minutes the first time.", flush=True)
    if not command("python").exists():
        venv.create(FOLDER, with_pip=True)
    elif not command("pip").exists():  # its making was stopped, or another tool made it
        ensurepip = [str(command("python")), "-m", "ensurepip", "--default-pip"]
        subprocess.run(ensurepip, check=True, stdout=subprocess.DEVNULL)
    target = str(ROOT) + (f"[{','.join(extras)}]" if extras else "")
    pip = [str(command("python")), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), "-e", target], check=True)
    STAMP.write_text(" ".join([wanted, *extras]), encoding="utf-8")


def run(*arguments: str) -> int:
    """Run a program of the environment in the checkout; its exit status."""
    program, *rest = arguments
    return subprocess.run([str(command(program)), *rest], cwd=ROOT, check=False).returncode
