"""Checkpoints with leftovers of training and libraries, and files that are no checkpoints."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, names, restormer, tiny_network, zero_network
from safetensors.torch import save_file

from restormer_cli.errors import WeightsError
from restormer_cli.network.architecture import Restormer
from restormer_cli.weights.checkpoint import build_network, open_checkpoint

NETWORK = tiny_network(seed=5)
STATE = NETWORK.state_dict()
BLOCK = "encoder_level1.0"


def same(network: Restormer) -> bool:
    state = network.state_dict()
    return state.keys() == STATE.keys() and all(torch.equal(state[n], STATE[n]) for n in STATE)


def refused(path: Path, *said: str) -> None:
    with pytest.raises(WeightsError) as caught:
        build_network(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert len(sentence.splitlines()) == 1
    assert sentence.isprintable()
    for words in said:
        assert words in sentence


# --- what is left in names ---------------------------------------------------------------


def wrapped(word: str, where: str) -> dict[str, torch.Tensor]:
    """Parameters in whose names a word stands: before all, inside a block, or at every layer."""
    changed = {}
    for name, tensor in STATE.items():
        parts = name.split(".")
        if where == "front":
            parts.insert(0, word)
        elif where == "block" and parts[1].isdigit():
            parts.insert(2, word)
        elif where == "everywhere":
            parts = [p for part in parts[:-1] for p in (part, word)] + parts[-1:]
        changed[".".join(parts)] = tensor
    return changed


@pytest.mark.parametrize("where", ["front", "block", "everywhere"])
@pytest.mark.parametrize(
    "word",
    [
        "module",
        "_orig_mod",
        "_checkpoint_wrapped_module",
        "_fsdp_wrapped_module",
        "_forward_module",
    ],
)
@pytest.mark.parametrize("container", [None, "params"])
def test_wrappers_are_stripped_wherever_they_stand(
    tmp_path: Path, word: str, where: str, container: str | None
) -> None:
    state = wrapped(word, where)
    torch.save(state if container is None else {container: state}, tmp_path / "net.pth")
    assert same(build_network(tmp_path / "net.pth"))


def test_the_same_name_with_and_without_a_wrapper_is_refused(tmp_path: Path) -> None:
    torch.save({**STATE, **{f"module.{n}": t for n, t in STATE.items()}}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "several networks", "module")
    name = "output.weight"
    torch.save({**STATE, f"output.module.{name[7:]}": STATE[name]}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "twice", "output.module.weight")


def test_what_stands_beside_a_wrapped_network_is_not_its_own(tmp_path: Path) -> None:
    beside = {"discriminator": {"conv.weight": torch.ones(3)}, "patch_embed": torch.ones(1)}
    torch.save({"module": STATE, **beside}, tmp_path / "net.pth")
    assert same(build_network(tmp_path / "net.pth"))
    assert not open_checkpoint(tmp_path / "net.pth").ignored


@pytest.mark.parametrize("name", ["code", "constants", "net.pt", "data"])
def test_a_checkpoint_may_be_called_like_a_part_of_others(tmp_path: Path, name: str) -> None:
    torch.save(STATE, tmp_path / f"{name}.pth")
    assert same(build_network(tmp_path / f"{name}.pth"))


STRAYS: dict[str, Any] = {
    "total_ops": torch.zeros(1, dtype=torch.float64),
    f"{BLOCK}.norm1.total_params": torch.zeros(1, dtype=torch.float64),
    f"{BLOCK}.num_batches_tracked": torch.tensor(3),
    "n_averaged": torch.tensor(7),
    f"{BLOCK}.attn.qkv.activation_post_process.min_val": torch.tensor(0.0),
    "optimizer": {"scale": torch.ones(2)},
    "lr_schedulers": {"last": torch.ones(1)},
    "rng_state": torch.zeros(8, dtype=torch.uint8),
    "loss_fn": {"vgg.0.weight": torch.ones(2)},
}


@pytest.mark.parametrize("name", STRAYS)
def test_stray_entries_are_left_out(tmp_path: Path, name: str) -> None:
    torch.save({**STATE, name: STRAYS[name]}, tmp_path / "net.pth")
    assert same(build_network(tmp_path / "net.pth"))
    (ignored,) = open_checkpoint(tmp_path / "net.pth").ignored
    assert ignored.startswith(name)


def test_a_run_and_show_say_what_is_left_out(tmp_path: Path) -> None:
    state = {**zero_network().state_dict(), "total_ops": torch.ones(1), "n_averaged": torch.ones(1)}
    torch.save({"params": state}, tmp_path / "net.pth")
    make_images(tmp_path / "in", 1)
    ran = restormer("denoise", "--kind", "color", "--weights", tmp_path / "net.pth",
                    "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out")  # fmt: skip
    assert ran.status == 0
    assert "left out" in ran.err
    assert "params.total_ops and 1 more" in ran.err
    assert names(tmp_path / "out") == ["0.png"]
    assert "params.total_ops and 1 more" in restormer("weights", "show", tmp_path / "net.pth").out


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (f"{BLOCK}.attn.qkv.parametrizations.weight.original0", "parametrisation"),
        (f"{BLOCK}.attn.qkv.weight_g", "parametrisation"),
        (f"{BLOCK}.attn.qkv.weight_orig", "parametrisation"),
        (f"{BLOCK}.attn.qkv.lora_A.default.weight", "LoRA"),
        (f"{BLOCK}.attn.qkv._packed_params", "quantised"),
        ("flat_param", "FSDP"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_parameters_that_stand_for_others_are_refused_by_name(
    tmp_path: Path, entry: str, said: str, alone: bool
) -> None:
    torch.save({**({} if alone else STATE), entry: torch.ones(3)}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", entry, said)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.int64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_numbers_of_other_kinds_are_named(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    state = {**STATE, "output.weight": STATE["output.weight"].to(dtype)}
    path = tmp_path / f"net{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    refused(path, f"output.weight holds {str(dtype).removeprefix('torch.')}", "float32")


@pytest.mark.parametrize(
    ("entries", "network"),
    [
        (["intro.weight", "encoders.0.0.beta", "ending.weight"], "NAFNet"),
        (["module.stage1_encoder.x.weight", "module.sam12.conv1.weight"], "MPRNet"),
        (["params.conv_first.weight", "params.layers.0.residual_group.blocks.0.attn.x"], "SwinIR"),
        (["encoderlayer_0.blocks.0.norm1.weight"], "Uformer"),
        (["features.0.weight", "classifier.0.weight"], "VGG"),
    ],
)
def test_other_networks_are_told(tmp_path: Path, entries: list[str], network: str) -> None:
    torch.save({name: torch.ones(3) for name in entries}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "is no Restormer", network)


def test_a_network_with_more_than_restormer_is_told(tmp_path: Path) -> None:
    torch.save({**STATE, "prompt1.prompt_param": torch.ones(1)}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "PromptIR")


# --- checkpoints of other things ---------------------------------------------------------


def test_a_network_that_was_pickled_whole_is_named(tmp_path: Path) -> None:
    for document in (NETWORK, {"model": NETWORK, "epoch": 3}):
        torch.save(document, tmp_path / "net.pth")
        refused(tmp_path / "net.pth", "no state dict", "Restormer", "state_dict()")


def test_the_state_of_an_optimizer_is_named(tmp_path: Path) -> None:
    optimizer = torch.optim.Adam(tiny_network().requires_grad_(True).parameters())
    for document in (optimizer.state_dict(), {"epoch": 1, "optimizers": [optimizer.state_dict()]}):
        torch.save(document, tmp_path / "1000.state")
        refused(tmp_path / "1000.state", "no state dict", "optimizer")


# --- files that are no checkpoints -------------------------------------------------------


def archive(compression: int, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as zipped:
        for name, content in members.items():
            zipped.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("net.pth")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def scripted(compress: int | None) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.ones(1, 3, 4, 4)), buffer)
    if compress is None:
        return buffer.getvalue()
    again = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(again, "w", compress) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return again.getvalue()


def numpy_bytes(write: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer, np.ones(3))
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 104700429\n"
MISTAKES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "lfs": (LFS, "Git LFS"),
    "html": (b"<!DOCTYPE html>\n<html><head></head></html>", "web page"),
    "html, late": (b"\xef\xbb\xbf\r\n\r\n  <HTML lang=en>" + b"x" * 9000, "web page"),
    "html, utf-16": ("<html>".encode("utf-16"), "web page"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
    "json": (b'{"error": "not found"}', "JSON"),
    "json, long": (json.dumps({"a": "b" * 9000}).encode(), "JSON"),
    "index": (
        b'{"metadata": {}, "weight_map": {"a": "model-1-of-2.safetensors"}}',
        "several parts",
    ),
    "text": (b"Invalid username or password.\n", "'Invalid username or password.'"),
    "forged": (b"\x1b[2Jyes\n", "is a text file that begins with"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(40), "JPEG"),
    "gzip": (gzip.compress(b"net"), "gzip"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(40), "7z"),
    "tar": (tarred(b"net"), "tar archive"),
    "zip": (archive(zipfile.ZIP_DEFLATED, net_pth=b"net"), "holds net.pth; unpack"),
    "torchscript": (scripted(None), "TorchScript"),
    "torchscript, stored": (scripted(zipfile.ZIP_STORED), "TorchScript"),
    "torchscript, compressed": (scripted(zipfile.ZIP_DEFLATED), "TorchScript"),
    "npz": (numpy_bytes(np.savez), ".npz"),
    "npy": (numpy_bytes(np.save), ".npy"),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "Keras"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(40), "GGUF"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0" + bytes(40), "ONNX"),
    "zeros": (bytes(100), "zeros"),
    "pickle": (pickle.dumps({"w": [1.0]}), "PyTorch did not write"),
    "appledouble": (b"\0\x05\x16\x07\0\x02\0\0" + bytes(40), "AppleDouble"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_each_mistake_is_told_what_it_is(tmp_path: Path, mistake: str, name: str) -> None:
    content, said = MISTAKES[mistake]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, said)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.9])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_download_that_has_not_ended_is_told(tmp_path: Path, form: str, share: float) -> None:
    whole = tmp_path / "net.pth"
    if form == "safetensors":
        save_file(STATE, whole)
    else:
        torch.save(STATE, whole, _use_new_zipfile_serialization=form == "zip")
    content = whole.read_bytes()
    for name in ("net.pth", "net.pth.crdownload", "net.safetensors.part"):
        (tmp_path / name).write_bytes(content[: int(share * len(content))])
        said = "" if name == "net.pth" else "is empty" if share == 0.0 else "has not ended"
        refused(tmp_path / name, said)
        (tmp_path / name).write_bytes(content)
        assert same(build_network(tmp_path / name))


def test_folders_are_told_what_they_are(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")
    (tmp_path / "model.safetensors").touch()
    refused(tmp_path, "such as model.safetensors")
    (tmp_path / "__0_0.distcp").touch()
    refused(tmp_path, "distributed checkpoint")
    make_images(tmp_path / "in", 1)
    ran = restormer("derain", "--weights", tmp_path, "--input-dir", tmp_path / "in",
                    "--result-dir", tmp_path / "out")  # fmt: skip
    assert ran.status == 2
    assert "distributed checkpoint" in ran.err


def test_one_part_of_several_is_told(tmp_path: Path) -> None:
    part = {n: t for n, t in STATE.items() if not n.startswith("decoder")}
    save_file(part, tmp_path / "model-00001-of-00002.safetensors")
    refused(tmp_path / "model-00001-of-00002.safetensors", "one part of several")
