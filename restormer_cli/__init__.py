"""Restore folders of photos with the Restormer network.

The public Python API: :func:`load_restorer` loads a network, :class:`Restorer` restores one image
in memory, :func:`restore_folder` a folder, :func:`evaluate_folder` measures one. Each is imported
on first use, since importing PyTorch takes seconds and ``restormer --help`` should not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from restormer_cli.version import __version__

if TYPE_CHECKING:
    from restormer_cli.api import restore_folder
    from restormer_cli.evaluation.evaluate import evaluate_folder
    from restormer_cli.loading import load_restorer
    from restormer_cli.restorer import Restorer

__all__ = ["Restorer", "__version__", "evaluate_folder", "load_restorer", "restore_folder"]

_HOMES = {
    "Restorer": "restormer_cli.restorer",
    "evaluate_folder": "restormer_cli.evaluation.evaluate",
    "load_restorer": "restormer_cli.loading",
    "restore_folder": "restormer_cli.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
