"""Odd files in folders: each is restored in a documented way or named in one line."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from helpers import names, random_pixels, read, restormer, save, smooth_pixels, write, zero_network
from image_files import SAMPLES

from restormer_cli.errors import ImageError
from restormer_cli.system.files import read_file

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that gives back its input."""
    return save(zero_network(), tmp_path_factory.mktemp("weights") / "zero.safetensors")


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def make_restorable(folder: Path) -> dict[str, str]:
    """Strange files that are restored; the notice each one gets, or ""."""
    folder.mkdir(parents=True)
    colour = PIL.Image.fromarray(smooth_pixels(20, 30))
    colour.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    colour.quantize(16).save(folder / "palette.png")
    colour.convert("1").save(folder / "one-bit.png")
    colour.convert("1").save(folder / "fax.tif", compression="group4")
    others = [PIL.Image.fromarray(random_pixels(20, 30, seed=s)) for s in (1, 2)]
    colour.save(folder / "animated.png", save_all=True, append_images=others)
    colour.save(folder / "animated.webp", save_all=True, append_images=others, lossless=True)
    colour.save(folder / "pages.tif", save_all=True, append_images=others)
    colour.save(folder / "really-a.jpg", "PNG")
    colour.save(folder / "long-and-thin.png")
    write(folder / "long-and-thin.png", random_pixels(1, 5000))
    # A profile that libpng complains about, on file descriptor 2.
    body = zlib.compress(bytes(3 * 8 + 1) * 8)
    profile = png_chunk(b"iCCP", b"bad\0\0" + zlib.compress(b"no profile" * 20))
    (folder / "noisy.png").write_bytes(png(8, 8, profile, png_chunk(b"IDAT", body)))
    frames, pages = ("only the first of 3 frames", "only the first of 3 pages")
    notices = {"animated.png": frames, "animated.webp": frames, "pages.tif": pages}
    notices["cmyk.jpg"] = "is CMYK"
    notices["noisy.png"] = "colour profile is damaged"
    return {path.name: notices.get(path.name, "") for path in folder.iterdir()}


def make_unreadable(folder: Path) -> dict[str, str]:
    """Files that cannot be restored; words of the line that each one gets."""
    folder.mkdir(parents=True)
    whole = write(folder / "cut-off.png", random_pixels(40, 40)).read_bytes()
    (folder / "cut-off.png").write_bytes(whole[: len(whole) // 2])
    cut = write(folder / "cut-off.jpg", smooth_pixels(64, 64)).read_bytes()
    (folder / "cut-off.jpg").write_bytes(cut[: len(cut) // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("these are no pixels")
    (folder / "bomb.png").write_bytes(
        png(40000, 40000, png_chunk(b"IDAT", zlib.compress(bytes(10**5))))
    )
    cv2.imwrite(str(folder / "float.tif"), np.full((8, 8, 3), np.nan, np.float32))
    for name, kind in (("cut-off.dng", "camera raw"), ("cut-off.heic", "HEIC"),
                       ("cut-off.avif", "AVIF"), ("cut-off.jxl", "JPEG XL")):  # fmt: skip
        (folder / name).write_bytes(SAMPLES[kind][: len(SAMPLES[kind]) // 2])
    # LibRaw speaks of it on file descriptor 2.
    (folder / "empty-inside.orf").write_bytes(b"IIRO\x08\0\0\0" + bytes(500))
    (folder / "ends-early.cr2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
    done, radiance = cv2.imencode(".hdr", np.full((8, 8, 3), 0.5, np.float32))
    assert done
    (folder / "hdr.png").write_bytes(radiance.tobytes())
    return {
        "cut-off.png": "cut off",
        "cut-off.jpg": "cut off",
        "empty.png": "0 bytes",
        "text.jpg": "not an image",
        "bomb.png": "40000×40000 pixels, more than the limit",
        "float.tif": "not a number",
        "cut-off.dng": "cut off",
        "cut-off.heic": "cut off",
        "cut-off.avif": "cut off",
        "cut-off.jxl": "cut off",
        "empty-inside.orf": "cannot be read",
        "ends-early.cr2": "damaged",
        "hdr.png": "float32",
    }


def test_strange_files_are_restored_with_a_notice_where_something_is_left_out(
    tmp_path: Path, weights: Path
) -> None:
    expected = make_restorable(tmp_path / "in")
    ran = restormer(
        *("derain", "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out"),
        *("--weights", weights, "--json"),
    )
    assert ran.status == 0, ran.err
    results = {Path(line["input"]).name: line for line in map(json.loads, ran.lines)}
    assert {name: line["status"] for name, line in results.items()} == dict.fromkeys(
        expected, "done"
    )
    for name, words in expected.items():
        said = [line for line in ran.err.splitlines() if f"/{name}: " in line]
        assert not words or sum(words in line for line in said) == 1, ran.err
    same = ("animated.png", "animated.webp", "pages.tif", "really-a.jpg")
    for name in same:
        assert np.array_equal(read(Path(results[name]["result"])), smooth_pixels(20, 30)), name


@pytest.mark.parametrize("kind", ["bad", "good"])
def test_nothing_leaks_from_libraries(tmp_path: Path, weights: Path, kind: str) -> None:
    expected = (make_restorable if kind == "good" else make_unreadable)(tmp_path / "in")
    words = ["derain", "--weights", str(weights), "--input-dir", "in", "--result-dir", "out"]
    ran = subprocess.run(
        [sys.executable, "-m", "restormer_cli.cli", *words],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    *lines, summary = ran.stderr.splitlines()
    assert f"{len(expected) if kind == 'bad' else 0} failed" in summary
    told = {name: words for name, words in expected.items() if words}
    # Some names collide, of which notices tell.
    lines = [line for line in lines if "would share" not in line]
    assert len(lines) == len(told), ran.stderr
    for name, words in told.items():
        assert sum(f"{name}: " in line and words in line for line in lines) == 1, ran.stderr
    assert ran.returncode == (1 if kind == "bad" else 0)


def test_evaluation_tells_nothing_that_libraries_mutter(tmp_path: Path) -> None:
    write(tmp_path / "results" / "a.png", random_pixels(16, 16))
    interlaced = bytearray(png(16, 16, png_chunk(b"IDAT", zlib.compress(bytes(1000)))))
    interlaced[28] = 1  # of which imagecodecs speaks
    interlaced[29:33] = struct.pack(">I", zlib.crc32(interlaced[12:29]))
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "a.png").write_bytes(bytes(interlaced))
    words = ["evaluate", "--result-dir", "results", "--target-dir", "targets"]
    ran = subprocess.run(
        [sys.executable, "-m", "restormer_cli.cli", *words],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[0].startswith("protocol: ")
    assert len(ran.stderr.splitlines()) == 1


def test_limit_of_megapixels_can_be_set(tmp_path: Path, weights: Path) -> None:
    write(tmp_path / "in" / "a.png", random_pixels(100, 100))
    write(tmp_path / "in" / "b.png", random_pixels(100, 101))
    words = ("derain", "--input-dir", tmp_path / "in", "--weights", weights)
    ran = restormer(*words, "--result-dir", tmp_path / "out", "--max-megapixels", "0.01")
    assert ran.status == 1
    assert ran.lines == [str(tmp_path / "out" / "a.png")]
    assert "b.png: claims 101×100 pixels, more than the limit of 0.01 megapixels" in ran.err


@posix
def test_pipes_devices_sockets_and_links_to_nothing_are_named_and_never_opened(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    write(source / "good.png", random_pixels(8, 8))
    os.mkfifo(source / "pipe.png")
    (source / "loop.png").symlink_to(source / "loop.png")
    (source / "nowhere.png").symlink_to(source / "missing")
    (source / "zero.png").symlink_to("/dev/zero")
    (source / "round").symlink_to(source, target_is_directory=True)
    (source / "album.png").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(source)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out", "-r")
        ran = restormer(*words, "--weights", weights)
        listed = "\n".join(str(source / f"{n}.png") for n in ("pipe", "zero", "socket", "good"))
        by_list = restormer(
            *("derain", "--input-dir", "-", "--result-dir", tmp_path / "listed"),
            *("--weights", weights),
            stdin=listed.encode(),
        )
    assert ran.status == 1
    assert ran.lines == [str(tmp_path / "out" / "good.png")]
    errors = sorted(line for line in ran.err.splitlines() if line.startswith("error: "))
    expected = {"loop": "cannot be read", "nowhere": "is a link to a file that is not there"}
    expected |= {"pipe": "is a pipe", "socket": "is a socket", "zero": "is a device"}
    assert len(errors) == len(expected)
    for line, (name, words_) in zip(errors, sorted(expected.items()), strict=True):
        assert line.startswith(f"error: {source / name}.png: {words_}")
    assert by_list.status == 1
    assert by_list.lines == [str(tmp_path / "listed" / "good.png")]
    assert by_list.err.count("error: ") == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("json_lines", [False, True])
def test_names_that_are_no_text_pass_through_as_bytes_and_json_stays_json(
    tmp_path: Path, weights: Path, json_lines: bool
) -> None:
    source = tmp_path / "in"
    raw = os.fsdecode(b"caf\xe9 \xff.png")
    write(source / raw, random_pixels(8, 8))
    (source / os.fsdecode(b"bad \xfe.png")).write_bytes(b"no image")
    report = tmp_path / "report.jsonl"
    words = ["derain", "--input-dir", "in", "--result-dir", "out", "--report", str(report)]
    ran = subprocess.run(
        [sys.executable, "-m", "restormer_cli.cli", *words, "--weights", str(weights)]
        + (["--json"] if json_lines else []),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert b"Traceback" not in ran.stderr
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert lines[1]["result"] == f"out/{raw}"
    if json_lines:
        assert [json.loads(line) for line in ran.stdout.decode().splitlines()] == lines
    else:
        assert ran.stdout == b"out/caf\xe9 \xff.png\n"
    folders = ("--input-dir", source, "--result-dir", tmp_path / "out")
    again = restormer("derain", *folders, "--weights", weights)
    assert again.status == 1
    assert "1 skipped, 1 failed" in again.err
    assert names(tmp_path / "out") == [raw]


@pytest.mark.parametrize("json_lines", [False, True])
@pytest.mark.parametrize(
    ("name", "encoding"), [(b"caf\xe9.png", "utf-8:strict"), ("日.png", "cp1252")]
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_console_that_cannot_show_a_name_ends_no_command(
    tmp_path: Path, weights: Path, name: str | bytes, encoding: str, json_lines: bool
) -> None:
    name = os.fsdecode(name)
    write(tmp_path / "in" / name, random_pixels(16, 16))
    for words in (
        ["derain", "--input-dir", "in", "--result-dir", "out", "--weights", str(weights)],
        ["evaluate", "--result-dir", "out", "--target-dir", "in", "--csv", "scores.csv"],
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "restormer_cli.cli", *words, *["--json"] * json_lines],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        if json_lines:
            line = json.loads(ran.stdout.decode("utf-8").splitlines()[0])
            assert name in (line.get("name"), Path(line.get("result", "")).name)
        else:
            escaped = rb"out/\u65e5.png" if encoding == "cp1252" else b"out/caf\xe9.png"
            assert words[0] == "evaluate" or ran.stdout.rstrip() == escaped
    assert os.fsencode(name) in (tmp_path / "scores.csv").read_bytes()


def test_names_in_both_unicode_forms_get_results_of_their_own(
    tmp_path: Path, weights: Path
) -> None:
    pixels = {form: random_pixels(8, 8, seed=i) for i, form in enumerate(("NFC", "NFD"))}
    for sub in (".", "sub"):
        for form, image in pixels.items():
            name = unicodedata.normalize(form, "é")
            suffix = ".png" if form == "NFC" else ".bmp"
            write(tmp_path / "in" / sub / (name + suffix), image)
    words = ("derain", "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out", "-r")
    ran = restormer(*words, "--weights", weights)
    assert ran.status == 0, ran.err
    assert len(ran.lines) == 4
    for line in ran.lines:
        form = "NFC" if ".png.png" in line else "NFD"
        np.testing.assert_array_equal(read(Path(line)), pixels[form])
    assert restormer(*words, "--weights", weights).lines == []


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def _shrink(path: Path) -> None:
    os.truncate(path, 100)


def _write_over(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"!")
    os.utime(path, (1e9, 1e9))  # as clocks may be coarse


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("change", [_grow, _shrink, _write_over])
def test_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, change: Callable[[Path], None], behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its content is read, or behind that."""
    path = tmp_path / "changing.png"
    path.write_bytes(bytes(1000))
    looks: list[os.stat_result] = []
    look = os.fstat

    def change_then_look(descriptor: int) -> os.stat_result:
        if behind and looks:
            change(path)
        looks.append(look(descriptor))
        return looks[-1]

    monkeypatch.setattr(os, "fstat", change_then_look)
    with pytest.raises(ImageError, match="changed while it was read; run again"):
        read_file(path, None if behind else lambda *_: change(path))
    assert len(looks) == 2


HEADS = {
    "zeros.tif": b"",
    "small.tif": cv2.imencode(".tif", random_pixels(9, 9))[1].tobytes(),
    "far.tif": b"II*\0\xf0\xff\xff\xff",
    "lies.tif": b"II+\0\x08\0\0\0"
    + struct.pack("<QQ", 16, 4)
    + b"".join(
        struct.pack("<HHQQ", *tag)
        for tag in ((256, 4, 1, 9), (257, 4, 1, 9), (273, 16, 1 << 31, 99), (279, 16, 1 << 31, 99))
    ),
    "a.png": cv2.imencode(".png", random_pixels(9, 9))[1].tobytes(),
    "a.jpg": cv2.imencode(".jpg", smooth_pixels(9, 9))[1].tobytes(),
    "open.jpg": b"\xff\xd8\xff\xe1\xff\xff",
    "a.webp": cv2.imencode(".webp", random_pixels(9, 9))[1].tobytes(),
    "a.bmp": cv2.imencode(".bmp", random_pixels(9, 9))[1].tobytes(),
    "video.jpg": b"\0\0\0\x18ftypisom",
}


@pytest.mark.skipif(sys.platform != "linux", reason="others may not make sparse files")
def test_files_of_100_gb_cost_one_line_and_no_memory(tmp_path: Path, weights: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, head in HEADS.items():
        (source / name).write_bytes(head)
        os.truncate(source / name, 100 * 10**9)
    write(source / "good.png", random_pixels(8, 8))
    words = ["derain", "--weights", str(weights), "--input-dir", "in", "--result-dir", "out"]
    # 100 GB could not be held, nor could 16 GB, which "lies.tif" claims of its directory.
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (12 << 30,) * 2); "
    ran = subprocess.run(
        [sys.executable, "-c", f"{limit}from restormer_cli.cli.main import main; main()", *words],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(HEADS), ran.stderr
    assert "not enough memory" not in ran.stderr
    assert sum("holds 100.0 GB, far more than 9×9 pixels need" in line for line in errors) >= 5
    assert ran.stdout == f"{Path('out', 'good.png')}\n"


@pytest.mark.parametrize("where", ["turning", "transparency", "codec", "measuring"])
def test_a_fault_of_ours_is_not_called_damage_and_costs_one_image(
    tmp_path: Path,
    weights: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("a bug\nof ours")

    places = {
        "turning": ("restormer_cli.images.reading._turn_upright", "turned.jpg"),
        "transparency": ("restormer_cli.batch.worker.fill_invisible", "seen-through.png"),
        "codec": ("restormer_cli.images.codecs.tiff._colours", "a.tif"),
        "measuring": ("restormer_cli.images.codecs.tiff._refuse_unreadable", "a.tif"),
    }
    place, name = places[where]
    exif = PIL.Image.Exif()
    exif[274] = 3
    source = tmp_path / "in"
    write(source / "good.png", random_pixels(8, 8))
    PIL.Image.fromarray(smooth_pixels(8, 8)).save(source / name, exif=exif)
    if where == "transparency":

        def only_of_this(pixels: object, alpha: object) -> object:
            return pixels if alpha is None else broken()

        write(source / name, random_pixels(8, 8, 4))
        monkeypatch.setattr(place, only_of_this)
    else:
        monkeypatch.setattr(place, broken)
    words = ("derain", "--input-dir", source, "--result-dir", tmp_path / "out")
    ran = restormer(*words, "--weights", weights)
    assert ran.status == 1
    assert ran.lines == [str(tmp_path / "out" / "good.png")]
    (line,) = (line for line in ran.err.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: {source / name}: a fault of restormer-cli")
    assert "TypeError: a bug of ours" in line
    assert "report" in line
    assert "damaged" not in line
    assert "Traceback" not in ran.err
    assert "TypeError: a bug\nof ours" in restormer(*words, "--weights", weights, "-vv").err


@pytest.mark.parametrize("size", [(1, 1_000_001), (1_000_001, 1)])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp"])
def test_what_would_not_fit_into_a_png_is_refused_before_the_network_runs(
    tmp_path: Path, weights: Path, suffix: str, size: tuple[int, int], monkeypatch: Any
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the network ran")

    monkeypatch.setattr("restormer_cli.restorer.Restorer._run", never)
    image = PIL.Image.new("L", size[::-1])
    (tmp_path / "in").mkdir()
    image.save(tmp_path / "in" / f"a{suffix}")
    ran = restormer(
        *("derain", "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out"),
        *("--weights", weights),
    )
    assert ran.status == 1
    assert f"is {size[1]}×{size[0]} pixels" in ran.err
    assert "no more than 1000000 a side" in ran.err
    assert "damaged" not in ran.err
