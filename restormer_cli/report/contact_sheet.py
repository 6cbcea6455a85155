"""Draws contact sheets: all images of a report as PNG, for use without a browser."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from restormer_cli.batch.walk import REPORT_MARK
from restormer_cli.report.pictures import Store
from restormer_cli.report.subjects import Role, Subject
from restormer_cli.system.atomic import atomic_file

#: Images on one sheet; with more the file would be too large for many viewers.
ON_A_SHEET = 40
COLUMNS = 2
ROLES: tuple[Role, ...] = ("input", "result", "target")

TILE = (280, 187)
GAP, MARGIN, CAPTION = 4, 40, 44
HEADER = 84
PAPER, INK, MUTED, BLANK, BAD = "#ffffff", "#1d1c1a", "#6b6862", "#eeece8", "#a8271d"


def sheet_paths(path: Path, images: int) -> list[Path]:
    """The paths of all sheets: ``sheet.png``, ``sheet-2.png`` and so on."""
    count = max(1, math.ceil(images / ON_A_SHEET))
    return [path, *(path.with_stem(f"{path.stem}-{n}") for n in range(2, count + 1))]


def draw_sheets(
    shown: Sequence[Subject], store: Store, paths: Sequence[Path], title: str
) -> list[Path]:
    """Draw all images on the sheets of :func:`sheet_paths`; none if there are no paths.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    roles = [role for role in ROLES if any(role in one.views for one in shown)]
    for number, path in enumerate(paths):
        part = shown[number * ON_A_SHEET : (number + 1) * ON_A_SHEET]
        pages = f"{number + 1} of {len(paths)}" if len(paths) > 1 else ""
        facts = "   ·   ".join(filter(None, [f"{len(shown)} images", ", ".join(roles), pages]))
        sheet = _draw(part, store, roles, title, facts)
        info = PngInfo()
        info.add_text("Software", REPORT_MARK.decode("ascii"))
        data = io.BytesIO()
        sheet.save(data, "PNG", pnginfo=info)
        with atomic_file(path) as file:
            file.write(data.getvalue())
    return list(paths)


def _draw(
    shown: Sequence[Subject], store: Store, roles: Sequence[Role], title: str, facts: str
) -> Image.Image:
    wide = max(1, len(roles)) * (TILE[0] + GAP) - GAP
    columns = min(COLUMNS, max(1, len(shown)))
    rows = math.ceil(len(shown) / columns)
    size = (
        2 * MARGIN + columns * (wide + MARGIN) - MARGIN,
        HEADER + MARGIN + rows * (TILE[1] + CAPTION),
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(26), ImageFont.load_default(15)
    width = size[0] - 2 * MARGIN
    draw.text((MARGIN, 24), _fit(draw, title, large, width), INK, font=large)
    draw.text((MARGIN, 58), _fit(draw, facts, small, width), MUTED, font=small)
    for index, one in enumerate(shown):
        row, column = divmod(index, columns)
        left = MARGIN + column * (wide + MARGIN)
        top = HEADER + 12 + row * (TILE[1] + CAPTION)
        for place, role in enumerate(roles):
            tile = _tile(one, role, store)
            sheet.paste(tile, (left + place * (TILE[0] + GAP), top))
        figures = _figures(one)
        room = wide - draw.textlength(figures, font=small) - 16
        under = top + TILE[1] + 8
        draw.text((left, under), _fit(draw, one.name, small, room), INK, font=small)
        color = BAD if one.status == "failed" else MUTED
        draw.text((left + wide, under), figures, color, font=small, anchor="ra")
    return sheet


def _tile(one: Subject, role: Role, store: Store) -> Image.Image:
    """Draw a thumbnail that fills the tile; a blank one without a picture."""
    tile = Image.new("RGB", TILE, BLANK)
    view = one.views.get(role)
    if view is None:
        return tile
    picture = Image.open(io.BytesIO(store.read(view.kept))).convert("RGB")
    scale = max(TILE[0] / picture.width, TILE[1] / picture.height)
    size = (max(TILE[0], round(picture.width * scale)), max(TILE[1], round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = ((a - b) // 2 for a, b in zip(size, TILE, strict=True))
    tile.paste(picture.crop((left, top, left + TILE[0], top + TILE[1])))
    return tile


def _figures(one: Subject) -> str:
    if one.after is None:
        return "" if one.status == "restored" else one.status
    after = f"{one.after.psnr:.2f} dB"
    return after if one.before is None else f"{one.before.psnr:.2f} to {after}"


def _fit(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: float,
) -> str:
    """Shorten a text in the middle to fit; replace characters that cannot be printed."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if draw.textlength(text, font=font) <= width:
        return text
    keep = len(text)
    while keep > 1:
        keep -= 1
        shorter = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
        if draw.textlength(shorter, font=font) <= width:
            return shorter
    return "…"
