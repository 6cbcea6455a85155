#!/usr/bin/env python3
"""Speed, memory and exactness of the strip-wise evaluation beside what people could use instead.

Every measurement runs in a process of its own; rounds interleave the engines, so that what else
the machine does falls on all of them alike. The best round of each counts. Ratios within one run
mean something, seconds from different machines do not. Engines that are not installed are left
out: ``pip install -e .[bench]`` brings them all.

    scripts/benchmark.py --sizes 256x256 512x512 --engines streaming plain openvino
    scripts/benchmark.py --network compact --sizes 1024x1024 --engines streaming windows
    scripts/benchmark.py --engines streaming --busy 2       # beside two busy processes
    scripts/benchmark.py --engines streaming --at-once 2    # two runs at the same time
    scripts/benchmark.py --folder PHOTOS        # reading, restoring and writing a folder
    scripts/benchmark.py --folder PHOTOS --workers    # one process, several, and Ray
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.network.streaming import StreamingRestormer
from restormer_cli.tasks import shipped_options

Forward = Callable[[torch.Tensor], torch.Tensor]
#: ``windows`` is ``streaming`` over local windows: its results are others than those of the rest.
ENGINES = ("plain", "streaming", "windows", "compile", "onnxruntime", "openvino")
NETWORKS = {"full": "denoise_color_blind", "biased": "derain", "compact": "compact_denoise_color"}


def make_network(name: str) -> Restormer:
    """A network with random weights of a fixed seed: speed does not depend on their values."""
    torch.manual_seed(0)
    config = RestormerConfig.from_mapping(shipped_options(NETWORKS[name]).network)
    return Restormer(config).eval().requires_grad_(False)


def plain(network: Restormer, dtype: torch.dtype, image: torch.Tensor) -> Forward:
    if dtype is torch.float32:
        return network
    cast = network.to(dtype).to(memory_format=torch.channels_last)
    return lambda x: cast(x.to(dtype).contiguous(memory_format=torch.channels_last)).float()


def streaming(network: Restormer, dtype: torch.dtype, image: torch.Tensor) -> Forward:
    return StreamingRestormer(network, image.device, dtype)


def compiled(network: Restormer, dtype: torch.dtype, image: torch.Tensor) -> Forward:
    made = torch.compile(network.to(dtype))
    return lambda x: made(x.to(dtype)).float()


def onnxruntime(network: Restormer, dtype: torch.dtype, image: torch.Tensor) -> Forward:
    import onnxruntime as ort

    if dtype is not torch.float32:
        raise ImportError("ONNX Runtime computes in float32 on a CPU")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(network, (image,), path, dynamo=True, verbose=False)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        session = ort.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def openvino(network: Restormer, dtype: torch.dtype, image: torch.Tensor) -> Forward:
    import openvino as ov

    precision = {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]
    model = ov.convert_model(network, example_input=image)
    model.reshape(list(image.shape))
    made = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda x: torch.from_numpy(made([x.numpy()])[0])


MAKERS: dict[str, Callable[[Restormer, torch.dtype, torch.Tensor], Forward]] = {
    "plain": plain,
    "streaming": streaming,
    "windows": streaming,
    "compile": compiled,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}


def operations(config: RestormerConfig, height: int, width: int) -> float:
    """Multiplications and additions of the network's convolutions on an image of this size."""

    def block(channels: int) -> float:
        hidden = int(channels * config.ffn_expansion_factor)
        attention = 4 * channels**2 + 9 * 3 * channels
        return 2 * (attention + 3 * channels * hidden + 9 * 2 * hidden)

    pixels, widths = height * width, (*config.widths,)
    first = 2 * config.dim
    total = 18.0 * pixels * config.dim * config.inp_channels
    total += 18.0 * pixels * first * config.out_channels
    for level, (channels, blocks) in enumerate(zip(widths, config.num_blocks, strict=True)):
        here = pixels / 4**level
        total += here * blocks * block(channels)
        if level == 0:
            decoder = blocks + config.num_refinement_blocks
            total += here * decoder * block(first)
        elif level < 3:
            total += here * (blocks * block(channels) + 4 * channels**2)
        if level < 3:
            total += here * 9 * channels**2
        if level > 0:
            total += here * 18 * channels * 2 * channels
    return total


def product_speed(dtype: torch.dtype) -> float:
    """Operations a second of a plain matrix product, the best of some."""
    a, b = torch.rand(4096, 256).to(dtype), torch.rand(256, 512).to(dtype)
    best = 0.0
    for _ in range(30):
        started = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * a.numel() * b.shape[1] / (time.perf_counter() - started))
    return best


class PeakMemory:
    """The peak of this process's resident memory above what it held on entry, in bytes.

    The kernel keeps it (Linux only): a thread that looked would take time from the network.
    """

    def __enter__(self) -> PeakMemory:
        self.before = psutil.Process().memory_info().rss
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget earlier peaks
        return self

    def __exit__(self, *error: object) -> None:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        self.rise = int(peak.split()[1]) * 1024 - self.before


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One measurement, in the worker's process."""
    torch.set_num_threads(arguments.threads)
    height, width = arguments.size
    device = torch.device(arguments.device)
    network = make_network(arguments.network).to(device)
    generator = torch.Generator().manual_seed(1)
    channels = network.config.inp_channels
    image = torch.rand(1, channels, height, width, generator=generator).to(device)
    dtype = getattr(torch, arguments.precision)
    started = time.perf_counter()
    with torch.inference_mode():
        forward = MAKERS[arguments.engine](network, dtype, image)
        if arguments.engine == "windows":
            forward = partial(forward, window=arguments.window)
        if not arguments.cold:
            forward(image)
        first = time.perf_counter() - started
        with PeakMemory() as memory:
            started = time.perf_counter()
            result = forward(image).cpu()
            seconds = time.perf_counter() - started
    if arguments.reference.exists():
        error = float(np.abs(np.load(arguments.reference) - result.numpy()).max())
    else:
        error = None
        if arguments.engine == "plain" and dtype is torch.float32:
            np.save(arguments.reference, result.numpy())
    limit = operations(network.config, height, width) / product_speed(dtype)
    times_limit = seconds / limit if device.type == "cpu" else None
    return {
        "seconds": seconds,
        "first": first,
        "bytes": memory.rise,
        "error": error,
        "times_limit": times_limit,
    }


_BUSY = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
while True:
    pass
"""


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile, with one thread each."""
    # They end with this process, however it ends: that closes what they read.
    command = [sys.executable, "-c", _BUSY]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def spawn(
    engine: str, precision: str, size: str, arguments: argparse.Namespace, reference: Path
) -> dict[str, Any] | None:
    """One measurement in a process of its own; None where the engine is not there."""
    command = [sys.executable, __file__, "--worker", engine, precision, size, str(reference)]
    command += ["--network", arguments.network, "--threads", str(arguments.threads)]
    command += ["--device", arguments.device, "--window", str(arguments.window)]
    command += ["--cold"] if arguments.cold else []
    with busy(arguments.busy), ThreadPoolExecutor(arguments.at_once) as pool:
        runs = list(
            pool.map(
                lambda _: subprocess.run(command, capture_output=True, text=True, check=False),
                range(arguments.at_once),
            )
        )
    for ran in runs:
        if ran.returncode:
            reason = ran.stderr.strip().splitlines()[-1:] or ["killed"]
            print(f"  {engine} {precision}: left out ({reason[0][:120]})", file=sys.stderr)
            return None
    results = [dict(json.loads(ran.stdout.strip().splitlines()[-1])) for ran in runs]
    result = max(results, key=lambda result: result["seconds"])  # the slowest of those at once
    print(f"  {size} {engine} {precision}: {result['seconds']:.2f} s", file=sys.stderr)
    return result


def measure_size(
    size: str,
    arguments: argparse.Namespace,
    runs: dict[tuple[str, str], list[dict[str, Any]]],
) -> None:
    """Fill ``runs``, results by engine and precision, round by round."""
    missing: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference.npy"
        for _ in range(arguments.rounds):
            for precision in arguments.precisions:
                for engine in arguments.engines:
                    key = (engine, precision)
                    if key in missing:
                        continue
                    result = spawn(engine, precision, size, arguments, reference)
                    if result is None:
                        missing.add(key)
                    else:
                        runs.setdefault(key, []).append(result)


def rows_of(size: str, runs: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each engine and precision: the best of its rounds."""
    height, width = parse_size(size)
    megapixels = height * width / 1e6
    rows = []
    for (engine, precision), results in runs.items():
        seconds = [result["seconds"] for result in results]
        errors = [r["error"] for r in results if r["error"] is not None]
        rows.append(
            {
                "size": size,
                "engine": engine,
                "precision": precision,
                "seconds": min(seconds),
                "median_seconds": statistics.median(seconds),
                "first_seconds": min(r["first"] for r in results),
                "megapixels_per_second": megapixels / min(seconds),
                "gigabytes_per_megapixel": min(r["bytes"] for r in results) / 1e9 / megapixels,
                "times_limit": min((r["times_limit"] or 0 for r in results), default=0) or None,
                "max_error": max(errors, default=None),
            }
        )
    return rows


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All engines at all sizes, interleaved; a row each. Ctrl-C ends it with what there is."""
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        try:
            measure_size(size, arguments, runs)
        except KeyboardInterrupt:
            return rows + rows_of(size, runs)
        rows += rows_of(size, runs)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table, with the speed relative to the plain float32 forward."""
    plain_seconds = {
        row["size"]: row["seconds"]
        for row in rows
        if (row["engine"], row["precision"]) == ("plain", "float32")
    }
    print(
        "| size | engine | precision | first s | s | MP/s | times plain | times limit | GB/MP "
        "| max error |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        base = plain_seconds.get(row["size"])
        ratio = f"{base / row['seconds']:.1f}" if base else ""
        error = "" if row["max_error"] is None else f"{row['max_error']:.1e}"
        limit = "" if row["times_limit"] is None else f"{row['times_limit']:.2f}"
        print(
            f"| {row['size']} | {row['engine']} | {row['precision']} "
            f"| {row['first_seconds']:.1f} | {row['seconds']:.2f} "
            f"| {row['megapixels_per_second']:.3f} | {ratio} | {limit} "
            f"| {row['gigabytes_per_megapixel']:.2f} | {error} |"
        )


def folder(path: Path) -> None:
    """Wall time of the command over a folder against the network's own time."""
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "restormer_cli.cli", "denoise", "--kind", "color"]
        command += ["--input-dir", str(path), "--result-dir", results, "--json", "--quiet"]
        started = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
    if ran.returncode:
        raise SystemExit(f"{path}: not all images were restored\n{ran.stderr}")
    outcomes = [json.loads(line) for line in ran.stdout.splitlines()]
    network = sum(outcome["seconds"] or 0 for outcome in outcomes)
    pixels = sum((o["width"] or 0) * (o["height"] or 0) for o in outcomes if o["status"] == "done")
    print(
        f"{len(outcomes)} images, {pixels / 1e6:.1f} megapixels: {wall:.1f} s in all, start-up "
        f"included; the network alone {network:.1f} s ({wall / network:.3f} times)"
    )


#: Ways to restore a folder on two processors.
WORKERS = {
    "one process, one thread": ("--workers", "1", "--cpus-per-worker", "1"),
    "one process, two threads": ("--workers", "1", "--cpus-per-worker", "2"),
    "two processes, one thread each": ("--workers", "2", "--cpus-per-worker", "1"),
    "Ray, one worker": ("--engine", "ray", "--workers", "1", "--cpus-per-worker", "1"),
    "Ray, two workers": ("--engine", "ray", "--workers", "2", "--cpus-per-worker", "1"),
}


def compare_workers(path: Path) -> None:
    """Pace of each of :data:`WORKERS` between its first result and its last one, of one size."""
    base = 0.0
    for name, options in WORKERS.items():
        with tempfile.TemporaryDirectory() as results:
            command = [sys.executable, "-m", "restormer_cli.cli", "denoise", "--kind", "color"]
            command += ["--input-dir", str(path), "--result-dir", results, "--quiet", "--json"]
            started = time.perf_counter()
            with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as run:
                assert run.stdout is not None
                lines = [(time.perf_counter() - started, json.loads(line)) for line in run.stdout]
            wall = time.perf_counter() - started
        if run.returncode or len(lines) < 2:
            raise SystemExit(f"{path}: two images or more are needed, and all must be restored")
        moments, outcomes = zip(*lines, strict=True)
        seconds = moments[-1] - moments[0]
        network = sum(outcome["seconds"] for outcome in outcomes[1:])
        pace = len(outcomes[1:]) / seconds
        base = base or pace
        print(
            f"{name:31} {pace:.3f} images/s ({pace / base:.2f} times the first), "
            f"{network / seconds:.3f} networks busy, "
            f"first result after {moments[0]:.1f} s, all after {wall:.1f} s",
            flush=True,
        )


def parse_size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["256x256", "512x512"], metavar="HxW")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--precisions", nargs="+", default=["float32"])
    parser.add_argument("--network", default="biased", choices=NETWORKS)
    parser.add_argument("--window", type=int, default=384, help="pixels, of the engine windows")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--busy", type=int, default=0, help="busy processes beside")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="no warm-up, for very large sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--folder", type=Path, help="measure the command over this folder")
    parser.add_argument("--workers", action="store_true", help="compare workers over --folder")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        arguments.engine, arguments.precision, size, reference = arguments.worker
        arguments.size, arguments.reference = parse_size(size), Path(reference)
        print(json.dumps(measure(arguments)))
    elif arguments.folder and arguments.workers:
        compare_workers(arguments.folder)
    elif arguments.folder:
        folder(arguments.folder)
    else:
        rows = compare(arguments)
        show(rows)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
