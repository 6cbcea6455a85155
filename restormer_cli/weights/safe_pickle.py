"""Reading a pickle without running it.

Unpickling executes a program that imports and calls functions. Here the steps of that program are
followed on plain data only. An import becomes a :class:`Global`, a call becomes a :class:`Call`.
Neither is executed, so no file can run code. And no file can make Python take memory that its own
bytes do not fill, as :class:`pickle.Unpickler` does for a large index into its memo. Checkpoints
with objects of other libraries are read as well, without those libraries.

:mod:`pickletools` of the standard library parses the steps. Their meaning is that of protocols 0 to
5, as the comments in :mod:`pickletools` define it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast

#: Most steps of one pickle. The largest checkpoints of training runs have some 10⁵.
MAX_STEPS = 1_000_000

PersistentLoad = Callable[[Any], Any]


class Stream(Protocol):
    """A source of bytes, such as BytesIO or a memory map."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


class PickleError(ValueError):
    """The bytes are no pickle, or one with steps that no checkpoint has."""


@dataclass(frozen=True, eq=False)
class Global:
    """An object that a pickle would import."""

    name: str
    """Module and name, such as ``torch._utils._rebuild_tensor_v2``."""


@dataclass(frozen=True, eq=False)
class Call:
    """A call that a pickle would make."""

    function: str
    """Name of the function; empty if it is the result of another call."""
    arguments: tuple[Any, ...]


def read_pickle(stream: Stream, persistent_load: PersistentLoad | None = None) -> Any:
    """Read one pickle; the stream is then behind its end.

    Parameters
    ----------
    stream
        Its ``read`` must never take more memory than there are bytes, as that of a file may.
    persistent_load
        Returns a stand-in for an object outside of the pickle, from its identifier.

    Returns
    -------
    object
        Made of None, bool, numbers, str, bytes, tuples, lists (also for sets), dicts (of all
        kinds; entries whose keys are no plain values are left out), :class:`Global`,
        :class:`Call`, and results of ``persistent_load``.

    Raises
    ------
    PickleError
        If the pickle is damaged, or too long.
    """
    machine = _Machine(persistent_load)
    steps = pickletools.genops(cast(IO[bytes], stream))
    try:
        for count, (opcode, argument, _) in enumerate(steps):
            if count > MAX_STEPS:
                raise PickleError(f"has more than {MAX_STEPS} steps")
            machine.step(opcode.name, argument)
        return machine.pop()
    except PickleError:
        raise
    except Exception as error:  # damaged bytes provoke whatever they like
        raise PickleError(f"is damaged ({type(error).__name__})") from error


_PLAIN = (str, bytes, int, float, bool, type(None))
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DICTS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "builtins.dict",
    "__builtin__.dict",
}


class _Machine:
    """The stack machine that executes a pickle."""

    def __init__(self, persistent_load: PersistentLoad | None) -> None:
        self.persistent_load = persistent_load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        depth = self.marks.pop()
        items = self.stack[depth:]
        del self.stack[depth:]
        return items

    def call(self, function: Any, arguments: Any) -> Any:
        """Return a stand-in for the result of a call, or the object itself if it is plain."""
        name = function.name if isinstance(function, Global) else ""
        arguments = arguments if isinstance(arguments, tuple) else ()
        if name == "torch.Size" and len(arguments) == 1:
            return arguments[0]
        if name not in _DICTS:
            return Call(name, arguments)
        made: dict[Any, Any] = {}
        # Python 2 wrote the pairs of an OrderedDict as the argument.
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        self.copied += len(pairs)
        if self.copied > MAX_STEPS:  # the same long list over and over
            raise PickleError(f"copies more than {MAX_STEPS} entries")
        for key, value in pairs:
            _set_items(made, [key, value])
        return made

    def step(self, name: str, argument: Any) -> None:
        """Take one step; the order of the cases is that of how often they occur."""
        push = self.stack.append
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "MARK":
                self.marks.append(len(self.stack))
            case "TUPLE":
                push(tuple(self.pop_to_mark()))
            case "LIST" | "FROZENSET":
                push(self.pop_to_mark())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = _TUPLES[name]
                self.stack[-length:] = [tuple(self.stack[-length:])]
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push(_VALUES[name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                push(_EMPTY[name]())
            case "BINPERSID" | "PERSID":
                if self.persistent_load is None:
                    raise PickleError("refers to objects outside of it")
                push(self.persistent_load(self.pop() if name == "BINPERSID" else argument))
            case "GLOBAL":
                push(Global(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                push(Global(f"{_text(module)}.{_text(attribute)}"))
            case "REDUCE" | "NEWOBJ":
                arguments, function = self.pop(), self.pop()
                push(self.call(function, arguments))
            case "NEWOBJ_EX":
                _, arguments, function = self.pop(), self.pop(), self.pop()
                push(self.call(function, arguments))
            case "OBJ":
                function, *rest = self.pop_to_mark()
                push(self.call(function, tuple(rest)))
            case "INST":
                push(self.call(Global(argument.replace(" ", ".")), tuple(self.pop_to_mark())))
            case "BUILD":  # sets attributes, which no tensor needs
                self.pop()
            case "SETITEM":
                value, key = self.pop(), self.pop()
                _set_items(self.stack[-1], [key, value])
            case "SETITEMS":
                items = self.pop_to_mark()
                _set_items(self.stack[-1], items)
            case "DICT":
                items = self.pop_to_mark()
                push({})
                _set_items(self.stack[-1], items)
            case "APPEND":
                item = self.pop()
                _extend(self.stack[-1], [item])
            case "APPENDS" | "ADDITEMS":
                items = self.pop_to_mark()
                _extend(self.stack[-1], items)
            case "POP":  # also takes off a mark that has nothing above it
                if self.marks and self.marks[-1] == len(self.stack):
                    self.marks.pop()
                else:
                    self.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "DUP":
                push(self.stack[-1])
            case _:
                if argument is None or name.startswith("EXT"):
                    raise PickleError(f"has the step {name}, which checkpoints have not")
                push(argument)  # all others are literals


def _set_items(target: Any, items: list[Any]) -> None:
    if isinstance(target, dict):
        # Hashing a tuple that is nested a million deep would crash Python.
        pairs = zip(items[::2], items[1::2], strict=True)
        target.update((key, value) for key, value in pairs if isinstance(key, _PLAIN))


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PickleError("imports something that has no name")
    return value
