"""Walks folders: finds images by suffix, and counts the files that are passed over.

Files are recognised by suffix, since listing a folder opens no files. Only files with no suffix or
an ambiguous one (``a.png.bak``) are opened.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from restormer_cli.batch.items import Problems, in_order
from restormer_cli.batch.journal import FOLDER as RECORD_FOLDER
from restormer_cli.errors import UsageError
from restormer_cli.images.codecs import CODECS, HEAD_BYTES, is_image
from restormer_cli.images.codecs.base import Extra
from restormer_cli.images.formats import result_suffixes
from restormer_cli.system.files import UNFINISHED, why_no_file

#: Suffixes of formats whose library is missing, and what brings it.
EXTRAS = {
    suffix: codec.extra
    for codec in CODECS
    if codec.extra is not None and not codec.extra.installed()
    for suffix in codec.suffixes.split()
}
#: Formats whose library, if they need one, is installed.
READABLE = tuple(codec for codec in CODECS if EXTRAS.keys().isdisjoint(codec.suffixes.split()))
#: Suffixes of those, and of results; a file's content decides what it is.
SUFFIXES = frozenset(suffix for codec in READABLE for suffix in codec.suffixes.split()).union(
    result_suffixes()
)
_OTHER_IMAGES = (
    # for the web and phones
    "gif webp2 wp2 mpo jps pns insp mng jng svg svgz "
    # JPEG 2000, JPEG XR
    "jp2 j2k jpf jpx jpm j2c jpc jph jhc jxr wdp hdp "
    # plain pixels, and high dynamic range
    "ppm pgm pbm pnm pam pfm tga targa icb vda vst exr hdr rgbe xyze pic dpx cin sgi rgb rgba "
    "bw ras sun pcx dcx qoi ff farbfeld bpg flif wbmp xbm xpm xwd pict pct iff lbm ilbm dds "
    "ktx ktx2 fits fit fts dcm dicom ico cur icns emf wmf "
    # documents of editors
    "psd psb xcf kra ora clip afphoto "
    # rare raw files of cameras, and plain samples
    "raw ptx eip dcs dc2 cine rwz mdc ari"
)
#: Image formats that are passed over with a notice.
OTHER_IMAGES = frozenset(f".{suffix}" for suffix in _OTHER_IMAGES.split())
#: Folders in which systems keep thumbnails, deleted files and copies.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin"}
    | {"system volume information", "lost+found", "__macosx"}
)
#: At the beginning of every file of a report.
REPORT_MARK = b"restormer-cli report"
#: Suffixes of files that other programs keep beside an image, such as ``a.jpg.xmp``.
_SIDECARS = frozenset(
    {".xmp", ".json", ".txt", ".xml", ".pp3", ".dop", ".cos", ".md5", ".sha1", ".sha256", ".yml"}
    | {".yaml", ".html", ".aae", ".arp", ".on1"}
)
_PLAIN_SUFFIX = re.compile(r"\.(?=[0-9]*[a-z])[a-z0-9]{1,8}")
_INNER_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, sorted(SUFFIXES)))})(?![a-z0-9])")
#: What stands in a folder for a file that iCloud has not downloaded.
_IN_CLOUD = re.compile(r"\.(.+)\.icloud", re.DOTALL)
#: Most folders, and entries in each, that are searched for images in sub-folders.
_PEEKS, _PEEKED_ENTRIES = 1000, 10_000
#: Names in a notice, and HTML pages of a folder that are checked for being reports.
_NAMED, _PAGES = 3, 20

BELOW = "sub-folders hold images as well; --recursive takes them"


@dataclass
class PassedOver:
    """Images and folders that a walk passed over."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Number of images that are not read, by suffix."""
    extras: dict[Extra, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """The same of images whose library is missing."""
    unnamed: list[str] = field(default_factory=list)
    """Images without the suffix of an image."""
    unfinished: list[str] = field(default_factory=list)
    """Images that are still being written, as their names say."""
    in_cloud: list[str] = field(default_factory=list)
    """Images that iCloud keeps and that are not on this machine."""
    links: list[str] = field(default_factory=list)
    """Links to folders."""
    system: Counter[str] = field(default_factory=Counter)
    """Number of folders of the system, by name."""
    reports: list[str] = field(default_factory=list)
    """Contact sheets and pictures of reports."""
    below: bool = False
    """True if there are images in sub-folders that are not walked."""
    result_folders: list[Path] = field(default_factory=list)
    """Sub-folders with results of other runs, which are among the images found."""
    walked: list[Path] = field(default_factory=list)
    """Folders that were walked, which are not passed over."""

    def notices(self) -> Iterator[str]:
        """A sentence for each kind."""
        if self.kinds:
            yield (
                f"passed over, since they are not read: {_counted(self.kinds)}; "
                "convert them to PNG or TIFF"
            )
        for extra, kinds in self.extras.items():
            yield f"passed over: {_counted(kinds)}; to read such files, {extra.remedy}"
        if self.unnamed:
            yield (
                f"passed over, since their names do not end as those of images: "
                f"{_named(self.unnamed)}; rename them, or give a list with --input-dir -"
            )
        if self.unfinished:
            yield f"passed over, since they are not finished: {_named(self.unfinished)}"
        if self.in_cloud:
            yield (
                f"passed over, since they are in iCloud alone: {_named(self.in_cloud)}; "
                "download them first"
            )
        if self.links:
            count = "1 link to a folder is" if len(self.links) == 1 else (
                f"{len(self.links)} links to folders are"
            )  # fmt: skip
            yield f"{count} not followed: {_named(self.links)}; give the folder as --input-dir"
        if self.system:
            yield f"folders of the system are passed over: {_counted(self.system)}"
        if self.reports:
            yield f"what reports consist of is passed over: {_named(self.reports)}"
        if self.below:
            yield BELOW


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))


def _named(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return ", ".join(ordered[:_NAMED]) + more


def find_images(
    folder: Path,
    recursive: bool,
    excluded: Path | None = None,
    problems: Problems | None = None,
    passed_over: PassedOver | None = None,
) -> list[Path]:
    """Find the image files of a folder, in natural order.

    Symbolic links to files are followed, those to folders are not, so there are no loops.

    Parameters
    ----------
    excluded
        A folder to pass over; so are hidden files and folders.
    problems
        Gets entries named like images that are no files (a pipe, a broken link), and sub-folders
        that cannot be read.
    passed_over
        Gets the images and folders that are passed over.

    Raises
    ------
    UsageError
        If the folder cannot be read.
    """
    problems = [] if problems is None else problems
    passed_over = PassedOver() if passed_over is None else passed_over
    found = walk(folder, recursive, excluded, problems, passed_over)
    return sorted((Path(file) for file, _ in found), key=in_order)


def walk(
    folder: Path,
    recursive: bool,
    excluded: Path | None,
    problems: Problems,
    passed_over: PassedOver,
) -> Iterator[tuple[str, bool]]:
    """Find images as :func:`find_images` does, without an order; each with True if it is a link.

    Raises
    ------
    UsageError
        If the folder cannot be read.
    """
    walked = _Walk(folder, excluded, problems, passed_over)
    try:
        yield from walked.images(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror or error})") from error
    if not recursive:
        passed_over.below = passed_over.below or walked.holds_images()
        return
    # A stack of our own: folders may be nested deeper than Python's calls.
    while walked.pending:
        place = walked.pending.pop()
        try:
            if walked.enter(place):
                yield from walked.images(place.path)
        except OSError as error:
            problems.append((place.path, f"cannot be read ({error.strerror or error})"))


class _Place:
    """A folder that is to be walked."""

    __slots__ = ("identity", "parent", "path")

    def __init__(self, path: Path, parent: _Place | None) -> None:
        self.path, self.parent = path, parent
        self.identity: tuple[int, int] | None = None

    def is_inside(self, identity: tuple[int, int]) -> bool:
        place = self.parent
        while place is not None:
            if place.identity == identity:
                return True
            place = place.parent
        return False


class _Walk:
    """The state of a walk."""

    def __init__(
        self, root: Path, excluded: Path | None, problems: Problems, passed_over: PassedOver
    ) -> None:
        self.problems, self.passed_over = problems, passed_over
        self.pending: list[_Place] = []
        self._here = _Place(root, None)
        self._here.identity = identity(root)
        self._excluded = None if excluded is None else identity(excluded)
        if self._excluded == self._here.identity:
            self._excluded = None

    def enter(self, place: _Place) -> bool:
        """Enter a folder, unless it is excluded or contains itself, as a bind mount can."""
        facts = os.stat(place.path)  # noqa: PTH116 - DirEntry.stat has no inode on Windows
        here = (facts.st_dev, facts.st_ino)
        if here == self._excluded:
            return False
        if place.is_inside(here):
            self.passed_over.links.append(place.path.name)
            return False
        place.identity = here
        self._here = place
        return True

    def images(self, folder: Path) -> Iterator[tuple[str, bool]]:
        """Images directly in a folder; its sub-folders become pending."""
        here = self._here
        self.passed_over.walked.append(folder)
        files: list[tuple[str, bool]] = []
        folders: list[str] = []
        pages: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    if name == RECORD_FOLDER and here.parent is not None:
                        self.passed_over.result_folders.append(folder)
                    elif (match := _IN_CLOUD.fullmatch(name)) and _has_suffix(match[1]):
                        self.passed_over.in_cloud.append(match[1])
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_symlink() and _is_folder(entry):
                    if identity(Path(entry.path)) != self._excluded:
                        self.passed_over.links.append(name)
                elif self._is_image(entry):
                    files.append((entry.path, entry.is_symlink()))
                elif name.endswith(".html") and len(pages) < _PAGES:
                    pages.append(name)
        reports = [name for name in pages if _begins_with_mark(folder / name)]
        if reports:
            folders, files = self._without_reports(reports, folders, files)
        for name in folders:
            if name.lower() in SYSTEM_FOLDERS:
                self.passed_over.system[name] += 1
            else:
                self.pending.append(_Place(folder / name, here))
        yield from files

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        # A folder says of what kind its entries are, so most cost no call of their own: on a
        # network each would be a question to the server.
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - ten times as fast
        if suffix in SUFFIXES:
            if entry.is_file(follow_symlinks=False):
                return True
            path = Path(entry.path)
            if trouble := why_no_file(path, "an image file"):
                self.problems.append((path, trouble))
            return not trouble
        if suffix in EXTRAS:
            self.passed_over.extras[EXTRAS[suffix]][suffix] += 1
        elif suffix in OTHER_IMAGES:
            self.passed_over.kinds[suffix] += 1
        elif suffix in UNFINISHED:
            if _INNER_SUFFIX.search(entry.name.lower()):
                self.passed_over.unfinished.append(entry.name)
        elif _may_be_an_image(entry.name, suffix) and _holds_an_image(entry):
            self.passed_over.unnamed.append(entry.name)
        return False

    def _without_reports(
        self, reports: list[str], folders: list[str], files: list[tuple[str, bool]]
    ) -> tuple[list[str], list[tuple[str, bool]]]:
        """Leave out contact sheets beside reports, and the folders of their pictures."""
        pictures = {f"{Path(name).stem}-files" for name in reports}
        sheets = {
            file
            for file, _ in files
            if file.lower().endswith(".png") and _begins_with_mark(Path(file))
        }
        self.passed_over.reports += map(os.path.basename, sheets)
        self.passed_over.reports += [name for name in folders if name in pictures]
        return (
            [name for name in folders if name not in pictures],
            [(file, linked) for file, linked in files if file not in sheets],
        )

    def holds_images(self) -> bool:
        """True if a short search finds an image in pending folders."""
        peeks = 0
        while self.pending and peeks < _PEEKS:
            place = self.pending.pop()
            peeks += 1
            try:
                if not self.enter(place) or (place.path / RECORD_FOLDER).is_dir():
                    continue
                with os.scandir(place.path) as entries:
                    for entry, _ in zip(entries, range(_PEEKED_ENTRIES), strict=False):
                        if entry.name.startswith("."):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            if entry.name.lower() not in SYSTEM_FOLDERS:
                                self.pending.append(_Place(Path(entry.path), place))
                        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122
                            return True
            except OSError:  # of no concern to this run
                continue
        return False


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of its name; None if it cannot be looked at."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say
        return False


def _has_suffix(name: str) -> bool:
    """True if a file of this name would be looked at as an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES | EXTRAS.keys()  # noqa: PTH122 - as above


def _may_be_an_image(name: str, suffix: str) -> bool:
    """True if a name has no suffix, or that of an image before another one."""
    if suffix in _SIDECARS:
        return False
    return not _PLAIN_SUFFIX.fullmatch(suffix) or bool(_INNER_SUFFIX.search(name.lower()))


def _holds_an_image(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:  # noqa: PTH123 - of a DirEntry
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return is_image(head)


def _begins_with_mark(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return REPORT_MARK in file.read(1024)
    except OSError:
        return False
