"""Kernels in C: the numbers of PyTorch, the same bytes however a map is split, never a failure."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import restormer
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import restormer_cli.network.native.library as finding
from restormer_cli.network import native, trials
from restormer_cli.network.native import Filter, Kernels, build

DTYPES = (torch.float32, torch.bfloat16)
needs_compiler = pytest.mark.skipif(
    not build.machine() or not build.compilers(), reason="nothing compiles kernels here"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, as it was installed or else compiled now."""
    if build.is_sound(build.LIBRARY):
        return build.LIBRARY
    into = tmp_path_factory.mktemp("native") / build.LIBRARY.name
    build.build(into)
    return into


@pytest.fixture(scope="module")
def library(made: Path) -> ctypes.CDLL:
    return finding._load(made)


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    """As in a process that has just begun, before and after."""

    def forget() -> None:
        finding._found.cache_clear()
        trials.distrusted.clear()

    forget()
    yield
    forget()


def all_kernels(library: ctypes.CDLL, dtype: torch.dtype) -> list[Kernels]:
    """For every kind of processor whose instructions this one has."""
    targets = list(build.TARGETS[build.machine()])
    best = library.restormer_processor().decode()
    return [Kernels(library, target, dtype) for target in targets[: targets.index(best) + 1]]


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


class Case:
    """Two windows and two filters, of random sizes and numbers, in memory laid out at random."""

    def __init__(self, draw: Any, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
        self.count = draw(st.integers(1, 2))
        self.rows = draw(st.integers(1, 5))
        self.width = draw(st.sampled_from([1, 2, 3, 31, 32, 33, 64, 70]))
        self.heads = draw(st.sampled_from([1, 2, 3]))
        self.channels = self.heads * draw(st.sampled_from([1, 3, 8, 16, 21, 24, 48]))
        self.pad = (draw(st.booleans()), draw(st.booleans()))
        self.columns = self.width + 2 - sum(self.pad)
        self.dtype = dtype
        # Parts of a larger map that holds no numbers: what is read beyond a window shows.
        margin = draw(st.sampled_from([0, 5]))
        size = (self.rows + 2, self.columns, self.channels)
        whole = torch.full(
            (self.count, *(n + 2 * margin for n in size[:2]), 2 * size[2]), torch.nan
        )
        inner = whole[:, margin : margin + size[0], margin : margin + size[1]]
        inner.copy_(random(self.generator, *inner.shape))
        whole = whole.to(dtype)
        inner = whole[:, margin : margin + size[0], margin : margin + size[1]]
        self.gates, self.values = inner.split(self.channels, dim=3)
        with_bias = draw(st.booleans())
        self.parameters = [
            (
                random(self.generator, self.channels, 1, 3, 3).to(dtype),
                random(self.generator, self.channels).to(dtype) if with_bias else None,
            )
            for _ in range(2)
        ]
        self.filters = (Filter(*self.parameters[0]), Filter(*self.parameters[1]))

    def convolved(self, which: int) -> Tensor:
        """What a convolution gives in float64."""
        window = (self.gates, self.values)[which].double().permute(0, 3, 1, 2)
        kernel, bias = (None if t is None else t.double() for t in self.parameters[which])
        padded = F.pad(window, (int(self.pad[0]), int(self.pad[1])))
        assert kernel is not None
        return F.conv2d(padded, kernel, bias, groups=self.channels).permute(0, 2, 3, 1)

    def out(self) -> tuple[Tensor, Tensor]:
        """Where a result goes: a part of a larger map, which is given too."""
        size = (self.count, self.rows + 2, self.width + 2, self.channels + 2)
        whole = torch.full(size, 7, dtype=self.dtype)
        return whole[:, 1:-1, 1:-1, 1:-1], whole


@st.composite
def cases(draw: Any) -> Case:
    return Case(draw, draw(st.sampled_from(DTYPES)))


def assert_near(made: Tensor, expected: Tensor, rounded: torch.dtype) -> None:
    """Beyond the rounding of the result, sums of float32 may be off by some of their steps."""
    step = torch.finfo(rounded).eps
    allowed = expected.abs() * step * 0.51 + 3e-5
    assert ((made.double() - expected).abs() <= allowed).all()


def untouched(whole: Tensor) -> bool:
    """True if nothing was written around a result."""
    edges = whole.clone()
    edges[:, 1:-1, 1:-1, 1:-1] = 7
    return bool((edges == 7).all())


@needs_compiler
@given(case=cases())
def test_the_gate_is_that_of_pytorch(library: ctypes.CDLL, case: Case) -> None:
    expected = F.gelu(case.convolved(0)) * case.convolved(1)
    for kernels in all_kernels(library, case.dtype):
        out, whole = case.out()
        kernels.gate(case.gates, case.values, case.filters, out, case.pad)
        assert_near(out, expected, case.dtype)
        assert untouched(whole)


@needs_compiler
@given(case=cases())
def test_depthwise_convolutions_are_those_of_pytorch(library: ctypes.CDLL, case: Case) -> None:
    expected = case.convolved(1)
    for kernels in all_kernels(library, case.dtype):
        out, whole = case.out()
        kernels.depthwise(case.values, case.filters[1], out[None], case.pad)
        assert_near(out, expected, case.dtype)
        assert untouched(whole)

        split = torch.empty(
            case.heads,
            case.count,
            case.rows,
            case.width,
            case.channels // case.heads,
            dtype=case.dtype,
        )
        squares = torch.empty(case.count, case.rows, case.channels, dtype=torch.float64)
        kernels.depthwise(case.values, case.filters[1], split, case.pad, squares)
        assert torch.equal(torch.cat(list(split), dim=3), out)
        assert torch.allclose(squares, out.double().square().sum(2), rtol=1e-5)


@needs_compiler
@given(case=cases(), center=st.booleans())
def test_layer_norm_is_that_of_pytorch(library: ctypes.CDLL, case: Case, center: bool) -> None:
    rows = case.gates
    wide = rows.double()
    factors = torch.rsqrt(wide.var(-1, correction=0) + 1e-5)
    mean = wide.mean(-1, keepdim=True) if center else 0.0
    expected = (wide - mean) * factors[..., None]
    for kernels in all_kernels(library, case.dtype):
        out, scales = torch.empty_like(rows), torch.empty(rows.shape[:3])
        kernels.normalise(rows, out, 1e-5, center, scales)
        assert torch.allclose(scales.double(), factors, rtol=1e-4)  # small variances cancel
        assert torch.allclose(out.double(), expected, rtol=5e-3, atol=1e-3)
        again = torch.empty_like(out)
        kernels.normalise(rows, again, 1e-5, center)
        assert torch.equal(again, out)
        kernels.scale(rows, scales, out)
        assert torch.equal(out, (rows.float() * scales[..., None]).to(rows.dtype))
        in_place = rows.clone()
        kernels.scale(in_place, scales, in_place)
        assert torch.equal(in_place, out)


def multiplying(library: ctypes.CDLL, dtype: torch.dtype) -> list[Kernels]:
    return [kernels for kernels in all_kernels(library, dtype) if kernels.multiplies]


@needs_compiler
@given(
    case=cases(),
    outputs=st.sampled_from([1, 3, 4, 8, 17, 24, 37, 48, 64, 96]),
    scaled=st.booleans(),
    first=st.integers(0, 69),
)
def test_products_are_those_of_pytorch_however_they_are_split(
    library: ctypes.CDLL, case: Case, outputs: int, scaled: bool, first: int
) -> None:
    pixels, first = case.gates, first % case.columns
    weight = random(case.generator, outputs, case.channels).to(case.dtype)
    bias = random(case.generator, outputs) if case.filters[0].bias is not None else None
    scales = torch.rand(pixels.shape[:3], generator=case.generator) if scaled else None
    expected = torch.einsum("nrwc,kc->nrwk", pixels.double(), weight.double())
    reached = torch.einsum("nrwc,kc->nrwk", pixels.double().abs(), weight.double().abs())
    expected *= 1 if scales is None else scales[..., None]
    expected += 0 if bias is None else bias
    for kernels in multiplying(library, case.dtype):
        matrix = kernels.matrix(weight, bias)
        whole = torch.full((*pixels.shape[:3], outputs + 2), 7, dtype=case.dtype)
        out = whole[..., 1:-1]
        kernels.product(pixels, matrix, out, scales)
        allowed = expected.abs() * torch.finfo(case.dtype).eps * 0.51 + 2e-6 * (reached + 1)
        assert ((out.double() - expected).abs() <= allowed).all()
        assert (whole[..., [0, -1]] == 7).all()

        split = torch.empty_like(out)
        for row in range(pixels.shape[1]):
            for part in (slice(0, first), slice(first, None)):
                here = (slice(None), slice(row, row + 1), part)
                factors = None if scales is None else scales[here]
                if pixels[here].numel():
                    kernels.product(pixels[here], matrix, split[here], factors)
        assert torch.equal(split, out)

        added = out.clone()
        kernels.product(pixels, matrix, added, scales, add=True)
        twice = expected + out.double()
        allowed = twice.abs() * torch.finfo(case.dtype).eps * 0.51 + 2e-6 * (reached + 1)
        assert ((added.double() - twice).abs() <= allowed).all()


@needs_compiler
@given(case=cases(), outputs=st.sampled_from([1, 3, 8, 12, 24, 37, 64]))
def test_convolutions_are_those_of_pytorch(library: ctypes.CDLL, case: Case, outputs: int) -> None:
    window = case.gates
    kernel = random(case.generator, outputs, case.channels, 3, 3).to(case.dtype)
    bias = random(case.generator, outputs) if case.filters[0].bias is not None else None

    def convolved(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        columns = F.pad(rows.permute(0, 3, 1, 2), (1, 1))
        return F.conv2d(columns, weight, bias).permute(0, 2, 3, 1)

    wide = None if bias is None else bias.double()
    expected = convolved(window.double(), kernel.double(), wide)
    reached = convolved(window.double().abs(), kernel.double().abs(), None)
    for kernels in multiplying(library, case.dtype):
        matrix = kernels.matrix(kernel, bias)
        out = torch.full(expected.shape, torch.nan, dtype=case.dtype)
        kernels.convolution(window, matrix, out)
        allowed = expected.abs() * torch.finfo(case.dtype).eps * 0.51 + 2e-6 * (reached + 1)
        assert ((out.double() - expected).abs() <= allowed).all()
        by_row = torch.empty_like(out)
        for row in range(case.rows):
            kernels.convolution(window[:, row : row + 3], matrix, by_row[:, row : row + 1])
        assert torch.equal(by_row, out)


@needs_compiler
@given(
    generator=st.integers(0, 1000).map(torch.Generator().manual_seed),
    heads=st.integers(1, 2),
    channels=st.sampled_from([1, 3, 8, 12, 16, 24, 33, 48]),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 7), st.sampled_from([1, 2, 31, 64, 70])),
    group=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
)
def test_sums_of_q_and_k_do_not_depend_on_strips(
    library: ctypes.CDLL,
    generator: torch.Generator,
    heads: int,
    channels: int,
    shape: tuple[int, int, int],
    group: int,
    dtype: torch.dtype,
) -> None:
    count, rows, width = shape
    qk = random(generator, 2 * heads, count, rows, width, channels).to(dtype)
    squares = qk.double().square().sum(3).permute(1, 2, 0, 3).flatten(2).contiguous()
    q, k = qk.double().flatten(2, 3).transpose(0, 1).chunk(2, dim=1)
    expected = q.transpose(2, 3) @ k
    for kernels in all_kernels(library, dtype):
        if not kernels.sums:
            continue
        made = []
        for cut in (0, rows // group // 2 * group):  # at once, and in two strips
            total = torch.ones(count, heads, channels, channels, dtype=torch.float64)
            norms = torch.ones(count, 2, heads, channels, dtype=torch.float64)
            for part in (slice(0, cut), slice(cut, None)):
                if qk[:, :, part].numel():
                    kernels.gram(qk[:, :, part], squares[:, part], group, total, norms)
            made.append((total, norms))
        (total, norms), again = made
        assert torch.allclose(total - 1, expected, rtol=1e-4, atol=1e-4 * width)
        assert torch.allclose(norms.flatten(1) - 1, squares.sum(1))
        assert torch.equal(total, again[0])
        assert torch.equal(norms, again[1])


@needs_compiler
@given(case=cases())
def test_pixel_unshuffle_is_that_of_pytorch(library: ctypes.CDLL, case: Case) -> None:
    rows = case.gates[:, : case.gates.shape[1] // 2 * 2, : case.columns // 2 * 2]
    if not rows.numel():
        return
    expected = F.pixel_unshuffle(rows.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    for kernels in all_kernels(library, case.dtype):
        out = torch.full(expected.shape, torch.nan, dtype=case.dtype)
        kernels.unshuffle(rows, out)
        assert torch.equal(out, expected)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_is_exact_up_to_rounding(library: ctypes.CDLL, dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-30, 30, 60001), torch.logspace(-30, -1, 999)]).to(dtype)
    x = torch.cat([x, -x])[: len(x) * 2 // 8 * 8]
    gates = F.pad(x.view(1, 1, -1, 8), (0, 0, 0, 0, 1, 1))
    identity = torch.zeros(8, 1, 3, 3)
    identity[:, :, 1, 1] = 1
    filters = (Filter(identity, None), Filter(torch.zeros(8, 1, 3, 3), torch.ones(8)))
    wide = x.double()
    expected = wide * torch.special.ndtr(wide)
    for kernels in all_kernels(library, dtype):
        out = torch.empty(1, 1, len(x) // 8, 8, dtype=dtype)
        kernels.gate(gates, torch.zeros_like(gates), filters, out)
        error = (out.flatten().double() - expected).abs()
        if dtype == torch.float32:
            assert (error <= expected.abs() * 6e-6 + 1e-9).all()
            assert (error <= expected.abs() * 1e-6 + 1e-9)[wide > -2].all()
        else:
            assert (error <= expected.abs() * 2**-8 + 1e-8).all()
            right = out.flatten() == expected.to(dtype)
            assert right[wide > -6].float().mean() > 0.99


@needs_compiler
@given(case=cases(), row=st.integers(0, 5), column=st.integers(0, 70))
def test_the_same_bytes_come_out_however_a_map_is_split(
    library: ctypes.CDLL, case: Case, row: int, column: int
) -> None:
    row, column = row % case.rows, column % case.width
    left, right = case.pad
    rows = [slice(*ends) for ends in ((0, row), (row, case.rows)) if ends[0] < ends[1]]
    columns = [slice(*ends) for ends in ((0, column), (column, case.width)) if ends[0] < ends[1]]
    for kernels in all_kernels(library, case.dtype):
        whole, parts = case.out()[0], case.out()[0]
        gates, plain = torch.empty_like(whole), torch.empty_like(parts)
        kernels.gate(case.gates, case.values, case.filters, gates, case.pad)
        kernels.depthwise(case.values, case.filters[1], whole[None], case.pad)
        for r in rows:
            for c in columns:
                pad = (left and c.start == 0, right and c.stop == case.width)
                first = c.start - left + pad[0]
                last = first + c.stop - c.start + 2 - sum(pad)
                part = (slice(None), slice(r.start, r.stop + 2), slice(first, last))
                window = (case.gates[part], case.values[part])
                kernels.gate(*window, case.filters, plain[:, r, c], pad)
                kernels.depthwise(window[1], case.filters[1], parts[None][:, :, r, c], pad)
        assert torch.equal(gates, plain)
        assert torch.equal(whole, parts)


@needs_compiler
def test_what_is_no_number_spreads_as_far_as_the_filter_reaches(library: ctypes.CDLL) -> None:
    for dtype in DTYPES:
        window = torch.ones(1, 7, 7, 24, dtype=dtype)
        window[0, 3, 3, 5] = torch.nan
        filters = (Filter(torch.ones(24, 1, 3, 3), None), Filter(torch.ones(24, 1, 3, 3), None))
        expected = torch.zeros(1, 5, 7, 24, dtype=torch.bool)
        expected[0, 1:4, 2:5, 5] = True
        for kernels in all_kernels(library, dtype):
            for gates, values in ((window, window.nan_to_num()), (window.nan_to_num(), window)):
                out = torch.zeros(1, 5, 7, 24, dtype=dtype)
                kernels.gate(gates, values, filters, out)
                assert torch.equal(out.isnan(), expected)


@needs_compiler
def test_threads_compute_side_by_side(library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(0)
    kernels = all_kernels(library, torch.float32)[-1]
    window = random(generator, 1, 34, 40, 48)
    filters = (
        Filter(random(generator, 48, 1, 3, 3), None),
        Filter(random(generator, 48, 1, 3, 3), None),
    )

    def gate(_: int) -> Tensor:
        out = torch.empty(1, 32, 40, 48)
        kernels.gate(window, window, filters, out)
        return out

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(gate, range(64)))
    assert all(torch.equal(result, results[0]) for result in results)


@needs_compiler
def test_what_does_not_fit_is_refused_before_any_byte_is_touched(library: ctypes.CDLL) -> None:
    kernels = all_kernels(library, torch.float32)[-1]
    window, out = torch.zeros(1, 5, 9, 8), torch.zeros(1, 3, 9, 8)
    both = (Filter(torch.zeros(8, 1, 3, 3), None), Filter(torch.zeros(8, 1, 3, 3), None))
    other = Filter(torch.zeros(4, 1, 3, 3), None)
    scales = torch.zeros(1, 5, 9)
    kernels.gate(window, window, both, out)
    wrong = [
        lambda: kernels.gate(window, window, both, out, (False, True)),
        lambda: kernels.gate(window, window[:, :, :8], both, out),
        lambda: kernels.gate(window, window, both, out[:, :2]),
        lambda: kernels.gate(window, window, both, out.bfloat16()),
        lambda: kernels.gate(window[..., ::2], window[..., ::2], (other, other), out[..., ::2]),
        lambda: kernels.gate(window, window, (both[0], other), out),
        lambda: kernels.gate(window[:0], window[:0], both, out),
        lambda: kernels.depthwise(window, both[0], out[None, ..., :4]),
        lambda: kernels.depthwise(window, both[0], out[None], squares=torch.zeros(1, 3, 8)),
        lambda: kernels.depthwise(window, other, out[None]),
        lambda: kernels.depthwise(window[:0], both[0], out[None]),
        lambda: kernels.normalise(window, out, 1e-5),
        lambda: kernels.normalise(window, window, 1e-5, scales=scales[:, :2]),
        lambda: kernels.scale(window, scales.double(), window),
        lambda: kernels.unshuffle(window[:, :4, :8], out),
    ]
    if kernels.multiplies:
        matrix = kernels.matrix(torch.zeros(6, 8), None)
        sums, norms = (torch.zeros(1, 1, *shape, dtype=torch.float64) for shape in ((4, 4), (1, 4)))
        qk = window.view(2, 1, 5, 9, 4)
        wrong += [
            lambda: kernels.product(window, matrix, window),
            lambda: kernels.product(window[..., :6], matrix, window[..., :6]),
            lambda: kernels.product(window, matrix, window[..., :6], scales[:, :2]),
            lambda: kernels.convolution(window, matrix, window[..., :6]),
            lambda: kernels.gram(qk, torch.zeros(1, 5, 8), 1, sums, norms),
            lambda: kernels.gram(qk, torch.zeros(1, 5, 8).double(), 1, sums[:, :0], norms),
        ]
    for call in wrong:
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            call()


# Where there is no library, or another


def devices() -> str:
    ran = restormer("devices", "--device", "cpu", "--precision", "float32")
    assert ran.status == 0
    return ran.out


@needs_compiler
def test_devices_names_the_kernels(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "LIBRARY", made)
    assert "kernels in C for " in devices()
    assert "slower than need be" not in devices()


def test_they_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORMER_NATIVE", "0")
    assert native.kernels(torch.float32) is None
    assert "PyTorch's kernels alone, because RESTORMER_NATIVE is 0" in devices()
    assert not trials.distrusted


def test_there_may_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "LIBRARY", tmp_path / "kernels.so")
    assert native.kernels(torch.float32) is None
    assert "PyTorch's kernels alone, because those in C were not compiled" in devices()
    assert not trials.distrusted


def test_there_are_none_in_half_precision() -> None:
    assert native.kernels(torch.float16) is None
    assert "those in C are for float32 and bfloat16" in native.describe(torch.float16)


@needs_compiler
@pytest.mark.parametrize(
    "damage", ["empty", "cut", "another system's", "of other sources", "no record"]
)
def test_a_damaged_library_is_left_alone(
    damage: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / build.LIBRARY.name
    record = library.with_suffix(build.RECORD)
    contents = made.read_bytes()
    library.write_bytes({"empty": b"", "cut": contents[:-5000]}.get(damage, contents))
    if damage == "another system's":
        library.write_bytes(b"#!/bin/sh\n" * 1000)
        record.write_text(build.record(library))
    elif damage == "of other sources":
        record.write_text("0" * 64 + "\n" + build.record(library).split()[1])
    elif damage != "no record":
        record.write_bytes(made.with_suffix(build.RECORD).read_bytes())
    monkeypatch.setattr(finding, "LIBRARY", library)
    assert native.kernels(torch.float32) is None
    assert devices().count("slower than need be: kernels.") == 1


@needs_compiler
@pytest.mark.parametrize("name", ["_gate", "_depthwise", "_normalise", "_scale", "attend", "apply"])
def test_wrong_numbers_are_found_out(
    name: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a compiler with a fault: the function does nothing, so that no number is written."""
    monkeypatch.setattr(finding, "LIBRARY", made)
    if not hasattr(native.kernels(torch.bfloat16), name):
        pytest.skip("PyTorch multiplies faster on this processor")
    finding._found.cache_clear()
    initialise = Kernels.__init__

    def without(self: Kernels, *arguments: Any) -> None:
        initialise(self, *arguments)
        setattr(self, name, lambda *_: None)

    monkeypatch.setattr(Kernels, "__init__", without)
    assert native.kernels(torch.bfloat16) is None
    assert "gives wrong numbers" in next(iter(trials.distrusted))
    assert "gives wrong numbers" in devices()


# Building


def built_by(into: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import build, pathlib; build.build(pathlib.Path({str(into)!r}), check_only=True)"
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=build.FOLDER,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_compiler
def test_it_is_compiled_without_any_package(tmp_path: Path) -> None:
    into = tmp_path / build.LIBRARY.name
    ran = built_by(into)
    assert ran.returncode == 0, ran.stderr
    assert finding._load(into).restormer_processor()
    assert {path.name for path in tmp_path.iterdir()} == {into.name, into.stem + build.RECORD}


@pytest.mark.skipif(not build.machine(), reason="there are no kernels for this machine")
def test_a_failing_compiler_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    into = tmp_path / build.LIBRARY.name
    ran = built_by(into, CC="no-such-compiler --fast")
    assert "OSError" in ran.stderr
    assert "no-such-compiler" in ran.stderr
    ran = built_by(into, CC=f"{sys.executable} -c 'raise SystemExit(\"bad weather\")'")
    assert "bad weather" in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="ziglang alone is used there")
def test_there_may_be_no_compiler(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "CC": ""}
    ran = built_by(tmp_path / build.LIBRARY.name, **environment)
    assert ran.stderr.splitlines()[-1].startswith("OSError: there ")
