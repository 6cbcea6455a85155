"""A folder with one file of every kind: a right result or one clear line for each."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from helpers import names, random_pixels, read, restormer, save, zero_network
from image_files import (
    WHITE_LEVEL,
    avif,
    bayer,
    dng,
    heic,
    jxl,
    saved,
    srgb,
    tiff_by_library,
)

HEIGHT, WIDTH = 64, 96


def samples(seed: int, bits: int = 8, channels: int = 3) -> Any:
    pixels = random_pixels(HEIGHT, WIDTH, channels, 8 if bits == 8 else 16, seed)
    return pixels if bits in (8, 16) else pixels >> (16 - bits)


def spread(pixels: Any, bits: int) -> Any:
    """As results have them."""
    if bits == 8:
        return pixels
    return np.rint(pixels * (65535 / (2**bits - 1))).astype(np.uint16)


def packed_tiff(pixels: Any, bits: int) -> bytes:
    """Samples without a gap between them, in one strip, by hand: no library writes such files."""
    rows = imagecodecs.packints_encode(pixels, bits)
    facts = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: 1, 277: 1, 278: HEIGHT}
    facts |= {273: 8 + 2 + 12 * 9 + 4, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, facts[tag]) for tag in sorted(facts))
    return b"II*\0" + struct.pack("<IH", 8, len(facts)) + entries + bytes(4) + rows


def every_kind() -> dict[str, tuple[bytes, Any, int]]:
    """Files by name, the pixels of their results, and by how much these may differ."""
    made: dict[str, tuple[bytes, Any, int]] = {}

    def add(name: str, data: bytes, pixels: Any, tolerance: int = 0) -> None:
        made[name] = data, pixels, tolerance

    def fresh(bits: int = 8, channels: int = 3) -> Any:
        return samples(len(made), bits, channels)

    for name, kind in (("a.png", "PNG"), ("b.bmp", "BMP"), ("c.tif", "TIFF")):
        pixels = fresh()
        add(name, saved(pixels, kind), pixels)
    pixels = fresh()
    add("d.webp", saved(pixels, "WEBP", lossless=True), pixels)
    pixels = fresh(channels=1)
    add("e.jpg", saved(np.full_like(pixels[..., 0], 99), "JPEG"), np.full_like(pixels, 99))
    for bits in (8, 10, 12):
        pixels = fresh(bits)
        add(f"f{bits}.heic", heic(pixels, bits), spread(pixels, bits))
        pixels = fresh(bits, 4)
        add(f"g{bits}.hif", heic(pixels, bits), spread(pixels, bits))
        pixels = fresh(bits)
        add(f"h{bits}.avif", avif(pixels, bits), spread(pixels, bits))
    for bits in (8, 10, 12, 14, 16):
        pixels = fresh(bits)
        add(f"i{bits}.jxl", jxl(pixels, bits), spread(pixels, bits))
    for bits in (10, 12, 14):
        pixels = fresh(bits, 1)
        add(f"j{bits}.tiff", packed_tiff(pixels[..., 0], bits), spread(pixels, bits))
    for kind in (np.float16, np.float32, np.float64):
        pixels = (fresh(16) / 65535).astype(kind)
        wide = pixels.astype(np.result_type(kind, np.float32))
        expected = np.rint(wide * wide.dtype.type(65535)).astype(np.uint16)
        name = f"k{np.dtype(kind).itemsize}.tif"
        add(name, tiff_by_library(pixels, photometric="rgb"), expected)
    for number, name in enumerate(("l.dng", "m.NEF", "n.arw", "o.pef")):
        colour = (400 + number, 800 + number, 600)
        light = 65535 * srgb(np.array(colour) / WHITE_LEVEL)
        expected = np.broadcast_to(light, (HEIGHT, WIDTH, 3))
        add(name, dng(bayer(HEIGHT, WIDTH, colour)), expected, 16)
    return made


KINDS = every_kind()
RAW = (".dng", ".nef", ".arw", ".pef")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save(zero_network("bias_free"), tmp_path / "net.safetensors")


def denoise(weights: Path, folder: Path) -> Any:
    return restormer(
        "denoise", "--kind", "color", "--weights", weights, "--input-dir", folder / "in",
        "--result-dir", folder / "out", "--precision", "float32",
    )  # fmt: skip


def result_of(name: str) -> str:
    return f"{Path(name).stem}.png"


def test_each_gets_its_result(weights: Path, tmp_path: Path) -> None:
    assert len({data for data, *_ in KINDS.values()}) == len(KINDS)
    (tmp_path / "in").mkdir()
    for name, (data, *_) in KINDS.items():
        (tmp_path / "in" / name).write_bytes(data)
    ran = denoise(weights, tmp_path)
    assert ran.status == 0, ran.err
    assert names(tmp_path / "out") == sorted(map(result_of, KINDS))
    for name, (_, expected, tolerance) in KINDS.items():
        result = read(tmp_path / "out" / result_of(name))
        assert result.shape == expected.shape, name
        inner = result[10:-4, 4:-4] if name.lower().endswith(RAW) else result
        wanted = expected[10:-4, 4:-4] if name.lower().endswith(RAW) else expected
        assert np.abs(inner - wanted.astype(float)).max() <= tolerance, name
        assert result.dtype == (np.uint8 if expected.dtype == np.uint8 else np.uint16), name


def test_each_that_is_cut_off_gets_one_line_and_costs_no_other(
    weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name, (data, *_) in KINDS.items():
        (tmp_path / "in" / name).write_bytes(data[: len(data) * 2 // 3])
    data, pixels, _ = KINDS["a.png"]
    (tmp_path / "in" / "whole.png").write_bytes(data)
    ran = denoise(weights, tmp_path)
    assert ran.status == 1
    assert names(tmp_path / "out") == ["whole.png"]
    np.testing.assert_array_equal(read(tmp_path / "out" / "whole.png"), pixels)
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(KINDS)
    for name in KINDS:
        (line,) = [line for line in errors if f"{name}: " in line]
        assert "damaged" in line or "cut off" in line, line
        assert "fault of restormer-cli" not in line
