"""Plans keep their promise: what they predict is what the operating system sees."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import psutil
import pytest
import torch
from helpers import random_pixels, read, restormer, save, tiny_network, write
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.network import feature_map, memory_plan
from restormer_cli.network.architecture import RestormerConfig
from restormer_cli.network.memory_plan import MemoryBudgetError, Plan, plan_memory
from restormer_cli.system import cgroups, memory
from restormer_cli.system.units import format_bytes, parse_bytes

CPU = torch.device("cpu")
FULL = RestormerConfig()
#: Wide enough for the memory of a megapixel to show, shallow enough for a test.
SHALLOW = RestormerConfig(num_blocks=(1, 1, 1, 1), num_refinement_blocks=0)

# Restores noise and says how far the peak rose above what was held before.
MEASURE = """
import json, os, sys, threading, time
import psutil, torch
from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.network.memory_plan import plan_memory
from restormer_cli.network.streaming import StreamingRestormer

height, width, limit, window = map(int, sys.argv[1:5])
dtype, window = sys.argv[5], window or None
torch.set_num_threads(int(os.environ.get("THREADS", 1)))
config = RestormerConfig(num_blocks=(1, 1, 1, 1), num_refinement_blocks=0)
engine = StreamingRestormer(Restormer(config).eval(), dtype=getattr(torch, dtype))
process = psutil.Process()
before = process.memory_info().rss
limit = before + limit if limit else None
plan = plan_memory(config, height, width, torch.device("cpu"), engine.dtype, limit, window=window)
peak, stop = before, False
def watch():
    global peak
    while not stop:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
engine(torch.rand(1, 3, height, width), plan, None, window)
stop = True
watcher.join()
print(json.dumps({"rise": peak - before, "predicted": plan.peak_bytes, "storage": plan.storage}))
"""

RUN_AND_SAY_PEAK = """
import sys
sys.argv = sys.argv[1:]
from restormer_cli.cli.main import main
try:
    main()
finally:
    print(*[line for line in open("/proc/self/status") if line.startswith("VmHWM")], end="")
"""


def measure(
    height: int, width: int, limit: int, dtype: str = "float32", window: int = 0, **env: str
) -> dict:
    numbers = map(str, (height, width, limit, window))
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, *numbers, dtype],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plan_is_an_upper_bound_and_near_the_floor(dtype):
    height, width = 1024, 1024
    result = measure(height, width, 0, dtype)
    assert result["storage"] == "device"
    assert result["rise"] <= result["predicted"]
    floor = 2 * FULL.dim * height * width * getattr(torch, dtype).itemsize
    assert floor < result["rise"]
    assert result["predicted"] < 2 * floor + memory_plan.OVERHEAD_BYTES


@pytest.mark.skipif(not memory.CAN_GIVE_BACK, reason="the system cannot take pages back")
def test_rows_that_were_forgotten_are_free_and_the_others_stay() -> None:
    rows = feature_map.allocate((1, 64, 1024, 256), CPU, torch.float32, "device")  # 67 MB
    rows.tensor.fill_(3)
    before = memory.held_memory()[0]
    rows.forget(1, 63)
    assert before - memory.held_memory()[0] > 0.8 * rows.tensor.nbytes
    assert (rows.read(0, 1) == 3).all()
    assert (rows.read(63, 64) == 3).all()


def test_rows_of_a_scratch_file_are_never_lost() -> None:
    """The file is memory too, which several maps may have parts of."""
    rows = feature_map.allocate((1, 64, 1024, 16), CPU, torch.float32, "scratch")
    rows.tensor.fill_(3)
    rows.forget(16, 48)
    assert (rows.read(0, 64) == 3).all()


@pytest.mark.parametrize("threads", [2, 8])
def test_max_memory_holds_for_several_threads(threads: int) -> None:
    """Each has strips of its own: with little memory there are smaller ones, or fewer threads."""
    free = measure(768, 768, 0, THREADS=str(threads))
    limit = int(0.8 * free["rise"])
    tight = measure(768, 768, limit, THREADS=str(threads))
    assert free["rise"] <= free["predicted"]
    assert tight["rise"] <= tight["predicted"] <= limit


@pytest.mark.parametrize("threads", [1, 8])
def test_a_plan_knows_what_small_windows_take(threads: int) -> None:
    """Sums and matrices are here larger than the widest feature map, and each thread has some."""
    result = measure(512, 512, 0, window=16, THREADS=str(threads))
    whole = measure(512, 512, 0, THREADS=str(threads))["rise"]
    assert whole < result["rise"] <= result["predicted"]


def test_max_memory_holds_far_below_the_feature_maps(tmp_path: Path):
    limit = 320_000_000  # feature maps alone are 500 MB
    result = measure(1024, 1024, limit, TMPDIR=str(tmp_path))
    assert result["storage"] == "scratch"
    assert result["rise"] <= limit
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak where Linux reports it")
def test_the_command_keeps_to_max_memory(tmp_path: Path):
    """3 MP, for which the plain forward of this network takes 10 GB."""
    network = tiny_network("bias_free", dim=24, num_refinement_blocks=0)
    weights = save(network, tmp_path / "w.safetensors")
    write(tmp_path / "in" / "photo.png", random_pixels(1536, 2048))
    limit = 800_000_000
    words = ["restormer", "denoise", "--precision", "float32", "--weights", weights, "--quiet"]
    words += ["--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out"]
    words += ["--max-memory", limit]
    # A child's ru_maxrss would count what this process held when it was forked.
    ran = subprocess.run(
        [sys.executable, "-c", RUN_AND_SAY_PEAK, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    peak = int(ran.stdout.splitlines()[-1].split()[1]) * 1024
    assert read(tmp_path / "out" / "photo.png").shape == (1536, 2048, 3)
    assert peak <= limit


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak where Linux reports it")
def test_a_large_photo_is_not_decoded_beside_another_that_needs_the_memory(tmp_path: Path):
    """That takes 290 MB, where the network leaves some 50 MB beside the first one."""
    weights = save(tiny_network("bias_free", num_refinement_blocks=0), tmp_path / "w.safetensors")
    write(tmp_path / "in" / "0.png", random_pixels(900, 1200, bits=16))
    write(tmp_path / "in" / "1.png", random_pixels(3000, 4000, bits=16))
    limit = 640_000_000
    words = ["restormer", "denoise", "--precision", "float32", "--weights", weights, "--quiet"]
    words += ["--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out"]
    words += ["--max-memory", limit]
    ran = subprocess.run(
        [sys.executable, "-c", RUN_AND_SAY_PEAK, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    # The second is too large by itself, and that is found when the first one is done.
    assert "1.png: 4000×3000 pixels need at least" in ran.stderr
    assert ran.stderr.count("error") == 1
    assert read(tmp_path / "out" / "0.png").shape == (900, 1200, 3)
    assert int(ran.stdout.splitlines()[-1].split()[1]) * 1024 <= limit


def test_what_cannot_fit_is_not_even_decoded(tmp_path: Path):
    """A file that claims 100 megapixels, and would be found cut off if anyone read on."""
    small = write(tmp_path / "in" / "small.png", random_pixels(9, 9)).read_bytes()
    claim = struct.pack(">II", 10_000, 10_000) + small[24:29]
    header = small[:16] + claim + struct.pack(">I", zlib.crc32(b"IHDR" + claim))
    (tmp_path / "in" / "huge.png").write_bytes(header + small[33:60])
    weights = save(tiny_network(), tmp_path / "w.safetensors")
    words = ["denoise", "--weights", weights, "--max-memory", "2GB", "--device", "cpu"]
    ran = restormer(*words, "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out")
    assert ran.status == 1
    assert ran.lines == [str(tmp_path / "out" / "small.png")]
    assert "huge.png: 10000×10000 pixels need at least 4.8 GB, more than --max-memory" in ran.err


def test_what_cannot_fit_is_refused_with_the_figure_it_needs():
    with pytest.raises(MemoryBudgetError, match=r"8000×8000 pixels need at least [\d.]+ [MG]B"):
        plan_memory(FULL, 8000, 8000, CPU, max_memory=10_000_000)


def test_the_figure_that_a_refusal_names_is_enough():
    with pytest.raises(MemoryBudgetError) as refusal:
        plan_memory(FULL, 4000, 4000, CPU, max_memory=10_000_000)
    needed = str(refusal.value).split("at least ")[1].split(", more")[0]
    plan_memory(FULL, 4000, 4000, CPU, max_memory=int(1.1 * parse_bytes(needed)))


@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 40))
def test_less_memory_never_means_a_larger_prediction(rows, columns, steps):
    limits = [2 << 30, (2 << 30) - steps * (32 << 20)]
    held = psutil.Process().memory_info().rss
    peaks = []
    for limit in limits:
        try:
            peaks.append(
                plan_memory(SHALLOW, 8 * rows, 8 * columns, CPU, max_memory=held + limit).peak_bytes
            )
        except MemoryBudgetError:
            peaks.append(0)
    assert peaks[1] <= peaks[0]


def test_plans_after_failed_ones_take_less_and_less_and_end_with_the_least():
    plan: Plan | None = None
    tried: list[Plan] = []
    with contextlib.suppress(MemoryBudgetError):
        for _ in range(20):
            plan = plan_memory(FULL, 512, 512, CPU, failed=plan)
            tried.append(plan)
    assert 2 < len(tried) < 20
    assert tried[-1].storage == "scratch"
    assert tried[-1].strip_rows(512, 512, 2 * FULL.dim) == 1
    spare = [plan.peak_bytes - memory_plan.OVERHEAD_BYTES for plan in tried]
    assert all(after <= before / 2 for before, after in itertools.pairwise(spare[:-1]))
    assert spare[-1] < spare[-2]


def test_a_scratch_file_without_room_is_refused_before_it_is_used():
    resource = pytest.importorskip("resource")  # Windows has no such limits
    shape = (1, 1024, 1024, 4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(MemoryBudgetError, match="has no room"):
            feature_map.allocate(shape, CPU, torch.float32, "scratch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    feature_map.allocate(shape, CPU, torch.float32, "scratch").write(
        0, 1, torch.ones(1, 1, 1024, 4)
    )


def test_control_groups_bound_free_memory(tmp_path: Path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("700000\n", encoding="ascii")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200000\n", encoding="ascii")
    monkeypatch.setattr(Path, "read_text", _with_membership(Path.read_text))
    assert list(memory._cgroup_headrooms(tmp_path)) == [500_000]


def test_names_of_control_groups_need_not_be_ascii(tmp_path: Path, monkeypatch):
    membership = tmp_path / "membership"
    membership.write_bytes("0::/größe/".encode() + b"\xff\n")
    monkeypatch.setattr(cgroups, "Path", lambda _: membership)
    found = [folder for folder, _ in cgroups.folders("memory", tmp_path)]
    assert found == [tmp_path / "größe" / "\udcff", tmp_path / "größe", tmp_path]


def _with_membership(read_text):
    def read(self: Path, *arguments, **settings):
        if str(self) == "/proc/self/cgroup":
            return "0::/\n"
        return read_text(self, *arguments, **settings)

    return read


@pytest.mark.parametrize(
    ("text", "size"),
    [("6GB", 6 * 10**9), ("512MiB", 512 << 20), ("1.5g", 1_500_000_000), ("4096", 4096)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-3GB", "0", "3XB", "nan", "inf", "1e999GB"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


def test_format_and_parse_agree():
    assert parse_bytes(format_bytes(2_500_000_000)) == 2_500_000_000
