"""Checkpoint files: every form they come in, and every way in which they can be wrong."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import KINDS, TINY, save, tiny_network
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from restormer_cli.errors import WeightsError
from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.tasks import find_variant
from restormer_cli.weights.checkpoint import build_network, infer_config, open_checkpoint
from restormer_cli.weights.selection import WeightsFile, find_weights, load_network

NETWORK = tiny_network(seed=7)
STATE = NETWORK.state_dict()


def same(network: Restormer) -> bool:
    state = network.state_dict()
    return state.keys() == STATE.keys() and all(torch.equal(state[n], STATE[n]) for n in STATE)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in STATE.items()}


def refused(path: Path, *said: str) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(WeightsError) as caught:
        build_network(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    assert len(sentence) < 400 + len(str(path))
    for words in said:
        assert words in sentence
    return sentence


# --- forms that load ---------------------------------------------------------------------

FORMS: dict[str, Any] = {
    "bare": STATE,
    "params": {"params": STATE},
    "averaged only": {"params_ema": STATE},
    "state_dict": {"state_dict": STATE, "epoch": 3},
    "parallel": {"params": prefixed("module.")},
    "bare parallel": prefixed("module."),
    "mmagic": {"state_dict": prefixed("generator."), "meta": {"epoch": 3}},
    "mmagic, averaged": {
        "state_dict": {
            **{n: t + 1 for n, t in prefixed("generator.").items()},
            **prefixed("generator_ema.module."),
            "generator_ema.steps": torch.tensor(7),
            "step_counter": torch.zeros(1),
        }
    },
    "params_ema": {"params": {n: t + 1 for n, t in STATE.items()}, "params_ema": STATE},
    "own training": {"model": {n: t + 1 for n, t in STATE.items()}, "ema": STATE, "step": 9},
    "compiled": {"state_dict": prefixed("_orig_mod.")},
    "lightning": {"state_dict": {**prefixed("net."), "loss.vgg.weight": torch.ones(3)}},
    "with a teacher": {"state_dict": STATE, "teacher": {n: t + 1 for n, t in STATE.items()}},
    "parameters": {"params": dict(NETWORK.named_parameters())},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_pth_files_load_in_every_form(tmp_path: Path, form: str, legacy: bool) -> None:
    path = tmp_path / "net.pth"
    torch.save(FORMS[form], path, _use_new_zipfile_serialization=not legacy)
    assert same(build_network(path))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_files_load(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "net.SafeTensors" if prefix else tmp_path / "net.safetensors"
    save_file(prefixed(prefix), path)
    assert same(build_network(path))


def test_averaged_parameters_are_preferred(tmp_path: Path) -> None:
    other = tiny_network(seed=8).state_dict()
    torch.save({"params": other, "params_ema": STATE}, tmp_path / "net.pth")
    assert same(build_network(tmp_path / "net.pth"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_precisions_become_float32(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    path = save(tiny_network(seed=7).to(dtype), tmp_path / f"net{suffix}")
    state = build_network(path).state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(torch.equal(state[n], STATE[n].to(dtype).float()) for n in STATE)


def test_network_outlives_its_file(tmp_path: Path) -> None:
    path = save(NETWORK, tmp_path / "net.pth")
    network = build_network(path)
    path.unlink()
    assert same(network)


def test_network_is_ready_to_be_evaluated(tmp_path: Path) -> None:
    network = build_network(save(NETWORK, tmp_path / "net.pth"))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.config == NETWORK.config


# --- files that are refused --------------------------------------------------------------


class _Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"echo broken in > '{self.victim}'",))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "spliced", "safetensors"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, form: str) -> None:
    victim = tmp_path / "victim"
    document = {"params": {**STATE, "patch_embed.proj.weight": _Malicious(victim)}}
    path = tmp_path / ("net.safetensors" if form == "safetensors" else "net.pth")
    if form in {"zip", "legacy"}:
        torch.save(document, path, _use_new_zipfile_serialization=form == "zip")
    elif form == "spliced":  # a good file whose pickle was replaced
        with (
            zipfile.ZipFile(save(NETWORK, tmp_path / "good.pth")) as good,
            zipfile.ZipFile(path, "w") as archive,
        ):
            for member in good.infolist():
                content = good.read(member)
                if member.filename.endswith("data.pkl"):
                    content = pickle.dumps(_Malicious(victim), protocol=2)
                archive.writestr(member.filename, content)
    else:
        path.write_bytes(pickle.dumps(_Malicious(victim)))
    refused(path)
    assert not victim.exists()
    # The trap is armed: whoever unpickles it springs it.
    pickle.loads(pickle.dumps(_Malicious(victim)))
    assert victim.exists()


def test_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing.pth", "no such file")
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_file_that_is_cut_off_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = save(NETWORK, tmp_path / f"net{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_legacy_file_that_is_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "net.pth"
    torch.save({"params": STATE}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"no weights", b"\x80\x02", b"PK\x03\x04", b"<html>404</html>" * 99, bytes(4096)]
)
def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    refused(path)


def test_zip_file_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", bytes(10**6))
    refused(path, "compressed")


@pytest.mark.parametrize(
    "document",
    [[1, 2], torch.ones(3), {"params": {}}, {"params": [1]}, {}, {"epoch": 3}, {3: torch.ones(1)}],
    ids=repr,
)
def test_checkpoint_without_a_state_dict_is_refused(tmp_path: Path, document: Any) -> None:
    torch.save(document, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "no state dict")


def test_other_network_is_refused(tmp_path: Path) -> None:
    path = save(torch.nn.Linear(3, 3), tmp_path / "net.pth")
    refused(path, "no Restormer", "patch_embed.proj.weight")


def test_missing_extra_and_reshaped_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    name = "decoder_level2.0.attn.qkv.weight"
    torch.save({n: t for n, t in STATE.items() if n != name}, path)
    refused(path, f"lacks {name}", f"found {len(STATE) - 1}", f"expected {len(STATE)}")
    torch.save({**STATE, "colour_head.weight": torch.ones(3)}, path)
    refused(path, "colour_head.weight", "not expected")
    torch.save({**STATE, name: torch.ones(3, 16, 1, 1)}, path)
    refused(path, name, "(3, 16, 1, 1)", "(48, 16, 1, 1)")


@pytest.mark.parametrize("name", [*sorted(STATE)[::7], "patch_embed.proj.weight", "output.weight"])
def test_any_missing_or_reshaped_tensor_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "net.pth"
    torch.save({n: t for n, t in STATE.items() if n != name}, path)
    refused(path)
    torch.save({**STATE, name: STATE[name].flatten()[:-1]}, path)
    refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    spoiled = STATE["output.weight"].clone()
    spoiled[0, 0, 0, 0] = value
    torch.save({**STATE, "output.weight": spoiled}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "output.weight")


def test_several_networks_are_refused_and_named(tmp_path: Path) -> None:
    torch.save({"first": STATE, "second": dict(STATE)}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "first", "second")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net", "net.ckpt"])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_files_are_known_by_their_content(tmp_path: Path, name: str, form: str) -> None:
    if form == "safetensors":
        save_file(STATE, tmp_path / name)
    else:
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=form == "zip")
    assert same(build_network(tmp_path / name))


def test_network_that_was_pickled_whole_is_refused(tmp_path: Path) -> None:
    torch.save(NETWORK, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "state_dict()")


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    torch.save({**STATE, "output.weight": STATE["output.weight"].int()}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "output.weight", "int32")


def test_tensor_that_claims_more_than_the_file_stores_is_refused(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(1 << 40)
    torch.save({**STATE, "output.weight": huge}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "output.weight")


def test_damaged_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"params": STATE}, buffer)
    path = tmp_path / "net.pth"
    for position in range(0, 6000, 331):
        content = bytearray(buffer.getvalue())
        content[position] ^= 0xFF
        path.write_bytes(content)
        with contextlib.suppress(WeightsError):
            build_network(path)


# --- hyper-parameters from shapes --------------------------------------------------------


@st.composite
def configs(draw: st.DrawFn) -> RestormerConfig:
    dim = draw(st.sampled_from([2, 4, 8, 12, 16, 48]))
    heads = tuple(
        draw(st.sampled_from([h for h in (1, 2, 3, 4, 8) if (dim << level) % h == 0]))
        for level in range(4)
    )
    dual = draw(st.booleans())
    channels = draw(st.sampled_from([1, 3]))
    return RestormerConfig(
        inp_channels=2 * channels if dual else channels,
        out_channels=channels,
        dim=dim,
        num_blocks=tuple(draw(st.integers(1, 3)) for _ in range(4)),  # type: ignore[arg-type]
        num_refinement_blocks=draw(st.integers(0, 3)),
        heads=heads,  # type: ignore[arg-type]
        ffn_expansion_factor=draw(st.sampled_from([1.0, 1.5, 2.0, 2.25, 2.66, 8 / 3, 3.1, 4.0])),
        bias=draw(st.booleans()),
        LayerNorm_type=draw(st.sampled_from(["WithBias", "BiasFree"])),
        dual_pixel_task=dual,
    )


def shapes_of(config: RestormerConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in Restormer(config).state_dict().items()}


@given(configs())
@settings(max_examples=25)
def test_hyper_parameters_are_inferred_from_names_and_shapes(config: RestormerConfig) -> None:
    shapes = shapes_of(config)
    inferred = infer_config(shapes)
    assert shapes_of(inferred) == shapes
    for name, value in config.to_mapping().items():
        if name != "ffn_expansion_factor":  # of which several may give the same shapes
            assert inferred.to_mapping()[name] == value


@pytest.mark.parametrize("kind", KINDS)
def test_official_hyper_parameters_are_inferred_exactly(kind: str) -> None:
    config = RestormerConfig(**KINDS[kind])
    assert infer_config(shapes_of(config)) == config


@pytest.mark.parametrize("factor", [2.66, 2.0, 1.5, 3.0])
def test_expansion_factor_is_the_one_people_write(factor: float) -> None:
    config = RestormerConfig(dim=48, ffn_expansion_factor=factor)
    assert infer_config(shapes_of(config)).ffn_expansion_factor == factor


@pytest.mark.parametrize("level", ["encoder_level1", "encoder_level2", "encoder_level3", "latent"])
def test_a_lost_level_or_block_does_not_make_another_network(tmp_path: Path, level: str) -> None:
    network = tiny_network(num_blocks=(3, 3, 3, 3))
    state = network.state_dict()
    path = tmp_path / "net.pth"
    for lost in (f"{level}.", f"{level.replace('encoder', 'decoder')}."):
        torch.save({n: t for n, t in state.items() if not n.startswith(lost)}, path)
        refused(path, lost[:-1])
    for block in (0, 1):
        torch.save({n: t for n, t in state.items() if not n.startswith(f"{level}.{block}.")}, path)
        refused(path, f"lacks the block {level}.{block}, though it has {level}.2")


def test_a_network_without_a_level_needs_to_be_described(tmp_path: Path) -> None:
    config = RestormerConfig(**{**TINY, "num_blocks": (1, 0, 2, 0), "num_refinement_blocks": 0})
    torch.save(Restormer(config).state_dict(), tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "no blocks of encoder_level2", "--options")
    assert build_network(tmp_path / "net.pth", config).config == config


def test_a_block_of_any_number_takes_no_memory(tmp_path: Path) -> None:
    name = "latent.99999999999999.norm1.body.weight"
    torch.save({**STATE, name: torch.ones(3)}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "lacks the block latent.1")


def test_a_network_without_refinement_is_inferred() -> None:
    config = RestormerConfig(**{**TINY, "num_blocks": (1, 2, 2, 3), "num_refinement_blocks": 0})
    assert infer_config(shapes_of(config)) == config


def test_names_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no Restormer"):
        infer_config({})
    shapes = shapes_of(NETWORK.config)
    odd = {**shapes, "latent.0.ffn.project_out.weight": (64, 7, 1, 1)}
    with pytest.raises(WeightsError, match="no Restormer"):
        infer_config(odd)
    with pytest.raises(WeightsError, match=r"latent\.0\.attn\.temperature"):
        infer_config({**shapes, "latent.0.attn.temperature": (8,)})
    with pytest.raises(WeightsError, match="no Restormer"):
        infer_config({**shapes, "latent.0.attn.temperature": (5, 1, 1)})


# --- weights and tasks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kind", "fits"),
    [
        (("derain",), "with_bias", True),
        (("derain",), "bias_free", True),
        (("derain",), "gray", False),
        (("derain",), "dual_pixel", False),
        (("denoise", "gray"), "gray", True),
        (("denoise", "gray"), "bias_free", False),
        (("dual-pixel",), "dual_pixel", True),
        (("dual-pixel",), "with_bias", False),
    ],
)
def test_channels_must_be_those_of_the_task(
    tmp_path: Path, words: tuple[str, ...], kind: str, fits: bool
) -> None:
    path = save(tiny_network(kind), tmp_path / "net.pth")
    variant = find_variant(*words)
    if fits:
        load_network(WeightsFile(path, "file", None), variant)
    else:
        with pytest.raises(WeightsError, match="does not fit") as caught:
            load_network(WeightsFile(path, "file", None), variant)
        assert str(path) in str(caught.value)
        assert variant.label in str(caught.value)


def test_official_weights_are_found_where_downloads_go_and_preferred(empty_home: Path) -> None:
    variant = find_variant("denoise", "color")
    path = empty_home / "gaussian_color_denoising_blind.pth"
    path.write_bytes(b"")
    try:
        for choice in ("auto", "official", path.name, path.stem):
            found = find_weights(variant, choice)
            assert (found.path, found.kind) == (path, "official")
        assert find_weights(variant, "compact").kind == "compact"
    finally:
        path.unlink()


def test_state_dict_has_the_official_names_whatever_the_file_calls_them(tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed("generator_ema.module.")}, tmp_path / "net.pth")
    assert set(open_checkpoint(tmp_path / "net.pth").read()) == set(STATE)
