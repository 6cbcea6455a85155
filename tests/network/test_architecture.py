"""The network: official names, shapes and counts, and what it computes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import KINDS, tiny_network
from torch import Tensor

from restormer_cli.errors import OptionsError
from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.tasks import (
    VARIANTS,
    find_variant,
    read_options,
    shipped_folder,
    shipped_options,
)

OPTIONS = sorted(shipped_folder("Options").glob("*.yml"))


def on_meta(config: RestormerConfig) -> Restormer:
    with torch.device("meta"):
        return Restormer(config)


# --- names, shapes, counts ---------------------------------------------------------------

COUNTS = {
    "with_bias": (26_126_644, 494),
    "bias_free": (26_111_668, 406),
    "gray": (26_109_076, 406),
    "dual_pixel": (26_132_548, 495),
}


@pytest.mark.parametrize("kind", COUNTS)
def test_official_networks_have_the_official_number_of_parameters_and_tensors(kind: str) -> None:
    state = on_meta(RestormerConfig(**KINDS[kind])).state_dict()
    assert (sum(tensor.numel() for tensor in state.values()), len(state)) == COUNTS[kind]


# As the official checkpoints hold them.
SHAPES = {
    "patch_embed.proj.weight": (48, 3, 3, 3),
    "encoder_level1.0.norm1.body.weight": (48,),
    "encoder_level1.0.norm1.body.bias": (48,),
    "encoder_level1.0.attn.temperature": (1, 1, 1),
    "encoder_level1.0.attn.qkv.weight": (144, 48, 1, 1),
    "encoder_level1.0.attn.qkv_dwconv.weight": (144, 1, 3, 3),
    "encoder_level1.0.attn.project_out.weight": (48, 48, 1, 1),
    "encoder_level1.0.norm2.body.weight": (48,),
    "encoder_level1.0.norm2.body.bias": (48,),
    "encoder_level1.0.ffn.project_in.weight": (254, 48, 1, 1),
    "encoder_level1.0.ffn.dwconv.weight": (254, 1, 3, 3),
    "encoder_level1.0.ffn.project_out.weight": (48, 127, 1, 1),
    "encoder_level1.3.attn.qkv.weight": (144, 48, 1, 1),
    "down1_2.body.0.weight": (24, 48, 3, 3),
    "encoder_level2.5.attn.temperature": (2, 1, 1),
    "encoder_level2.5.ffn.project_in.weight": (510, 96, 1, 1),
    "down2_3.body.0.weight": (48, 96, 3, 3),
    "encoder_level3.5.attn.temperature": (4, 1, 1),
    "encoder_level3.5.ffn.project_out.weight": (192, 510, 1, 1),
    "down3_4.body.0.weight": (96, 192, 3, 3),
    "latent.7.attn.temperature": (8, 1, 1),
    "latent.7.attn.qkv_dwconv.weight": (1152, 1, 3, 3),
    "latent.7.ffn.dwconv.weight": (2042, 1, 3, 3),
    "up4_3.body.0.weight": (768, 384, 3, 3),
    "reduce_chan_level3.weight": (192, 384, 1, 1),
    "decoder_level3.5.attn.temperature": (4, 1, 1),
    "up3_2.body.0.weight": (384, 192, 3, 3),
    "reduce_chan_level2.weight": (96, 192, 1, 1),
    "decoder_level2.5.attn.temperature": (2, 1, 1),
    "up2_1.body.0.weight": (192, 96, 3, 3),
    "decoder_level1.3.attn.temperature": (1, 1, 1),
    "decoder_level1.3.attn.project_out.weight": (96, 96, 1, 1),
    "refinement.3.ffn.project_in.weight": (510, 96, 1, 1),
    "refinement.3.norm2.body.bias": (96,),
    "output.weight": (3, 96, 3, 3),
}


def test_parameters_have_the_official_names_and_shapes() -> None:
    state = on_meta(RestormerConfig()).state_dict()
    assert {name: tuple(state[name].shape) for name in SHAPES} == SHAPES


def test_all_names_are_those_of_the_official_layout() -> None:
    blocks = {
        "encoder_level1": 4,
        "encoder_level2": 6,
        "encoder_level3": 6,
        "latent": 8,
        "decoder_level3": 6,
        "decoder_level2": 6,
        "decoder_level1": 4,
        "refinement": 4,
    }
    in_block = [
        "norm1.body.weight",
        "attn.temperature",
        "attn.qkv.weight",
        "attn.qkv_dwconv.weight",
        "attn.project_out.weight",
        "norm2.body.weight",
        "ffn.project_in.weight",
        "ffn.dwconv.weight",
        "ffn.project_out.weight",
    ]
    between = ["patch_embed.proj", "down1_2.body.0", "down2_3.body.0", "down3_4.body.0"]
    between += ["up4_3.body.0", "up3_2.body.0", "up2_1.body.0"]
    between += ["reduce_chan_level3", "reduce_chan_level2", "output"]
    names = {f"{name}.weight" for name in between}
    names |= {f"{b}.{i}.{n}" for b, count in blocks.items() for i in range(count) for n in in_block}
    assert set(on_meta(RestormerConfig(LayerNorm_type="BiasFree")).state_dict()) == names
    norms = {n.replace("weight", "bias") for n in names if ".body.weight" in n and "norm" in n}
    assert set(on_meta(RestormerConfig()).state_dict()) == names | norms


def test_variants_differ_from_the_common_layout_only_where_they_should() -> None:
    common = {n: t.shape for n, t in on_meta(RestormerConfig()).state_dict().items()}
    free = on_meta(RestormerConfig(LayerNorm_type="BiasFree")).state_dict()
    assert set(common) - set(free) == {n for n in common if n.endswith(".body.bias")}
    dual = on_meta(RestormerConfig(inp_channels=6, dual_pixel_task=True)).state_dict()
    assert set(dual) - set(common) == {"skip_conv.weight"}
    assert dual["skip_conv.weight"].shape == (96, 48, 1, 1)
    assert dual["patch_embed.proj.weight"].shape == (48, 6, 3, 3)
    gray = on_meta(RestormerConfig(inp_channels=1, out_channels=1)).state_dict()
    assert {n for n in gray if gray[n].shape != common[n]} == {
        "patch_embed.proj.weight",
        "output.weight",
    }


def test_embedding_and_resampling_never_have_a_bias_and_all_other_convolutions_can() -> None:
    state = on_meta(RestormerConfig(bias=True)).state_dict()
    without = {
        n for n, t in state.items() if t.dim() == 4 and n.replace("weight", "bias") not in state
    }
    resampling = ("down1_2", "down2_3", "down3_4", "up4_3", "up3_2", "up2_1")
    assert without == {
        "patch_embed.proj.weight",
        *(f"{name}.body.0.weight" for name in resampling),
    }


# --- YAML files --------------------------------------------------------------------------


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_every_shipped_file_of_options_builds_a_network(path: Path) -> None:
    options = read_options(path)
    config = RestormerConfig.from_mapping(options.network)
    assert on_meta(config).config == config
    assert options.weights["file"]
    assert RestormerConfig.from_mapping(config.to_mapping()) == config


def test_every_variant_has_its_own_official_options_and_compact_ones() -> None:
    assert {v.name for v in VARIANTS} | {v.compact for v in VARIANTS} == {p.stem for p in OPTIONS}
    for variant in VARIANTS:
        official = RestormerConfig.from_mapping(shipped_options(variant.name).network)
        compact = RestormerConfig.from_mapping(shipped_options(variant.compact).network)
        assert official.inp_channels % variant.views == 0
        for name in ("inp_channels", "out_channels", "dual_pixel_task"):
            assert getattr(compact, name) == getattr(official, name)


@pytest.mark.parametrize(
    ("words", "file", "kind"),
    [
        (("derain",), "deraining.pth", "with_bias"),
        (("denoise",), "real_denoising.pth", "bias_free"),
        (("denoise", "color"), "gaussian_color_denoising_blind.pth", "bias_free"),
        (("denoise", "color", 50), "gaussian_color_denoising_sigma50.pth", "bias_free"),
        (("denoise", "gray", 15), "gaussian_gray_denoising_sigma15.pth", "gray"),
        (("deblur",), "motion_deblurring.pth", "with_bias"),
        (("deblur", "defocus"), "single_image_defocus_deblurring.pth", "with_bias"),
        (("dual-pixel",), "dual_pixel_defocus_deblurring.pth", "dual_pixel"),
    ],
)
def test_tasks_use_the_official_networks(words: tuple[Any, ...], file: str, kind: str) -> None:
    options = shipped_options(find_variant(*words).name)
    assert options.weights["file"] == file
    assert RestormerConfig.from_mapping(options.network) == RestormerConfig(**KINDS[kind])


AUTHORS_YAML = """\
# general settings
name: Deraining_Restormer
model_type: ImageCleanModel
scale: 1
num_gpu: 8  # set num_gpu: 0 for cpu mode
manual_seed: 100
datasets:
  train:
    name: TrainSet
    gt_size: 384
    mini_batch_sizes: [8,5,4,2,1,1]
network_g:
  type: Restormer
  inp_channels: 3
  out_channels: 3
  dim: 48
  num_blocks: [4,6,6,8]
  num_refinement_blocks: 4
  heads: [1,2,4,8]
  ffn_expansion_factor: 2.66
  bias: False
  LayerNorm_type: WithBias
  dual_pixel_task: False
path:
  pretrain_network_g: ~
  strict_load_g: true
"""


def test_yaml_of_the_authors_is_accepted_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "Deraining_Restormer.yml"
    path.write_text(AUTHORS_YAML, encoding="utf-8")
    assert RestormerConfig.from_mapping(read_options(path).network) == RestormerConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("network_g: {type: NAFNet, width: 32}", "NAFNet"),
        ("network: {dim: 48}", "network_g"),
        ("network_g: [48]", "network_g"),
        ("- 1\n- 2\n", "network_g"),
        ("", "network_g"),
        ("network_g: {dim: 48", "YAML"),
        ("network_g: !!python/object/apply:os.getcwd []", "YAML"),
        ("network_g: {width: 48}", "width"),
        ("network_g: {dim: 0}", "dim"),
        ("network_g: {dim: 49}", "dim"),
        ("network_g: {dim: '48'}", "dim"),
        ("network_g: {dim: true}", "dim"),
        ("network_g: {num_blocks: [4, 6, 6]}", "num_blocks"),
        ("network_g: {num_blocks: 4}", "num_blocks"),
        ("network_g: {heads: [1, 2, 4, 7]}", "heads"),
        ("network_g: {heads: [0, 2, 4, 8]}", "heads"),
        ("network_g: {ffn_expansion_factor: -2}", "ffn_expansion_factor"),
        ("network_g: {ffn_expansion_factor: .nan}", "ffn_expansion_factor"),
        ("network_g: {ffn_expansion_factor: .inf}", "ffn_expansion_factor"),
        ("network_g: {bias: 'no'}", "bias"),
        ("network_g: {LayerNorm_type: Biasfree}", "LayerNorm_type"),
        ("network_g: {LayerNorm_type: [WithBias]}", "LayerNorm_type"),
        ("network_g: {inp_channels: 6}", "inp_channels"),
        ("network_g: {7: 8}", "7"),
    ],
)
def test_options_that_describe_no_restormer_are_refused_with_a_sentence(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "net.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OptionsError) as caught:
        RestormerConfig.from_mapping(read_options(path).network)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_cannot_be_read_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"missing\.yml"):
        read_options(tmp_path / "missing.yml")
    with pytest.raises(OptionsError, match="cannot be read"):
        read_options(tmp_path)
    path = tmp_path / "latin.yml"
    path.write_bytes(b"network_g: {LayerNorm_type: \xe9}")
    with pytest.raises(OptionsError, match="YAML"):
        read_options(path)


# --- the forward -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (24, 16)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_output_has_the_size_of_the_input(kind: str, bias: bool, size: tuple[int, int]) -> None:
    network = tiny_network(kind, bias=bias)
    config = network.config
    result = network(torch.rand(2, config.inp_channels, *size))
    assert result.shape == (2, config.out_channels, *size)
    assert torch.isfinite(result).all()


def test_stages_without_blocks_and_odd_head_counts_work() -> None:
    network = tiny_network(
        num_blocks=(0, 2, 0, 1), num_refinement_blocks=0, heads=(2, 1, 8, 16), dim=12 + 4
    )
    assert network(torch.rand(1, 3, 16, 8)).shape == (1, 3, 16, 8)


@pytest.mark.parametrize("shape", [(1, 3, 7, 8), (1, 3, 8, 12), (1, 1, 8, 8), (3, 8, 8)])
def test_input_of_another_form_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected|multiples"):
        tiny_network()(torch.rand(shape))


def test_images_of_a_batch_do_not_affect_each_other() -> None:
    network = tiny_network()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    apart = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), apart, atol=1e-5, rtol=0)


# --- an independent reference, written from the paper's formulas -------------------------
#
# Single images, float64, no modules: explicit loops over heads, channels and taps. Only the
# dense 3×3 convolution is left to PyTorch.

State = dict[str, Tensor]


def naive_norm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    channels = x.shape[0]
    mean = sum(x[c] for c in range(channels)) / channels
    variance = sum((x[c] - mean) ** 2 for c in range(channels)) / channels
    out = []
    for c in range(channels):
        if bias is None:
            out.append(x[c] / torch.sqrt(variance + 1e-5) * weight[c])
        else:
            out.append((x[c] - mean) / torch.sqrt(variance + 1e-5) * weight[c] + bias[c])
    return torch.stack(out)


def naive_point(x: Tensor, state: State, name: str) -> Tensor:
    weight, bias = state[f"{name}.weight"][:, :, 0, 0], state.get(f"{name}.bias")
    out = []
    for k in range(weight.shape[0]):
        plane = sum(weight[k, c] * x[c] for c in range(x.shape[0]))
        out.append(plane if bias is None else plane + bias[k])
    return torch.stack(out)


def naive_depth(x: Tensor, state: State, name: str) -> Tensor:
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    channels, height, width = x.shape
    framed = torch.zeros(channels, height + 2, width + 2, dtype=x.dtype)
    framed[:, 1:-1, 1:-1] = x
    out = torch.zeros_like(x)
    for dy in range(3):
        for dx in range(3):
            for c in range(channels):
                out[c] += weight[c, 0, dy, dx] * framed[c, dy : dy + height, dx : dx + width]
    return out if bias is None else out + bias.reshape(-1, 1, 1)


def naive_dense(x: Tensor, state: State, name: str) -> Tensor:
    return F.conv2d(x[None], state[f"{name}.weight"], state.get(f"{name}.bias"), padding=1)[0]


def naive_attention(x: Tensor, state: State, name: str) -> Tensor:
    channels, height, width = x.shape
    temperature = state[f"{name}.temperature"].flatten()
    qkv = naive_depth(naive_point(x, state, f"{name}.qkv"), state, f"{name}.qkv_dwconv")
    query, key, value = (
        qkv[part * channels : (part + 1) * channels].reshape(channels, -1) for part in range(3)
    )
    each = channels // len(temperature)
    out = torch.zeros(channels, height * width, dtype=x.dtype)
    for head in range(len(temperature)):
        members = range(head * each, (head + 1) * each)
        for i in members:
            scores = []
            for j in members:
                lengths = max(math.sqrt((query[i] ** 2).sum()), 1e-12)
                lengths *= max(math.sqrt((key[j] ** 2).sum()), 1e-12)
                scores.append(float((query[i] * key[j]).sum()) / lengths * temperature[head])
            powers = [math.exp(score - max(scores)) for score in scores]
            for j, power in zip(members, powers, strict=True):
                out[i] += power / sum(powers) * value[j]
    return naive_point(out.reshape(channels, height, width), state, f"{name}.project_out")


def naive_feed_forward(x: Tensor, state: State, name: str) -> Tensor:
    both = naive_depth(naive_point(x, state, f"{name}.project_in"), state, f"{name}.dwconv")
    hidden = both.shape[0] // 2
    gate, value = both[:hidden], both[hidden:]
    gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    return naive_point(gelu * value, state, f"{name}.project_out")


def naive_stage(x: Tensor, state: State, name: str) -> Tensor:
    number = 0
    while f"{name}.{number}.attn.temperature" in state:
        block = f"{name}.{number}"
        for norm, module, step in (
            ("norm1", "attn", naive_attention),
            ("norm2", "ffn", naive_feed_forward),
        ):
            scale, shift = f"{block}.{norm}.body.weight", f"{block}.{norm}.body.bias"
            normed = naive_norm(x, state[scale], state.get(shift))
            x = x + step(normed, state, f"{block}.{module}")
        number += 1
    return x


def naive_unshuffle(x: Tensor) -> Tensor:
    channels, height, width = x.shape
    out = torch.zeros(4 * channels, height // 2, width // 2, dtype=x.dtype)
    for c in range(channels):
        for dy in range(2):
            for dx in range(2):
                out[4 * c + 2 * dy + dx] = x[c, dy::2, dx::2]
    return out


def naive_shuffle(x: Tensor) -> Tensor:
    channels, height, width = x.shape
    out = torch.zeros(channels // 4, 2 * height, 2 * width, dtype=x.dtype)
    for c in range(channels // 4):
        for dy in range(2):
            for dx in range(2):
                out[c, dy::2, dx::2] = x[4 * c + 2 * dy + dx]
    return out


def naive_restormer(image: Tensor, state: State) -> Tensor:
    features = naive_dense(image, state, "patch_embed.proj")
    level1 = naive_stage(features, state, "encoder_level1")
    down = naive_unshuffle(naive_dense(level1, state, "down1_2.body.0"))
    level2 = naive_stage(down, state, "encoder_level2")
    down = naive_unshuffle(naive_dense(level2, state, "down2_3.body.0"))
    level3 = naive_stage(down, state, "encoder_level3")
    down = naive_unshuffle(naive_dense(level3, state, "down3_4.body.0"))
    x = naive_stage(down, state, "latent")
    x = torch.cat([naive_shuffle(naive_dense(x, state, "up4_3.body.0")), level3])
    x = naive_stage(naive_point(x, state, "reduce_chan_level3"), state, "decoder_level3")
    x = torch.cat([naive_shuffle(naive_dense(x, state, "up3_2.body.0")), level2])
    x = naive_stage(naive_point(x, state, "reduce_chan_level2"), state, "decoder_level2")
    x = torch.cat([naive_shuffle(naive_dense(x, state, "up2_1.body.0")), level1])
    x = naive_stage(naive_stage(x, state, "decoder_level1"), state, "refinement")
    if "skip_conv.weight" in state:
        return naive_dense(x + naive_point(features, state, "skip_conv"), state, "output")
    return naive_dense(x, state, "output") + image


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("with_bias", {}),
        ("bias_free", {"num_blocks": (2, 1, 1, 1)}),
        ("with_bias", {"bias": True}),
        ("bias_free", {"bias": True, "ffn_expansion_factor": 2.0}),
        ("gray", {}),
        ("dual_pixel", {}),
        ("dual_pixel", {"bias": True}),
    ],
)
def test_network_computes_the_formulas_of_the_paper(kind: str, values: dict[str, Any]) -> None:
    network = tiny_network(kind, seed=3, **values)
    generator = torch.Generator().manual_seed(4)
    image = torch.rand(1, network.config.inp_channels, 16, 24, generator=generator)
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    expected = naive_restormer(image[0].double(), state)
    assert (network(image)[0].double() - expected).abs().max() < 1e-5
    # The comparison means something: the network does much to its input.
    reference = image[0, : network.config.out_channels].double()
    assert (expected - reference).abs().mean() > 0.01
