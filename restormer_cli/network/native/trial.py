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


def trials(found: Kernels) -> Iterator[tuple[Tensor, Tensor]]:
    """Results beside PyTorch's. Widths and channels take the kernels' every path."""
    heads = 2
    for pad, bias, width, channels in (
        ((True, True), False, 37, 64),
        ((False, True), True, 2, 58),
        ((True, False), True, 33, 10),
    ):
        rows, columns = 3, width + 2 - sum(pad)
        gates, values = waves(2, 2, rows + 2, columns, channels).to(found.dtype)
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
        squares = out.new_full((2, rows, channels), torch.nan, dtype=torch.float64)
        found.depthwise(values, value_filter, out, pad, squares)
        yield out, split.to(found.dtype)
        of_result = out.double().square().sum(3).permute(1, 2, 0, 3).flatten(2)
        yield squares.float(), of_result.float()

        out = torch.full_like(gates, torch.nan)
        scales = torch.full(gates.shape[:3], torch.nan)
        variances = gates.float().var(-1, correction=0)
        for center in (True, False):
            found.normalise(gates, out, 1e-5, center, scales)
            factors = torch.rsqrt(variances + 1e-5)
            mean = gates.float().mean(-1, keepdim=True) if center else 0.0
            yield out, ((gates.float() - mean) * factors[..., None]).to(found.dtype)
            yield scales, factors
        out = torch.full_like(gates, torch.nan)
        found.scale(gates, scales, out)
        yield out, (gates.float() * factors[..., None]).to(found.dtype)
        halves = values[:, :2, : columns // 2 * 2]
        out = torch.full((2, 1, columns // 2, 4 * channels), torch.nan).to(found.dtype)
        found.unshuffle(halves, out)
        yield out, F.pixel_unshuffle(halves.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        if found.multiplies:
            weight = waves(70, channels).to(found.dtype).float()
            matrix = found.matrix(weight, waves(70) if bias else None)
            expected = (gates.float() * factors[..., None]) @ weight.T
            expected += waves(70) if bias else 0
            out = torch.full(expected.shape, torch.nan, dtype=found.dtype)
            found.product(gates, matrix, out, scales)
            yield out, expected.to(found.dtype)
            found.product(gates, matrix, out, scales, add=True)
            yield out, (2 * expected).to(found.dtype)
            kernel = waves(70, channels, 3, 3).to(found.dtype).float()
            padded = F.pad(gates.float().permute(0, 3, 1, 2), (1, 1))
            expected = F.conv2d(padded, kernel, matrix.bias).permute(0, 2, 3, 1)
            out = torch.full(expected.shape, torch.nan, dtype=found.dtype)
            found.convolution(gates, found.matrix(kernel, matrix.bias), out)
            yield out, expected.to(found.dtype)
    if found.multiplies:
        yield from _passes(found)


def _passes(found: Kernels) -> Iterator[tuple[Tensor, Tensor]]:
    """Both passes of a block beside the same by one call for each step, over a whole map."""
    height, width, channels, hidden, heads, epsilon = 7, 9, 12, 20, 2, 1e-5
    per_head = channels // heads
    qk, v, gate, value = (
        Projection(found.matrix(waves(k, channels), None), Filter(waves(k, 1, 3, 3) / 3, waves(k)))
        for k in (2 * channels, channels, hidden, hidden)
    )
    project_out = found.matrix(waves(channels, hidden), waves(channels))
    block = Block(
        found, qk, v, gate, value, project_out, heads=heads, center=False, epsilon=epsilon
    )
    mixed = found.matrix(waves(channels, channels), None)

    def new(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=found.dtype)

    def projected(x: Tensor, projection: Projection) -> Tensor:
        scales = torch.empty(x.shape[:3])
        found.normalise(x, None, epsilon, False, scales)
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
