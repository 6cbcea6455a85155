"""The operations that the time goes into: 1×1 and 3×3 convolutions over strips of pixels.

Both have two paths to the same numbers. On x86 processors oneDNN is called directly, through the
operators that ``torch.compile`` uses as well: it multiplies twice as fast as ``torch.mm`` on
processors for which MKL leaves half the vector unit idle, takes weights that were laid out once,
and adds residuals and applies GELU while the result is still in registers. Everywhere else, and
where another PyTorch has no such operators or they do not pass their trial, it is plain PyTorch.
"""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from restormer_cli.network import native
from restormer_cli.network.device_errors import is_device_trouble
from restormer_cli.network.trials import near, waves

#: Weights are laid out for strips of about this height and width; any other works as well.
TYPICAL_STRIP = (8, 512)
#: Numbers of the smallest vectors that the kernels in C work on.
_LEAST_VECTOR = 4
#: Padding, stride, dilation and groups of a 1×1 convolution.
_POINTWISE = ([0, 0], [1, 1], [1, 1], 1)
_X86 = {"x86_64", "amd64", "i386", "i686", "x86"}


#: Gives memory for a shape, with undefined content: that of the call before.
Memory = Callable[..., Tensor]


class _ByTrial:
    """Stands for the operators that :func:`_onednn` finds and has tried."""


_BY_TRIAL = _ByTrial()
_distrusted: dict[str, None] = {}


def _chosen(operators: Any, like: Tensor) -> Any:
    return _onednn(like.device.type, like.dtype) if operators is _BY_TRIAL else operators


def _gelu(out: Tensor) -> Tensor:
    """GELU, in place where PyTorch has it so; only the copying one is documented."""
    in_place = getattr(torch.ops.aten, "gelu_", None)
    return F.gelu(out) if in_place is None else in_place(out)


def try_operators(device: torch.device, dtype: torch.dtype) -> None:
    """Try whatever is not documented and would be used; see :func:`notices`."""
    _onednn(device.type, dtype)
    _has_layer_norm(device, dtype)
    if device.type == "cuda":
        _can_forbid_tf32(device)


def notices() -> list[str]:
    """What this process does without, a sentence each: operators that failed their trial."""
    return [*_distrusted, *native.notices()]


def _distrust(operators: str, reason: str, cost: str = "slower than need be") -> None:
    without = f"PyTorch {torch.__version__} computes without {operators}, {reason}"
    _distrusted[f"{cost}: {without}"] = None


@functools.cache
def _onednn(device: str, dtype: torch.dtype) -> Any:
    """PyTorch's oneDNN operators, if they serve this device and precision and do what they should.

    They are private, so any of them may change with PyTorch. Each is tried once a process against
    the plain operation; if one is missing, raises or gives other numbers, none is used.
    """
    if device != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return None
    backend: Any = torch.backends.mkldnn  # it has no types
    if platform.machine().lower() not in _X86 or not backend.is_available():
        return None
    operators = torch.ops.mkldnn
    try:
        if dtype == torch.bfloat16 and not operators._is_mkldnn_bf16_supported():
            return None  # an old processor
        trouble = _try_onednn(operators, dtype)
    except Exception as error:  # whatever a changed operator raises
        trouble = f"which cannot be called ({type(error).__name__})"
    if trouble:
        _distrust("the operators of oneDNN", trouble)
    return None if trouble else operators


def _try_onednn(operators: Any, dtype: torch.dtype) -> str:
    """Compare every use of the operators with plain PyTorch; what is wrong, or nothing."""
    with torch.inference_mode():
        for made, expected in zip(_trials(operators, dtype), _trials(None, dtype), strict=True):
            if not near(made, expected):
                return "which give wrong numbers"
    return ""


def _trials(operators: Any, dtype: torch.dtype) -> Iterator[Tensor]:
    """The kinds of layer that a network has, each once, over strips of the kinds there are."""
    like = torch.empty(0, dtype=dtype)
    channels, hidden = 8, 16
    for count, rows, width in ((1, 3, 9), (2, 4, 8)):
        # As windows are: some rows of more, packed for another size.
        pixels = waves(count, rows + 4, width, channels).to(dtype)[:, 1 : rows + 3]
        for bias in (None, waves(hidden)):
            point = Pointwise(waves(hidden, channels), bias, like, operators=operators)
            out = like.new_zeros(count, rows + 5, width, hidden)
            point.into(out[:, 2 : rows + 4], pixels)
            yield out
            added = PointwiseSum(waves(hidden, channels), bias, like, operators=operators)
            for image in range(count):
                added.add_to(out[image : image + 1, 2 : rows + 4], pixels[image : image + 1])
            yield out
            conv = Conv3x3(waves(hidden, channels, 3, 3), bias, like, operators=operators)
            yield conv(pixels)
        for bias, gelu in ((None, True), (waves(channels), False)):
            kernel = waves(channels, 1, 3, 3)
            depth = Conv3x3(kernel, bias, like, depthwise=True, gelu=gelu, operators=operators)
            yield depth(pixels)


@functools.cache
def _has_layer_norm(device: torch.device, dtype: torch.dtype) -> bool:
    """True if ``torch.native_layer_norm``, which is in no documentation, does what it should."""
    like = torch.empty(0, device=device, dtype=dtype)
    with torch.inference_mode():
        rows = waves(1, 2, 3, 8).to(like)
        wide = torch.float32 if device.type == "cpu" else dtype
        one, zero = rows.new_ones(8, dtype=wide), rows.new_zeros(8, dtype=wide)
        try:
            made = torch.native_layer_norm(rows, one.shape, one, zero, 1e-5)
            right = all(
                a.shape == b.shape and near(a.to(b), b)
                for a, b in zip(made[::2], _plain_layer_norm(rows, one, zero, 1e-5), strict=True)
            )
            trouble = "" if right else "which gives wrong numbers"
        except Exception as error:  # as above
            if device.type != "cpu" and is_device_trouble(error):
                raise
            trouble = f"which cannot be called ({type(error).__name__})"
    if trouble:
        _distrust("native_layer_norm", trouble)
    return not trouble


class Scaled(NamedTuple):
    """Pixels ``(N, R, W, C)``, to be multiplied by a number each, ``(N, R, W)``, if there are any.

    Products of our own do so with their results, which takes no pass over the memory.
    """

    pixels: Tensor
    scales: Tensor | None = None

    def rows(self, first: int, last: int) -> Scaled:
        """Rows ``[first, last)``."""
        scales = None if self.scales is None else self.scales[:, first:last]
        return Scaled(self.pixels[:, first:last], scales)


def layer_norm(
    rows: Tensor, center: bool, epsilon: float, memory: Memory, scales: Tensor | None = None
) -> Scaled:
    """LayerNorm over the last axis, without its affine part.

    Where the pixels come back with scales, their mean is not subtracted: the matrix that they are
    multiplied by does so, see :class:`restormer_cli.network.packed.Projection`.

    Parameters
    ----------
    rows
        ``(N, R, W, C)``.
    center
        Whether the mean is subtracted; the variance is about it in any case.
    memory
        Asked for memory for the result, or not.
    scales
        ``(N, R, W, 1)``, of :func:`scales_dtype`: what each pixel is multiplied by, written.
    """
    own = _own(rows)
    if own is not None and own.multiplies:
        if scales is None:
            scales = rows.new_empty(*rows.shape[:3], 1, dtype=scales_dtype(rows))
        own.normalise(rows, None, epsilon, center, scales[..., 0])
        return Scaled(rows, scales[..., 0])
    if own is not None:
        out = memory(*rows.shape)
        own.normalise(rows, out, epsilon, center, None if scales is None else scales[..., 0])
        return Scaled(out)
    channels = rows.shape[-1:]
    # With an affine part that does nothing, the library's kernel is twice as fast as without.
    # On a CPU the statistics that it returns have the precision of that part.
    one, zero = _affine(channels[0], rows.device, scales_dtype(rows))
    if _has_layer_norm(rows.device, rows.dtype):
        normalised, _, found = torch.native_layer_norm(rows, channels, one, zero, epsilon)
    else:
        normalised, found = _plain_layer_norm(rows, one, zero, epsilon)
    if scales is not None:
        scales.copy_(found)
    return Scaled(normalised if center else torch.mul(rows, found.to(rows.dtype), out=normalised))


def scaled(rows: Tensor, scales: Tensor, memory: Memory) -> Scaled:
    """Pixels times what :func:`layer_norm` found."""
    own = _own(rows)
    if own is None:
        return Scaled(rows * scales.to(rows.dtype))
    if own.multiplies:
        return Scaled(rows, scales[..., 0])
    out = memory(*rows.shape)
    own.scale(rows, scales[..., 0], out)
    return Scaled(out)


def scales_dtype(like: Tensor) -> torch.dtype:
    """Precision of what LayerNorm multiplies pixels by."""
    return torch.float32 if like.device.type == "cpu" else like.dtype


@functools.cache
def _affine(channels: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    one = torch.ones(channels, device=device, dtype=dtype)
    return one, torch.zeros_like(one)


def _own(like: Tensor) -> native.Kernels | None:
    """The kernels in C, where they serve."""
    return native.kernels(like.dtype) if like.device.type == "cpu" else None


def _own_products(operators: Any, like: Tensor) -> native.Kernels | None:
    """The kernels in C, where they multiply and no other operators are asked for."""
    own = _own(like) if operators is _BY_TRIAL else None
    return own if own is not None and own.multiplies else None


def _plain_layer_norm(
    rows: Tensor, scale: Tensor, shift: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    wide = rows.float()
    variance = wide.var(-1, keepdim=True, correction=0)
    normalised = F.layer_norm(wide, scale.shape, scale.float(), shift.float(), epsilon)
    return normalised.to(rows.dtype), torch.rsqrt(variance + epsilon).to(scale.dtype)


# TF32. From Ampere on, cuDNN rounds float32 to 10 bits of mantissa unless it is told not to, and so
# do products of matrices if the host program wants it. What was settled for the whole process is
# the host program's, and other threads see it: so nothing is set here. One operator takes the
# permission as an argument, of each call: the convolution that TorchScript files are made of.


def _convolve(rows: Tensor, kernel: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """A 3×3 convolution of ``(N, C, R + 2, W)``, in which float32 stays float32."""
    padding = (0, 1)
    if not (_may_be_tf32(rows) and _can_forbid_tf32(rows.device)):
        return F.conv2d(rows, kernel, bias, padding=padding, groups=groups)
    return _without_tf32(rows, kernel, bias, padding, groups)


def _without_tf32(
    rows: Tensor, kernel: Tensor, bias: Tensor | None, padding: tuple[int, int], groups: int
) -> Tensor:
    cudnn: Any = torch.backends.cudnn  # it has no types
    repeatable = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    kept = (cudnn.benchmark, repeatable, cudnn.enabled)  # as it would be without this
    geometry = ((1, 1), padding, (1, 1), False, (0, 0), groups)
    out: Tensor = torch.ops.aten._convolution(rows, kernel, bias, *geometry, *kept, False)
    return out


def _may_be_tf32(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda" and tensor.dtype == torch.float32


@functools.cache
def _can_forbid_tf32(device: torch.device) -> bool:
    """True if the convolution that takes the permission does what the usual one does."""
    rows, kernel = (waves(*shape).to(device) for shape in ((1, 2, 4, 5), (3, 2, 3, 3)))
    try:
        made = _without_tf32(rows, kernel, None, (0, 1), 1)
        usual = F.conv2d(rows, kernel, padding=(0, 1))  # which may be TF32
        trouble = "" if torch.allclose(made, usual, atol=0.05) else "which gives wrong numbers"
    except (AttributeError, TypeError, RuntimeError) as error:
        if is_device_trouble(error):
            raise
        trouble = f"which cannot be called ({type(error).__name__})"
    if trouble:
        _distrust("a convolution that forbids TF32", trouble, "float32 may be TF32")
    return not trouble


def _products_may_be_tf32(factor: Tensor) -> bool:
    """True if the host program lets products of such matrices be TF32; by default they are not."""
    if not _may_be_tf32(factor):
        return False
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)
    if precision is None:  # PyTorch before 2.9; a later one may refuse to tell by this name
        return bool(matmul.allow_tf32)
    return bool(precision == "tf32")


def _exact_product(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``(P, C)`` times ``(K, C)`` transposed, as a convolution: see TF32 above."""
    column = pixels[None, :, None].permute(0, 3, 1, 2)
    out = _without_tf32(column, weight[:, :, None, None], bias, (0, 0), 1)
    return out.permute(0, 2, 3, 1).reshape(len(pixels), -1)


def for_products(factor: Tensor) -> Tensor:
    """What to multiply instead, where a product of matrices of it would be TF32."""
    return factor.double() if _products_may_be_tf32(factor) else factor


class Pointwise:
    """A 1×1 convolution: one matrix product over rows of pixels."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        like: Tensor,
        *,
        operators: Any = _BY_TRIAL,
    ) -> None:
        """``weight`` is ``(K, C)``; ``like`` gives the device and the precision."""
        self._own = _own_products(operators, like)
        if self._own is not None:
            self._matrix = self._own.matrix(weight, bias)
            return
        self.weight = weight.to(like).contiguous()
        self.bias = None if bias is None else bias.to(like)
        # In bfloat16, PyTorch's own product is oneDNN's, and needs no copy of the result.
        precise = like.dtype != torch.bfloat16
        self._onednn = _chosen(operators, like) if precise else None
        if self._onednn is not None:
            pixels = math.prod(TYPICAL_STRIP)
            self.weight = self._onednn._reorder_linear_weight(self.weight, pixels)

    def into(self, out: Tensor, pixels: Tensor, scales: Tensor | None = None) -> None:
        """Compute ``(N, R, W, C)`` pixels into ``out`` ``(N, R, W, K)``, a part of more rows.

        ``scales`` are those of :class:`Scaled`.
        """
        if self._own is not None:
            self._own.product(pixels, self._matrix, out, scales)
            return
        assert scales is None
        pixels = pixels.reshape(-1, pixels.shape[-1])
        if self._onednn is not None:
            product = self._onednn._linear_pointwise(pixels, self.weight, self.bias, "none", [], "")
            out.copy_(product.view_as(out))
        elif _products_may_be_tf32(pixels):
            out.copy_(_exact_product(pixels, self.weight, self.bias).view_as(out))
        elif len(out) > 1:
            out.copy_(F.linear(pixels, self.weight, self.bias).view_as(out))
        elif self.bias is None:
            torch.mm(pixels, self.weight.T, out=out[0].flatten(0, 1))
        else:
            torch.addmm(self.bias, pixels, self.weight.T, out=out[0].flatten(0, 1))


class PointwiseSum:
    """A 1×1 convolution whose result is added to what is there."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        like: Tensor,
        *,
        operators: Any = _BY_TRIAL,
    ) -> None:
        """``weight`` is ``(K, C)``; ``like`` gives the device and the precision."""
        self._own = _own_products(operators, like)
        if self._own is not None:
            self._matrix = self._own.matrix(weight, bias)
            return
        self.weight = weight.to(like).contiguous()
        self.bias = None if bias is None else bias.to(like)
        self._onednn = _chosen(operators, like)
        if self._onednn is not None:
            kernel = self.weight[:, :, None, None]
            shape = [1, kernel.shape[1], *TYPICAL_STRIP]
            self.weight = self._onednn._reorder_convolution_weight(kernel, *_POINTWISE, shape)

    def add_to(self, rows: Tensor, pixels: Tensor) -> None:
        """Add what comes of ``(N, R, W, C)`` pixels to ``rows`` ``(N, R, W, K)``, in place."""
        if self._own is not None:
            self._own.product(pixels, self._matrix, rows, add=True)
            return
        if not rows.is_contiguous():
            # Of some columns the library rounds products before it adds them.
            dense = rows.contiguous()
            self.add_to(dense, pixels.contiguous())
            rows.copy_(dense)
            return
        if self._onednn is not None:
            self._onednn._convolution_pointwise_.binary(
                rows.permute(0, 3, 1, 2),
                pixels.permute(0, 3, 1, 2),
                self.weight,
                self.bias,
                *_POINTWISE,
                *("add", None, None, [], None),
            )
            return
        flat = rows.view(-1, rows.shape[-1])
        if _products_may_be_tf32(flat):
            flat += _exact_product(pixels.reshape(-1, pixels.shape[-1]), self.weight, self.bias)
            return
        flat.addmm_(pixels.reshape(-1, pixels.shape[-1]), self.weight.T)
        if self.bias is not None:
            flat += self.bias


def round_taps(kernel: Tensor, dtype: torch.dtype) -> Tensor:
    """Round each 3×3 kernel of float64 ``(K, C, 3, 3)`` so that the sum of its taps stays.

    That sum is the gain for smooth areas. Taps that are rounded one by one change it by up to
    0.2 % in bfloat16, and whole areas with it. With trained weights bfloat16 then cost 0.035 dB in
    all; this way it is 0.005. The error of each tap is passed on to the next smaller one.
    """
    taps = kernel.flatten(2)
    rounded, error = torch.empty_like(taps), torch.zeros_like(taps[..., :1])
    for place in torch.split(taps.abs().argsort(dim=2, descending=True), 1, dim=2):
        exact = taps.gather(2, place) + error
        nearest = exact.to(dtype).double()
        rounded.scatter_(2, place, nearest)
        error = exact - nearest
    return rounded.view_as(kernel).to(dtype)


class Conv3x3:
    """A 3×3 convolution over rows that come with their halo, columns zero-padded; then GELU."""

    def __init__(
        self,
        kernel: Tensor,
        bias: Tensor | None,
        like: Tensor,
        *,
        depthwise: bool = False,
        gelu: bool = False,
        operators: Any = _BY_TRIAL,
    ) -> None:
        """``kernel`` is ``(K, C, 3, 3)``; ``like`` gives the device and the precision."""
        self.dtype = like.dtype
        self._own = None if depthwise else _own_products(operators, like)
        if self._own is not None:
            # The three channels of an image would be computed one by one.
            padding = -len(kernel) % _LEAST_VECTOR
            self._outputs = len(kernel)
            kernel = F.pad(kernel, (0, 0, 0, 0, 0, 0, 0, padding))
            bias = None if bias is None else F.pad(bias, (0, padding))
            self._matrix = self._own.matrix(kernel, bias)
            return
        if depthwise and like.dtype.itemsize < 4:
            kernel = round_taps(kernel.double(), like.dtype)
        self.kernel = kernel.to(like).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(like)
        self.groups = len(kernel) if depthwise else 1
        self.gelu = gelu
        self._onednn = _chosen(operators, like)
        # Padding, stride, dilation, groups.
        self._geometry = ([0, 1], [1, 1], [1, 1], self.groups)
        if self._onednn is not None:
            shape = [1, self.groups * kernel.shape[1], *TYPICAL_STRIP]
            self.kernel = self._onednn._reorder_convolution_weight(
                self.kernel, *self._geometry, shape
            )

    def __call__(self, rows: Tensor) -> Tensor:
        """``(N, R + 2, W, C)`` to ``(N, R, W, K)``."""
        if self._own is not None:
            count, height, width, _ = rows.shape
            out = rows.new_empty(count, height - 2, width, self._matrix.shape[0])
            # An image has its channels apart.
            rows = rows if rows.stride(-1) == 1 else rows.contiguous()
            self._own.convolution(rows, self._matrix, out)
            return out[..., : self._outputs]
        rows = rows.permute(0, 3, 1, 2)
        if self._onednn is not None:
            activation: tuple[object, ...] = ("gelu", [], "none") if self.gelu else ("none", [], "")
            out = self._onednn._convolution_pointwise(
                rows, self.kernel, self.bias, *self._geometry, *activation
            )
        else:
            out = _convolve(rows, self.kernel, self.bias, self.groups)
            if self.gelu:
                out = _gelu(out)
        return out.permute(0, 2, 3, 1)


def pixel_unshuffle(rows: Tensor) -> Tensor:
    """``(N, 2R, 2W, C)`` to ``(N, R, W, 4C)``."""
    own = _own(rows)
    if own is None:
        return rearrange(rows, "n (r dy) (w dx) c -> n r w (c dy dx)", dy=2, dx=2)
    count, height, width, channels = rows.shape
    out = rows.new_empty(count, height // 2, width // 2, 4 * channels)
    own.unshuffle(rows, out)
    return out


class Depthwise:
    """A 3×3 depthwise convolution over rows that come with their halo, columns zero-padded."""

    def __init__(
        self, kernel: Tensor, bias: Tensor | None, like: Tensor, *, gelu: bool = False
    ) -> None:
        """``kernel`` is ``(K, 1, 3, 3)``; GELU follows, if asked for."""
        self.channels = len(kernel)
        self.own = _own(like)
        if self.own is not None:
            if like.dtype.itemsize < 4:  # some processors multiply in bfloat16
                kernel = round_taps(kernel.double(), like.dtype)
            self.filter = native.Filter(kernel, bias)
        else:
            self.conv = Conv3x3(kernel, bias, like, depthwise=True, gelu=gelu)

    def __call__(self, rows: Tensor, memory: Memory) -> Tensor:
        """``(N, R + 2, W, K)`` to ``(N, R, W, K)``."""
        if self.own is None:
            return self.conv(rows)
        out = memory(*rows[:, 2:].shape)
        self.own.depthwise(rows, self.filter, out[None])
        return out

    def by_group(
        self, rows: Tensor, columns: list[tuple[int, int]], groups: int, memory: Memory
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Some columns of the result, channels in groups, and sums of squares.

        Parameters
        ----------
        rows
            ``(N, R + 2, W, K)``.
        columns
            First columns, and those behind the last.
        memory
            Gives memory for a shape.

        Yields
        ------
        tuple
            ``(groups, N, R, columns, K / groups)``, contiguous, to be used before the next; and
            the squares summed over the columns, ``(N, R, K)``.
        """
        count, height, width, channels = rows.shape
        height -= 2
        if self.own is None:
            whole = rearrange(self.conv(rows), "n r w (g c) -> g n r w c", g=groups)
            for first, last in columns:
                part = whole[..., first:last, :].contiguous()
                if part.dtype == torch.float16:  # sums over a row can leave its range
                    part = part.float()
                yield part, rearrange(torch.mul(part, part).sum(3), "g n r c -> n r (g c)")
            return
        squares = rows.new_empty(count, height, channels, dtype=torch.float64)
        for first, last in columns:
            shape = (groups, count, height, last - first, channels // groups)
            part = memory(*shape)
            before, behind = first > 0, last < width
            window = rows[:, :, first - before : last + behind]
            self.own.depthwise(window, self.filter, part, (not before, not behind), squares)
            yield part, squares


def gate(
    gates: Depthwise, values: Depthwise, rows: Tensor, others: Tensor, memory: Memory
) -> Tensor:
    """The gate of GDFN: GELU of the one convolution, times the other.

    Parameters
    ----------
    rows, others
        ``(N, R + 2, W, K)`` for gates and values.
    memory
        Asked for memory for ``(N, R, W, K)``, or not.
    """
    if gates.own is None:
        return gates.conv(rows).mul_(values.conv(others))
    out = memory(*rows[:, 2:].shape)
    gates.own.gate(rows, others, (gates.filter, values.filter), out)
    return out
