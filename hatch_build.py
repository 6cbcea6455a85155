"""Build hook: the kernels in C are compiled when a wheel or an editable installation is made.

Where that fails the installation goes on without them: PyTorch's kernels do the same, slower.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("restormer_cli", "network", "native")


def _build_module(root: str) -> ModuleType:
    """``build.py``, loaded by its path: the package itself needs PyTorch."""
    spec = importlib.util.spec_from_file_location("build_kernels", Path(root) / NATIVE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """A compiler from PyPI, some 100 MB, only where the machine has none that serves."""
        builder = _build_module(self.root)
        if not builder.machine() or builder.can_compile():
            return []
        return ["ziglang>=0.13"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        builder = _build_module(self.root)
        library: Path = builder.LIBRARY
        made = [library, library.with_suffix(builder.RECORD)]
        try:
            builder.build()
        except OSError as error:
            self.app.display_warning(f"PyTorch's kernels alone will be used, since {error}")
            for file in made:
                file.unlink(missing_ok=True)
            return
        build_data["artifacts"] += [(NATIVE / file.name).as_posix() for file in made]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{builder.wheel_platform()}"
