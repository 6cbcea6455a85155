"""Restore folders of photos with the Restormer network.

The public Python API is small: :class:`Restorer` restores one image in memory,
:func:`restore_folder` a folder. Both are imported on first use, since importing PyTorch takes
seconds and ``restormer --help`` should not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restormer_cli.api import restore_folder
    from restormer_cli.restorer import Restorer

__version__ = "0.1.0"
__all__ = ["Restorer", "__version__", "restore_folder"]


def __getattr__(name: str) -> Any:
    if name == "Restorer":
        from restormer_cli.restorer import Restorer

        return Restorer
    if name == "restore_folder":
        from restormer_cli.api import restore_folder

        return restore_folder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
