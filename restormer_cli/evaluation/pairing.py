"""Pairs results with targets: by name, also as usual data sets name them, or in order."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from restormer_cli.errors import UsageError

#: Words in data sets that tell inputs from targets: ``rain-1`` and ``norain-1`` (Rain100),
#: ``1_rain`` and ``1_clean`` (Raindrop), ``scene1_blur_1`` and ``scene1_gt_1`` (RealBlur),
#: ``0001_NOISY_SRGB_010`` and ``0001_GT_SRGB_010`` (SIDD).
MARKS = frozenset(
    {"rain", "rainy", "norain", "noisy", "clean", "gt", "blur", "blurry", "sharp"}
    | {"input", "source", "target"}
)


@dataclass(frozen=True)
class Pairing:
    """Pairs of files, and files without a pair. Names are relative to their folder."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    """Result and target."""
    errors: dict[str, str] = field(default_factory=dict)
    """Results that could belong to several targets, or share one, each with a sentence."""
    unmatched_results: list[str] = field(default_factory=list)
    unmatched_targets: list[str] = field(default_factory=list)


def pair_names(results: list[str], targets: list[str]) -> Pairing:
    """Find the target of each result by name.

    Names that are equal but for the suffix are paired first (``a.png`` and ``a.jpg``; also
    ``a.jpg.png``, the name of a result that would share its own). The others are compared without
    the words of :data:`MARKS` and without leading zeros. Case is ignored.

    Parameters
    ----------
    results, targets
        Paths relative to their folders with ``/``; sub-folders must agree.
    """
    pairing = Pairing()
    found: dict[str, str] = {}
    left, open_targets = list(results), list(targets)
    for result_key, target_key in ((_stem, _whole), (_stem, _stem), (_unmarked, _unmarked)):
        by_result, by_target = _grouped(left, result_key), _grouped(open_targets, target_key)
        for key, group in by_result.items():
            candidates = by_target.get(key, [])
            if len(group) == 1 and len(candidates) == 1:
                found[group[0]] = candidates[0]
            elif len(candidates) > 1:
                for name in group:
                    pairing.errors[name] = f"could belong to {' or '.join(candidates)}"
            elif candidates:
                for name in group:
                    pairing.errors[name] = f"{' and '.join(group)} could both be {candidates[0]}"
        left = [name for name in left if name not in found and name not in pairing.errors]
        taken = set(found.values())
        open_targets = [name for name in open_targets if name not in taken]
    pairing.pairs.extend((name, found[name]) for name in results if name in found)
    pairing.unmatched_results.extend(left)
    pairing.unmatched_targets.extend(open_targets)
    return pairing


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups


def _whole(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _whole(name).rpartition(".")[0]


def _unmarked(name: str) -> str:
    folder, _, stem = _stem(name).rpartition("/")
    words = [re.sub(r"^0+(?=\d)", "", word) for word in re.split(r"[-_. ]+", stem) if word]
    # A picture called "clean" and nothing else keeps its name.
    kept = [word for word in words if word not in MARKS] or words
    return f"{folder}/{' '.join(kept)}"


def pair_in_order(results: list[str], targets: list[str]) -> Pairing:
    """Pair the first result with the first target and so on, as the authors' scripts do.

    Raises
    ------
    UsageError
        If there are more of one than of the other.
    """
    if len(results) != len(targets):
        raise UsageError(
            f"{len(results)} results and {len(targets)} targets cannot be paired in order"
        )
    return Pairing(list(zip(results, targets, strict=True)))
