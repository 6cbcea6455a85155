"""CUDA cards and an Apple GPU that are not there, for the CPU build of PyTorch on Linux.

:func:`pretended` makes PyTorch believe in them. A tensor there has the numbers of a CPU and the
name of a device: all is computed, operands on different devices are refused as a real device
refuses them, and what such a device does otherwise is done otherwise:

- float32 becomes TF32 wherever PyTorch would let a card do so;
- products of lower precision are summed in float32 and rounded once;
- LayerNorm's statistics are float32 on a card, and its affine part has the input's precision;
- MPS has no float64, and the address of a view there is no place in memory;
- memory is counted, ends, and belongs to one process on one card.

A test may also let an operation raise (:attr:`Pretended.before`) or give wrong numbers
(:attr:`Pretended.after`). Not pretended: cuDNN, cuBLAS and Metal themselves, streams, what happens
at the same time, and other processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or torch.version.cuda is not None or torch.version.hip is not None,
    reason="devices are pretended with the CPU build of PyTorch on Linux",
)
#: Operators that take their device from an argument.
FACTORY = re.compile(r"(empty|zeros|ones|full|arange|scalar_tensor)(\.|$)")
#: Operators that bring numbers to a device.
MOVE = re.compile(r"(_to_copy|to|copy_|copy)(\.|$)")
#: Those of them that give a new tensor.
NEW = re.compile(r"(_to_copy|to)(\.|$)")
PRODUCT = re.compile(r"(mm|bmm|addmm|addmm_|baddbmm|linear|matmul)(\.|$)")
CONVOLUTION = re.compile(r"(conv2d|convolution|_convolution|cudnn_convolution)(\.|$)")
#: Where the devices are in a table of PyTorch: ``c10::DeviceType``.
_DEVICE_TYPES = {"cuda": 1, "mps": 13, "meta": 14}
#: Memory comes in pieces of this size.
PIECE = 512


class DeviceTensor(Tensor):
    """A tensor of the CPU under the name of another device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> DeviceTensor:
        made: DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert Pretended.active is not None, "a pretended tensor outlived its device"
        with Pretended.active:
            return func(*args, **(kwargs or {}))

    def data_ptr(self) -> int:
        if self.device.type != "mps":
            return self.inner.data_ptr()
        # A buffer's number plus bytes, so that views of different buffers may have the same.
        return self.inner.storage_offset() * self.inner.element_size()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.device}, {self.inner!r})"


def _indexed(device: Any) -> torch.device:
    device = torch.device(device)
    whole = device.type == "cpu" or device.index is not None
    return device if whole else torch.device(device.type, 0)


class _Indices(TorchFunctionMode):
    """Gives devices an index, before C++ asks a driver for the current one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def indexed(value: Any) -> Any:
            is_name = isinstance(value, str) and value in {"cuda", "mps"}
            return _indexed(value) if is_name or isinstance(value, torch.device) else value

        kwargs = {k: indexed(v) if k == "device" else v for k, v in (kwargs or {}).items()}
        if getattr(func, "__name__", "") == "to":
            args = tuple(map(indexed, args))
        return func(*args, **kwargs)


class Pretended(TorchDispatchMode):
    """The devices, while :func:`pretended` lasts."""

    active: Pretended | None = None

    def __init__(self, kind: str, memory: int, layout: str) -> None:
        super().__init__()
        self.kind, self.memory, self.layout = kind, memory, layout
        #: Called with the name of an operator before it runs on a device; may raise.
        self.before: Callable[[str], None] | None = None
        #: Called with the name, the operands and the result; gives what the device makes of it.
        self.after: Callable[[str, Any, Any], Any] | None = None
        #: What a card answers to everything, by its number.
        self.broken: dict[int, str] = {}
        #: Bytes that other processes hold on each card.
        self.taken: Counter[int] = Counter()
        self.held: Counter[int] = Counter()
        self.peak: Counter[int] = Counter()
        #: Bytes that were copied, by ``to`` and ``from`` the device.
        self.copied: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        #: Cards that a process was working on when it emptied its cache.
        self.emptied: list[int] = []
        self.current = 0
        self._known: dict[int, Any] = {}

    # Memory

    def free(self, index: int) -> int:
        return self.memory - self.taken[index] - self.held[index]

    def _take(self, tensor: Tensor, index: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // PIECE) * PIECE
        if size > self.free(index):
            raise RuntimeError(f"CUDA out of memory. Tried to allocate {size} bytes.")
        self.held[index] += size
        self.peak[index] = max(self.peak[index], self.held[index])

        def give_back(_: object) -> None:
            self.held[index] -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, give_back)

    def ask(self, index: int) -> None:
        """Any use of a card, which may be out of order."""
        if index in self.broken:
            raise RuntimeError(self.broken[index])

    # Operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.name().removeprefix("aten::")
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        device = self._device_of_result(name, args, kwargs, tensors)
        ours = device.type == self.kind or any(t.device.type == self.kind for t in tensors)
        if not ours:
            return func(*args, **kwargs)
        self.ask(device.index or 0)
        self.calls[name.partition(".")[0]] += 1
        if self.before is not None:
            self.before(name)
        if device.type == "mps":
            self._refuse_float64(name, (*args, *kwargs.values()))
        out = self._compute(func, name, *tree_map(_inner, (args, kwargs)), device)
        if NEW.match(name) and tensors[0].device != device and out is _inner(tensors[0]):
            out = out.clone()
        if self.after is not None and device.type == self.kind:
            out = self.after(name, tree_map(_inner, args), out)

        def named(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            for t in tensors:  # what works in place gives what it was given
                if _inner(t) is value:
                    return t
            if device.type != self.kind:
                return value
            if device.type == "mps" and value.dtype == torch.float64:
                raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype ({name})")
            self._take(value, device.index or 0)
            with torch.inference_mode(value.is_inference()):  # views of a weight are not
                return DeviceTensor(value, device)

        return tree_map(named, out)

    def _device_of_result(self, name: str, args: Any, kwargs: Any, tensors: Any) -> torch.device:
        asked = kwargs.get("device")
        if FACTORY.match(name):
            return _indexed(asked or "cpu")
        if MOVE.match(name):
            device = tensors[0].device if asked is None else _indexed(asked)
            if name.startswith("to.device"):
                device = _indexed(args[1])
            elif name.startswith("to.other"):
                device = tensors[1].device
            source = tensors[-1] if name.startswith("copy") else tensors[0]
            if (source.device.type == self.kind) != (device.type == self.kind):
                way = "to" if device.type == self.kind else "from"
                self.copied[way] += source.numel() * source.element_size()
            return device
        # A number without dimensions may come from the CPU.
        devices = {t.device for t in tensors if t.dim() or t.device.type != "cpu"}
        if len(devices) > 1:
            found = " and ".join(sorted(map(str, devices)))
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {found} ({name})"
            )
        return _indexed(asked) if asked is not None else next(iter(devices), torch.device("cpu"))

    def _compute(self, func: Any, name: str, args: Any, kwargs: Any, device: torch.device) -> Any:
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        if name.startswith("to.device"):
            args = (args[0], torch.device("cpu"), *args[2:])
        if device.type != self.kind:
            return func(*args, **kwargs)
        if name.startswith("native_layer_norm"):
            return _layer_norm(*args, device=device)
        if CONVOLUTION.match(name):
            return self._convolution(func, name, args, kwargs)
        if PRODUCT.match(name):
            return self._product(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _convolution(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        _agree(args[:3], name)
        tf32 = torch.backends.cudnn.allow_tf32
        if name.startswith(("_convolution", "cudnn_convolution")):
            tf32 = args[-1]
        groups = args[8] if "convolution" in name else args[6] if len(args) > 6 else 1
        depthwise = groups > 1  # kernels of PyTorch, which know no TF32
        if self.kind == "cuda" and tf32 and not depthwise:
            args = (_tf32(args[0]), _tf32(args[1]), *args[2:])
        dtype = args[0].dtype
        out: Tensor = func(*map(_wide, args), **kwargs).to(dtype)
        form = torch.channels_last if self.layout == "nhwc" else torch.contiguous_format
        return out.contiguous(memory_format=form)

    def _product(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        dtype = _agree(args, name)
        factors = args[-2:] if name.startswith(("addmm", "baddbmm")) else args[:2]
        if self.kind == "cuda" and _products_are_tf32():
            args = [_tf32(a) if any(a is f for f in factors) else a for a in args]
        if dtype.itemsize >= 4:
            return func(*args, **kwargs)
        out = kwargs.pop("out", args[0] if name.startswith("addmm_") else None)
        plain = getattr(torch.ops.aten, name.partition(".")[0].removesuffix("_"))
        made: Tensor = plain(*map(_wide, args), **kwargs).to(dtype)
        if out is None:
            return made
        assert out.dtype == dtype
        return out.copy_(made)

    @staticmethod
    def _refuse_float64(name: str, values: Any) -> None:
        if torch.float64 in [value for value in values if isinstance(value, torch.dtype)]:
            raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype ({name})")


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, DeviceTensor) else value


def _wide(value: Any) -> Any:
    is_low = isinstance(value, Tensor) and value.dtype.itemsize < 4
    return value.float() if is_low else value


def _agree(operands: Any, name: str) -> torch.dtype:
    kinds = {o.dtype for o in operands if isinstance(o, Tensor)}
    if len(kinds) > 1:
        raise RuntimeError(f"expected operands of one dtype, but got {kinds} ({name})")
    return next(iter(kinds))


def _tf32(tensor: Tensor) -> Tensor:
    """With 10 bits of mantissa, if it is float32; halves away from zero, as the hardware does."""
    if tensor.dtype != torch.float32:
        return tensor
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & -(1 << 13)).view(torch.float32)


def _products_are_tf32() -> bool:
    matmul = torch.backends.cuda.matmul
    return getattr(matmul, "fp32_precision", None) == "tf32" or (
        not hasattr(matmul, "fp32_precision") and matmul.allow_tf32
    )


def _layer_norm(
    x: Tensor, shape: Any, weight: Any, bias: Any, eps: float, *, device: torch.device
) -> Any:
    # MPS up to PyTorch 2.13 reads an affine part of another precision as garbage.
    if weight is not None and weight.dtype != x.dtype:
        raise RuntimeError(f"expected scalar type {x.dtype} but found {weight.dtype}")
    out, mean, scale = torch.native_layer_norm(_wide(x), shape, _wide(weight), _wide(bias), eps)
    if device.type == "mps":
        mean, scale = mean.to(x.dtype), scale.to(x.dtype)
    return out.to(x.dtype), mean, scale


def _lend_guards() -> None:
    """Give CUDA and MPS what PyTorch has for tensors without memory: a guard that does nothing.

    Without one, indexing a tensor there says that PyTorch was built without support for it. The
    table of guards has no name in Python, but one in the library.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    name = "_ZN3c104impl26device_guard_impl_registryE"
    table = (ctypes.c_void_p * (1 + max(_DEVICE_TYPES.values()))).in_dll(library, name)
    for kind in ("cuda", "mps"):
        if not table[_DEVICE_TYPES[kind]]:
            table[_DEVICE_TYPES[kind]] = table[_DEVICE_TYPES["meta"]]


@contextlib.contextmanager
def pretended(
    kind: str = "cuda",
    *,
    cards: int = 1,
    counted: int | None = None,
    memory: int = 80 << 30,
    layout: str = "nhwc",
    capability: tuple[int, int] = (9, 0),
) -> Iterator[Pretended]:
    """Make PyTorch believe in devices, in this thread.

    Parameters
    ----------
    kind
        ``cuda`` or ``mps``.
    cards, counted
        Cards that there are, and how many the driver's tools count, if that is another number.
    memory
        Bytes that each has.
    layout
        Of what convolutions give: ``nhwc`` as cuDNN does where the input is so, or ``nchw`` as
        other kernels do.
    capability
        The generation of the cards.
    """
    device = Pretended(kind, memory, layout)
    there = cards if kind == "cuda" else 0

    def index_of(which: Any = None) -> int:
        index = which if isinstance(which, int) else _indexed(which or "cuda").index
        if index >= there:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return index

    def properties(which: Any = None) -> SimpleNamespace:
        index = index_of(which)
        major, minor = capability
        return SimpleNamespace(
            name=f"Pretended {index}", total_memory=memory, major=major, minor=minor
        )

    def mem_get_info(which: Any = None) -> tuple[int, int]:
        device.ask(index := index_of(which))
        return max(0, device.free(index)), memory

    class Current:
        """In place of ``torch.cuda.device``."""

        def __init__(self, which: Any) -> None:
            self.index = index_of(which)

        def __enter__(self) -> None:
            self.before, device.current = device.current, self.index

        def __exit__(self, *_: object) -> None:
            device.current = self.before

    changes: dict[str, Any] = {
        "cuda._lazy_init": lambda: None,
        "cuda.is_available": lambda: bool(there),
        "cuda.device_count": lambda: there if counted is None else counted,
        "cuda.current_device": lambda: device.current,
        "cuda.device": Current,
        "cuda.get_device_properties": properties,
        "cuda.get_device_capability": lambda which=None: (index_of(which), capability)[1],
        "cuda.mem_get_info": mem_get_info,
        "cuda.memory_reserved": lambda which=None: device.held[index_of(which)],
        "cuda.memory_allocated": lambda which=None: device.held[index_of(which)],
        "cuda.empty_cache": lambda: device.emptied.append(device.current),
        "backends.mps.is_available": lambda: kind == "mps",
        "mps.recommended_max_memory": lambda: memory,
        "mps.driver_allocated_memory": lambda: device.held[0],
        "mps.current_allocated_memory": lambda: device.held[0],
        "mps.empty_cache": lambda: device.emptied.append(0),
    }
    _lend_guards()
    with contextlib.ExitStack() as stack:
        for name, made in changes.items():
            stack.enter_context(mock.patch(f"torch.{name}", made))
        stack.enter_context(_Indices())
        stack.enter_context(mock.patch.object(Pretended, "active", device))
        stack.enter_context(device)
        yield device
