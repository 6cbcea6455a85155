"""What the page is given: plain values for JSON of all images of a report."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from restormer_cli.errors import ImageError
from restormer_cli.evaluation.memory_budget import Claim, MemoryBudget
from restormer_cli.evaluation.metrics import METRICS, Metrics, mean_metrics
from restormer_cli.images.reading import read_image
from restormer_cli.report.pictures import (
    PNG,
    Store,
    as_png,
    data_url,
    size_in_base64,
    url_of_file,
)
from restormer_cli.report.subjects import Subject, View
from restormer_cli.system.units import json_number
from restormer_cli.version import __version__

PACKAGES = ("torch", "numpy", "scikit-image", "opencv-python-headless", "pillow")


def page_values(
    shown: Sequence[Subject], store: Store, base: Path, budget: MemoryBudget
) -> dict[str, Any]:
    """Make the values of all images: rows, means, and how the page shows metrics.

    Parameters
    ----------
    shown
        Images whose files have been read; their thumbnails are in the store.
    base
        The folder of the page, which URLs are relative to.
    budget
        Taken from while full-size pictures are read once more.
    """
    embedded = _embed(shown, store)
    return {
        "versions": _versions(),
        "metrics": _metrics(),
        "mean": {
            "before": _mean(one.before for one in shown),
            "after": _mean(one.after for one in shown),
        },
        "rows": [_row(one, store, base, embedded, budget) for one in shown],
    }


def _embed(shown: Sequence[Subject], store: Store) -> bool:
    """True if the full-size pictures fit into the HTML as well."""
    if store.beside:
        return False
    total = store.size
    for view in (view for one in shown for view in one.views.values()):
        with contextlib.suppress(OSError):  # gone since; its thumbnail will stand for it
            total += size_in_base64(view.path.stat().st_size)
    return total <= store.limit


def _row(
    one: Subject, store: Store, base: Path, embedded: bool, budget: MemoryBudget
) -> dict[str, Any]:
    return {
        "name": one.name,
        "status": one.status,
        "reason": one.reason,
        "seconds": one.seconds,
        "before": _figures(one.before),
        "after": _figures(one.after),
        "views": {
            role: {
                "width": view.width,
                "height": view.height,
                "thumbnail": store.url(view.kept),
                "full": _full(view, store, base, embedded, budget),
            }
            for role, view in one.views.items()
        },
    }


def _full(view: View, store: Store, base: Path, embedded: bool, budget: MemoryBudget) -> str:
    """The URL of a picture in full size, or of its thumbnail if the file has gone since."""
    if view.media is None:  # read once more rather than held in memory all the time
        claim = Claim(view.path)
        try:
            with budget.take(claim.decoding + 2 * claim.held):
                data = as_png(read_image(view.path))
        except ImageError:
            return store.url(view.kept)
        return data_url(data, PNG[1]) if embedded else store.write_beside(data, PNG)
    if embedded:
        try:
            return data_url(view.path.read_bytes(), view.media)
        except OSError:
            return store.url(view.kept)
    return url_of_file(view.path, base)


def _figures(metrics: Metrics | None) -> dict[str, float | str] | None:
    if metrics is None:
        return None
    return {key: json_number(value) for key, value in metrics.figures.items()}


def _mean(metrics: Iterable[Metrics | None]) -> dict[str, float | str] | None:
    return _figures(mean_metrics(filter(None, metrics)))


def _metrics() -> list[dict[str, Any]]:
    """How the page shows each metric."""
    return [
        {
            "key": key,
            "label": metric.label,
            "unit": metric.unit,
            "decimals": metric.decimals,
            "better": "higher" if metric.higher_is_better else "lower",
        }
        for key, metric in METRICS.items()
    ]


def _versions() -> dict[str, str]:
    found = {"restormer-cli": __version__, "Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
