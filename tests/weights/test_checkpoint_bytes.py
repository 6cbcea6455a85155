"""Checkpoints whose bytes lie: damaged ones, and ones made to take memory, time or control."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import math
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_network
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes

from restormer_cli.errors import WeightsError
from restormer_cli.weights.checkpoint import build_network, open_checkpoint
from restormer_cli.weights.safe_pickle import Call, Global, PickleError, read_pickle
from restormer_cli.weights.tensor_file import TensorFile

STATE = tiny_network(seed=3).state_dict()


def torch_bytes(document: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(document, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


GOOD = {
    "zip": torch_bytes({"params": STATE}),
    "legacy": torch_bytes({"params": STATE}, legacy=True),
    "safetensors": safetensors_bytes(STATE),
}


class _Claim:
    """Pickles as a storage of any size, or as a call of anything."""

    def __init__(self, elements: int = 0, call: tuple[Any, tuple[Any, ...]] | None = None) -> None:
        self.elements, self.call = elements, call

    def __reduce__(self) -> Any:
        assert self.call is not None
        return self.call


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        if isinstance(thing, _Claim) and thing.call is None:
            return ("storage", torch.FloatStorage, "0", "cpu", thing.elements)
        return None


def pickled(document: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(document)
    return buffer.getvalue()


def zip_bytes(data: bytes, **storages: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/data.pkl", data)
        for key, content in storages.items():
            archive.writestr(f"net/data/{key.removeprefix('_')}", content)
    return buffer.getvalue()


def legacy_bytes(data: bytes, elements: int, content: bytes) -> bytes:
    header = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    pickles = b"".join(pickle.dumps(part, protocol=2) for part in header)
    keys = pickle.dumps(["0"], protocol=2)
    return pickles + data + keys + elements.to_bytes(8, "little") + content


def tensor(
    storage: Any, shape: tuple[int, ...], stride: tuple[int, ...] | None = None, offset: int = 0
) -> _Claim:
    rebuild = torch._utils._rebuild_tensor_v2
    stride = stride or tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return _Claim(call=(rebuild, (storage, offset, shape, stride, False, {})))


def refused(tmp_path: Path, content: bytes, memory: int = 3) -> str:
    """The sentence of refusal, which takes neither time nor memory, as a multiple of the file."""
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(WeightsError) as caught:
            build_network(path)
        assert tracemalloc.get_traced_memory()[1] < memory * len(content) + 10_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 30
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence


# --- damage ------------------------------------------------------------------------------


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Flip, cut, swap, repeat or overwrite; often near the ends, where the headers are."""
    size = len(content)
    place = st.one_of(
        st.integers(0, size - 1), st.integers(0, 4000), st.integers(size - 9000, size - 1)
    ).map(lambda n: min(n, size - 1))
    kind = draw(st.sampled_from(["flip", "cut", "swap", "overwrite", "insert"]))
    a, b = sorted((draw(place), draw(place)))
    length = draw(st.integers(1, 64))
    if kind == "flip":
        spoiled = bytearray(content)
        for position in (a, b):
            spoiled[position] ^= 1 << draw(st.integers(0, 7))
        return bytes(spoiled)
    if kind == "cut":
        return content[:a] if draw(st.booleans()) else content[:a] + content[b:]
    if kind == "swap":
        c = max(a + length, b)
        first, second = content[a : a + length], content[c : c + length]
        return content[:a] + second + content[a + length : c] + first + content[c + length :]
    junk = draw(st.binary(min_size=length, max_size=length))
    return content[:a] + junk + content[a + length if kind == "overwrite" else a :]


@pytest.mark.parametrize("form", GOOD)
@given(data=st.data())
@settings(max_examples=120)
def test_damage_is_our_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged-{form}.pth"
    path.write_bytes(damaged(data.draw, GOOD[form]))
    sentence = ""
    try:
        network = build_network(path)
    except WeightsError as error:
        sentence = str(error)
    if sentence:
        assert sentence.startswith(f"{path}: ")
        assert "\n" not in sentence
    else:
        assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


@pytest.mark.parametrize("form", ["zip"])
@given(data=st.data())
@settings(max_examples=30)
def test_any_flipped_number_is_noticed_where_there_are_checksums(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"flipped-{form}.pth"
    path.write_bytes(GOOD[form])
    place = data.draw(st.sampled_from(sorted(open_checkpoint(path).tensors.values(), key=str)))
    spoiled = bytearray(GOOD[form])
    position = place.extent.start + data.draw(st.integers(0, place.extent.length - 1))
    spoiled[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(spoiled)
    with pytest.raises(WeightsError, match="checksum"):
        build_network(path)


def test_file_without_checksums_loads(tmp_path: Path) -> None:
    options = pytest.importorskip("torch.serialization")
    if not hasattr(options, "set_crc32_options"):
        pytest.skip("this PyTorch always writes them")
    options.set_crc32_options(False)
    try:
        (tmp_path / "net.pth").write_bytes(torch_bytes({"params": STATE}))
    finally:
        options.set_crc32_options(True)
    state = build_network(tmp_path / "net.pth").state_dict()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes_are_no_pickle_or_a_harmless_one(content: bytes) -> None:
    with contextlib.suppress(PickleError):
        read_pickle(io.BytesIO(content))


# --- bombs -------------------------------------------------------------------------------

HUGE = 1 << 40


def test_storage_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    data = pickled({"patch_embed.proj.weight": tensor(_Claim(HUGE), (HUGE,))})
    assert "claims more" in refused(tmp_path, zip_bytes(data, _0=bytes(64)))
    for elements in (HUGE, 16):  # as the pickle says, and otherwise
        content = legacy_bytes(data, elements, bytes(64))
        assert "claims more" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((HUGE,), (1,), 0),
        ((HUGE,), (0,), 0),
        ((1 << 20, 1 << 20), (0, 0), 0),
        ((4,), (HUGE,), 0),
        ((4,), (1,), HUGE),
        ((-4,), (1,), 0),
        ((4,), (-1,), 0),
        ((4,), (1,), -1),
        ((4, 4), (1,), 0),
        ((1.5,), (1,), 0),
    ],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_view_beyond_its_storage_is_refused(
    tmp_path: Path, shape: Any, stride: Any, offset: int, legacy: bool
) -> None:
    data = pickled({"patch_embed.proj.weight": tensor(_Claim(16), shape, stride, offset)})
    whole = legacy_bytes(data, 16, bytes(64)) if legacy else zip_bytes(data, _0=bytes(64))
    assert "patch_embed.proj.weight" in refused(tmp_path, whole)


def test_tensors_that_share_one_storage_cannot_claim_more_than_the_file(tmp_path: Path) -> None:
    storage = _Claim(1 << 16)
    document = {f"layer{n}.weight": tensor(storage, (1 << 16,)) for n in range(500)}
    document["patch_embed.proj.weight"] = tensor(storage, (8, 3, 3, 3))
    content = zip_bytes(pickled(document), _0=bytes(1 << 18))
    assert "claim more" in refused(tmp_path, content)


@pytest.mark.parametrize(
    "steps",
    [
        b"\x8e" + (1 << 62).to_bytes(8, "little"),  # bytes of that length
        b"\x96" + (1 << 62).to_bytes(8, "little"),  # bytearray
        b"\x8d" + (1 << 62).to_bytes(8, "little"),  # str
        b"\x8b" + (0x7FFFFFFF).to_bytes(4, "little"),  # int
        b"\x95" + (1 << 62).to_bytes(8, "little"),  # frame
        b"Nr" + (0xFFFFFFFF).to_bytes(4, "little") + b".",  # place in the memo
        b")" + b"\x85" * 150_000 + b".",  # a tuple 150,000 deep
        b"}" + b")" + b"\x85" * 150_000 + b"Ns.",  # the same as a key
        b"N0" * 150_000 + b".",  # nothing, for a long time
        b"ccollections\nOrderedDict\nq\x00](" + b"NN\x86" * 9000 + b"eq\x01"
        b"h\x00h\x01\x85R0" * 9000 + b"N.",  # the same list, copied over and over
    ],
    ids=["bytes", "bytearray", "str", "int", "frame", "memo", "deep", "key", "long", "copies"],
)
def test_pickle_that_takes_memory_or_time_is_refused(
    tmp_path: Path, steps: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restormer_cli.weights.safe_pickle.MAX_STEPS", 200_000)
    # A tuple takes 56 bytes, the step that makes it one.
    refused(tmp_path, zip_bytes(b"\x80\x02" + steps), memory=100)


def test_nested_dicts_with_long_names_do_not_fill_the_memory(tmp_path: Path) -> None:
    inner: dict[str, Any] = {"patch_embed.proj.weight": tensor(_Claim(16), (1, 1, 4, 4))}
    for _ in range(200):
        inner = {"x" * 2000: inner, "again": inner}
    inner["itself"] = inner
    refused(tmp_path, zip_bytes(pickled(inner), _0=bytes(64)))


@pytest.mark.parametrize("length", [HUGE, 1 << 62, 10**6])
def test_safetensors_header_larger_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    refused(tmp_path, length.to_bytes(8, "little") + b'{"a": 1}')


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ([HUGE], [0, 4 * HUGE]),
        ([4], [0, 64]),
        ([HUGE], [0, 64]),
        ([16], [64, 0]),
        ([-4, -4], [0, 64]),
    ],
)
def test_safetensors_that_claim_more_than_they_hold_are_refused(
    tmp_path: Path, shape: list[int], offsets: list[int]
) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"patch_embed.proj.weight": entry}).encode()
    refused(tmp_path, struct.pack("<Q", len(header)) + header + bytes(64))


def test_zip_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """Many entries of the table of contents that all mean the same bytes."""
    good = zip_bytes(pickled({"a": tensor(_Claim(1 << 14), (1 << 14,))}), _0=bytes(1 << 16))
    table = good.index(b"PK\x01\x02")
    end = good.index(b"PK\x05\x06")
    second = good.index(b"PK\x01\x02", table + 1)
    entries, last = good[table:second], good[second:end]
    copies = [last.replace(b"net/data/0", b"net/data/%d" % n) for n in range(1, 9)]
    directory = entries + last + b"".join(copies)
    count = 2 + len(copies)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), table, 0)
    assert "compressed" in refused(tmp_path, good[:table] + directory + tail)


# --- code --------------------------------------------------------------------------------


def test_pickles_name_what_they_would_call_and_never_call_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    content = pickled([_Claim(call=(os.mkdir, (str(victim),)))])
    read = read_pickle(io.BytesIO(content))
    assert isinstance(read[0], Call)
    assert read[0].function.endswith(".mkdir")
    assert read[0].arguments == (str(victim),)
    assert not victim.exists()
    pickle.loads(content)  # whoever unpickles it makes the folder
    assert victim.exists()
    assert isinstance(read_pickle(io.BytesIO(pickle.dumps(print))), Global)


@pytest.mark.parametrize("protocol", range(6))
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text()
        | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    )
)
def test_plain_values_are_read_as_pickle_reads_them(value: Any, protocol: int) -> None:
    content = pickle.dumps(value, protocol=protocol)
    if protocol < 3 and (b"_codecs" in content or b"bytes" in content):
        return  # bytes came with Python 3, as a call
    assert read_pickle(io.BytesIO(content)) == pickle.loads(content)


class _Foreign:
    """A stand-in for objects that training frameworks save with the parameters."""

    def __init__(self) -> None:
        self.run_log = [1.0, 2.0]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_objects_of_other_libraries_beside_the_parameters_do_no_harm(
    tmp_path: Path, legacy: bool
) -> None:
    document = {
        "meta": {"hooks": _Foreign(), "seed": 3_407_000_000, "keys": {(1, 2): "x"}},
        "optimizer": collections.defaultdict(list, state=[torch.ones(3), {1, 2}]),
        "message_hub": _Foreign(),
        "state_dict": {f"generator.{name}": value for name, value in STATE.items()},
    }
    (tmp_path / "net.pth").write_bytes(torch_bytes(document, legacy=legacy))
    state = build_network(tmp_path / "net.pth").state_dict()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_parameters_and_views_are_read_as_what_they_are(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    document = {
        "parameter": torch.nn.Parameter(base[:4].clone()),
        "transposed": base.view(4, 6).T,
        "later": base[5:11],
        "scalar": base[3],
        "half": base.half(),
        "empty": torch.empty(0),
    }
    for legacy in (False, True):
        path = tmp_path / "net.pth"
        path.write_bytes(torch_bytes(document, legacy=legacy))
        file = TensorFile(path)
        assert set(file) == set(document)
        for name, value in document.items():
            stored = file[name]
            assert stored.shape == tuple(value.shape)
            assert stored.dtype == str(value.dtype).removeprefix("torch.")
            assert (stored.stride, stored.offset) == (value.stride(), value.storage_offset())
