"""Results of the kernels beside those of PyTorch, to be compared before they are used."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from restormer_cli.network.buffers import Buffers
from restormer_cli.network.native.calls import Filter, Kernels
from restormer_cli.network.native.passes import Block, FirstPass, ImagePart, Projection, SecondPass
from restormer_cli.network.trials import waves

#: Rows of the maps that are tried, without their halo.
ROWS = 3
EPSILON = 1e-5
Pairs = Iterator[tuple[Tensor, Tensor]]
"""What kernels give, and what they should."""


def trials(found: Kernels) -> Pairs:
    """Results beside PyTorch's. Widths and channels take the kernels' every path."""
    for pad, bias, width, channels in (
        ((True, True), False, 37, 64),
        ((False, True), True, 2, 58),
        ((True, False), True, 33, 10),
    ):
        columns = width + 2 - sum(pad)
        maps, others = waves(2, 2, ROWS + 2, columns, channels).to(found.dtype)
        # What LayerNorm multiplies each pixel by.
        scales = torch.rsqrt(maps.float().var(-1, correction=0) + EPSILON)
        yield from _depthwise(found, maps, others, pad, bias)
        yield from _pixelwise(found, maps, scales)
        yield from _unshuffle(found, others)
        if found.multiplies:
            yield from _products(found, maps, scales, bias)
    if found.multiplies:
        yield from _passes(found)


def _depthwise(
    found: Kernels, gates: Tensor, values: Tensor, pad: tuple[bool, bool], bias: bool
) -> Pairs:
    """Depthwise convolutions: with the gate of GDFN, and by head with sums of squares."""
    channels, heads = gates.shape[3], 2
    plain = [
        (waves(channels, 1, 3, 3), waves(channels) if bias else None),
        (waves(channels, 1, 3, 3).flip(0), waves(channels).flip(0) if bias else None),
    ]
    gate_filter, value_filter = (Filter(*parameters) for parameters in plain)
    gate, value = (
        F.conv2d(
            F.pad(window.float().permute(0, 3, 1, 2), (int(pad[0]), int(pad[1]))),
            *parameters,
            groups=channels,
        ).permute(0, 2, 3, 1)
        for window, parameters in zip((gates, values), plain, strict=True)
    )
    out = torch.full_like(gate, torch.nan, dtype=found.dtype)
    found.gate(gates, values, (gate_filter, value_filter), out, pad)
    yield out, (F.gelu(gate) * value).to(found.dtype)

    split = torch.stack(value.chunk(heads, dim=3))
    out = torch.full_like(split, torch.nan, dtype=found.dtype)
    squares = out.new_full((2, ROWS, channels), torch.nan, dtype=torch.float64)
    found.depthwise(values, value_filter, out, pad, squares)
    yield out, split.to(found.dtype)
    of_result = out.double().square().sum(3).permute(1, 2, 0, 3).flatten(2)
    yield squares.float(), of_result.float()


def _pixelwise(found: Kernels, maps: Tensor, scales: Tensor) -> Pairs:
    """LayerNorm, with and without the mean, and its second half alone."""
    out, written = torch.full_like(maps, torch.nan), torch.full_like(scales, torch.nan)
    for center in (True, False):
        found.normalise(maps, out, EPSILON, center, written)
        mean = maps.float().mean(-1, keepdim=True) if center else 0.0
        yield out, ((maps.float() - mean) * scales[..., None]).to(found.dtype)
        yield written, scales
    out = torch.full_like(maps, torch.nan)
    found.scale(maps, written, out)
    yield out, (maps.float() * scales[..., None]).to(found.dtype)


def _unshuffle(found: Kernels, maps: Tensor) -> Pairs:
    halves = maps[:, :2, : maps.shape[2] // 2 * 2]
    count, _, columns, channels = halves.shape
    out = torch.full((count, 1, columns // 2, 4 * channels), torch.nan).to(found.dtype)
    found.unshuffle(halves, out)
    yield out, F.pixel_unshuffle(halves.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def _products(found: Kernels, maps: Tensor, scales: Tensor, bias: bool) -> Pairs:
    """1×1 and 3×3 convolutions as products of matrices."""
    channels, outputs = maps.shape[3], 70
    weight = waves(outputs, channels).to(found.dtype).float()
    matrix = found.matrix(weight, waves(outputs) if bias else None)
    expected = (maps.float() * scales[..., None]) @ weight.T
    expected += waves(outputs) if bias else 0
    out = torch.full(expected.shape, torch.nan, dtype=found.dtype)
    found.product(maps, matrix, out, scales)
    yield out, expected.to(found.dtype)
    found.product(maps, matrix, out, scales, add=True)
    yield out, (2 * expected).to(found.dtype)

    kernel = waves(outputs, channels, 3, 3).to(found.dtype).float()
    padded = F.pad(maps.float().permute(0, 3, 1, 2), (1, 1))
    expected = F.conv2d(padded, kernel, matrix.bias).permute(0, 2, 3, 1)
    out = torch.full(expected.shape, torch.nan, dtype=found.dtype)
    found.convolution(maps, found.matrix(kernel, matrix.bias), out)
    yield out, expected.to(found.dtype)


def _passes(found: Kernels) -> Pairs:
    """Both passes of a block beside the same by one call for each step, over a whole map."""
    height, width, channels, hidden, heads = 7, 9, 12, 20, 2
    per_head = channels // heads
    qk, v, gate, value = (
        Projection(found.matrix(waves(k, channels), None), Filter(waves(k, 1, 3, 3) / 3, waves(k)))
        for k in (2 * channels, channels, hidden, hidden)
    )
    project_out = found.matrix(waves(channels, hidden), waves(channels))
    block = Block(
        found, qk, v, gate, value, project_out, heads=heads, center=False, epsilon=EPSILON
    )
    mixed = found.matrix(waves(channels, channels), None)

    def new(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=found.dtype)

    def projected(x: Tensor, projection: Projection) -> Tensor:
        scales = torch.empty(x.shape[:3])
        found.normalise(x, None, EPSILON, False, scales)
        window = new(1, height + 2, width, projection.depth.channels)
        found.product(x, projection.point, window[:, 1:-1], scales)
        return window

    x = waves(1, height, width, channels).to(found.dtype)
    made = x.clone()
    shapes = ((1, heads, per_head, per_head), (1, 2, heads, per_head))
    sums, expected = ([torch.zeros(shape).double() for shape in shapes] for _ in range(2))
    image = ImagePart(made[0], torch.empty(height, width), True, True)

    buffers = Buffers({}, x)
    FirstPass(block, image, 2, width, buffers)(0, height, [(0, width)], *sums)
    split = new(2 * heads, 1, height, width, per_head)
    squares = torch.empty(1, height, 2 * channels, dtype=torch.float64)
    found.depthwise(projected(x, qk), qk.depth, split, squares=squares)
    found.gram(split, squares, 2, *expected)
    for total, each in zip(sums, expected, strict=True):
        yield total.float(), each.float()

    SecondPass(block, image, buffers)(0, height, [(0, width, mixed)])
    convolved, gated = new(1, 1, height, width, channels), new(1, height, width, hidden)
    found.depthwise(projected(x, v), v.depth, convolved)
    found.product(convolved[0], mixed, x, add=True)
    gates, values = (projected(x, each) for each in (gate, value))
    found.gate(gates, values, (gate.depth, value.depth), gated)
    found.product(gated, project_out, x, add=True)
    yield made, x
