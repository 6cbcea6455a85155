"""Windows and their cells: the geometry, and one layer of attention against TLC's loops."""

from __future__ import annotations

import pytest
import tlc
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from restormer_cli.network.architecture import MDTA, LayerNorm, RestormerConfig
from restormer_cli.network.packed import Attention
from restormer_cli.network.windows import Axis, CellMatrices, Grid, grids, state_bytes

sizes = st.integers(1, 40)


@settings(max_examples=500, deadline=None)
@given(size=st.integers(1, 400), window=st.integers(1, 80))
def test_windows_of_an_axis_are_those_of_tlc(size: int, window: int) -> None:
    axis = Axis(size, min(size, window))
    assert list(axis.starts) == tlc.window_starts(size, min(size, window))
    covered = [
        {n for n, s in enumerate(axis.starts) if s <= p < s + axis.window} for p in range(size)
    ]
    assert all(covered)
    for cell, windows in enumerate(axis.covering):
        begin, end = axis.edges[cell : cell + 2]
        assert all(covered[pixel] == set(windows) for pixel in range(begin, end))
    for number, cells in enumerate(axis.parts(axis.edges)):
        assert axis.edges[cells.start] == axis.starts[number]
        assert axis.edges[cells.stop] == axis.starts[number] + axis.window


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 200), window=st.integers(1, 80), data=st.data())
def test_pixels_are_cut_at_the_edges(size: int, window: int, data: st.DataObject) -> None:
    axis = Axis(size, min(size, window))
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first + 1, size))
    parts = axis.split(first, last)
    assert [pixel for _, a, b in parts for pixel in range(a, b)] == list(range(first, last))
    for cell, a, b in parts:
        assert axis.edges[cell] <= a < b <= axis.edges[cell + 1]


def test_a_window_as_large_as_the_map_is_one_cell() -> None:
    for window in (None, 24, 25, 1000):
        grid = Grid(24, 16, window)
        assert (grid.row_edges, grid.column_edges, grid.cells) == ((0, 24), (0, 16), (1, 1))


def test_windows_shrink_with_the_resolution() -> None:
    assert [grid.rows.window for grid in grids(512, 512, 384)] == [384, 192, 96, 48]
    assert [grid.columns.window for grid in grids(512, 8, 384)] == [8, 4, 2, 1]
    assert [grid.rows.window for grid in grids(512, 512, 8)] == [8, 4, 2, 1]
    assert [grid.cells for grid in grids(512, 384, None)] == [(1, 1)] * 4


def layer(heads: int, bias: bool) -> MDTA:
    torch.manual_seed(heads)
    made = MDTA(8, heads, bias).requires_grad_(False)
    made.temperature.uniform_(0.5, 4)
    for module in (made.qkv, made.qkv_dwconv, made.project_out):
        module.weight.normal_(std=1.2 * module.weight[0].numel() ** -0.5)
    return made


def by_cells(module: MDTA, grid: Grid, x: Tensor) -> Tensor:
    """What :func:`tlc.local_attention` gives, through the grid: sums by cell, product by cell."""
    packed = Attention(LayerNorm(8, "BiasFree"), module, torch.empty(0))
    qkv = module.qkv_dwconv(module.qkv(x)).double()
    shape = (3, len(x), module.heads, 8 // module.heads, *x.shape[2:])
    q, k, v = qkv.view(len(x), 3, *shape[2:]).transpose(0, 1)
    per_head = shape[3]
    gram = torch.zeros(len(x), *grid.cells, module.heads, per_head, per_head, dtype=torch.float64)
    squares = torch.zeros(len(x), *grid.cells, 2, module.heads, per_head, dtype=torch.float64)
    parts = [
        (row, column, (..., slice(*ys), slice(*xs)))
        for row, *ys in grid.rows.split(0, x.shape[2])
        for column, *xs in grid.columns.split(0, x.shape[3])
    ]
    for row, column, part in parts:
        gram[:, row, column] = torch.einsum("nhcyx,nhdyx->nhcd", q[part], k[part])
        for which, values in enumerate((q, k)):
            squares[:, row, column, which] = values[part].square().sum((-2, -1))
    matrices = grid.fold(packed, gram, squares, (grid.row_edges, grid.column_edges))
    out = torch.empty_like(x)
    for row, column, part in parts:
        matrix = matrices.row(row)[:, column]
        out[part] = torch.einsum("noc,ncyx->noyx", matrix, v.flatten(1, 2)[part]).float()
    bias = module.project_out.bias
    return out if bias is None else out + bias[:, None, None]


@settings(max_examples=150, deadline=None)
@given(
    height=sizes,
    width=sizes,
    window=st.integers(1, 48),
    count=st.integers(1, 2),
    heads=st.sampled_from([1, 2, 8]),
    bias=st.booleans(),
    seed=st.integers(0, 1 << 20),
)
def test_attention_by_cells_is_that_of_tlc(height, width, window, count, heads, bias, seed):
    module = layer(heads, bias)
    x = torch.randn(count, 8, height, width, generator=torch.Generator().manual_seed(seed))
    expected = tlc.local_attention(module, (window, window), x)
    result = by_cells(module, Grid(height, width, window), x)
    # Of a window of one pixel, q·k of two channels is 1 or -1, however small they are.
    assert (result - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())


def test_some_columns_of_a_row_are_those_of_the_whole_row() -> None:
    grid = Grid(20, 30, 7)
    packed = Attention(LayerNorm(8, "BiasFree"), layer(2, bias=False), torch.empty(0))
    softmaxed = torch.rand(2, len(grid.rows.starts), len(grid.columns.starts), 2, 4, 4)
    matrices = CellMatrices(grid, packed, softmaxed)
    for row in range(grid.cells[0]):
        whole = matrices.row(row)
        assert whole.shape == (2, grid.cells[1], 8, 8)
        assert torch.equal(matrices.row(row, slice(2, 5)), whole[:, 2:5])


def test_black_windows_give_numbers() -> None:
    """Where q and k are 0 everywhere, as F.normalize has it: no division by 0."""
    module = layer(2, bias=False)
    x = torch.randn(1, 8, 16, 16)
    x[..., :9, :] = 0
    result = by_cells(module, Grid(16, 16, 4), x)
    assert torch.isfinite(result).all()
    assert (result - tlc.local_attention(module, (4, 4), x)).abs().max() <= 1e-5


@pytest.mark.parametrize(("window", "share"), [(384, 0.04), (64, 0.2)])
def test_state_is_small_beside_the_feature_maps(window: int, share: float) -> None:
    """Of 24 megapixels: the widest map alone is 2·dim channels in float32."""
    config = RestormerConfig()
    height, width = 4000, 6000
    maps = height * width * 2 * config.dim * 4
    assert 0 < state_bytes(config, height, width, window) < share * maps
    assert state_bytes(config, height, width, None) < 3e-3 * maps


def test_plain_modules_are_left_as_they_were() -> None:
    module = nn.Sequential(layer(1, bias=False))
    x = torch.rand(1, 8, 8, 8)
    assert torch.equal(module(x), tlc.local_attention(module[0], (8, 8), x))
