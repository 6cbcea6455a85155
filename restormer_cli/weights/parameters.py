"""Finds the parameters of a network among the tensors of a checkpoint, by their names.

Training scripts, compilers and libraries for large models wrap the network into other modules,
which adds words to the names of its parameters, and save counters and other networks with it.
PyTorch is not needed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from restormer_cli.errors import WeightsError
from restormer_cli.system.terminal import harmless
from restormer_cli.weights.tensor_file import TensorFile

#: Dicts in which training scripts keep the parameters, the best first. Averaged ones, of any name,
#: come before these.
CONTAINERS = ("params.", "state_dict.", "model.", "generator.", "net_g.", "")
#: A parameter of every network; the part before it in a file is the prefix of all names.
SIGNATURE = "patch_embed.proj.weight"
#: Words that wrapping modules add anywhere in a name: parallel training, ``torch.compile``,
#: checkpointed activations, FSDP, DeepSpeed, Fabric, Opacus.
WRAPPERS = frozenset(
    {"module", "_module", "_orig_mod", "_orig_module", "_original_module", "_wrapped_module"}
    | {"_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_fpw_module", "_forward_module"}
)
#: Last words of the names of buffers that no network needs: of profilers (thop), BatchNorm,
#: averages of parameters.
COUNTERS = frozenset(
    {"total_ops", "total_params", "num_batches_tracked", "n_averaged", "num_updates"}
    | {"update_count", "decay", "initted", "step", "steps", "global_step", "epoch"}
)
#: Words in the names of modules that observe values for a later quantisation.
OBSERVERS = frozenset({"activation_post_process", "weight_fake_quant", "act_fake_quant"})
#: First words of the names of other training state, if the network is at the top of the file.
TRAINING = frozenset(
    {"optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict"}
    | {"optim", "lr_scheduler", "lr_schedulers", "scheduler", "schedulers", "scaler", "amp"}
    | {"grad_scaler", "callbacks", "loops", "hparams", "hyper_parameters", "rng", "rng_state"}
    | {"random_state", "message_hub", "meta", "metrics", "loss", "loss_fn", "criterion"}
)
#: Names of parameters that stand for others, with the reason and the remedy.
_SUBSTITUTES = (
    (
        r"\.parametrizations\.|\.weight_[gv]$|\.weight_orig$|\.weight_mask$|\.weight_u$",
        "is part of a weight that is computed (weight or spectral norm, pruning)",
        "remove the parametrisation before saving",
    ),
    (
        r"(^|\.)(lora_\w+|hada_\w+|lokr_\w+|base_layer|adapter_\w+)(\.|$)",
        "belongs to an adapter (LoRA)",
        "merge it into the network before saving",
    ),
    (
        r"(^|\.)(_packed_params|zero_point|SCB|absmax|qweight|qzeros)(\.|$)",
        "belongs to a quantised network",
        "save the network before it is quantised",
    ),
    (
        r"(^|\.)_?flat_param(_\d+)?$",
        "holds many parameters at once (FSDP)",
        "save the full state_dict()",
    ),
)
#: Other networks, with beginnings of names that each of them has.
_OTHERS = (
    ("NAFNet", (r"intro\.weight", r"encoders\.0\.0\.beta")),
    ("MPRNet", (r"stage1_encoder\.", r"sam12\.")),
    ("HINet", (r"down_path_1\.0\.", r"sam12\.")),
    ("MIMO-UNet", (r"SCM1\.", r"Encoder\.0\.")),
    ("Uformer", (r"encoderlayer_0\.blocks\.0\.",)),
    ("PromptIR", (r"prompt1\.prompt_param",)),
    ("FFTformer", (r"\S+\.ffn\.fft$",)),
    ("HAT", (r"layers\.0\.residual_group\.overlap_attn\.",)),
    ("Swin2SR", (r"layers\.0\.residual_group\.blocks\.0\.attn\.logit_scale",)),
    ("SwinIR", (r"layers\.0\.residual_group\.blocks\.0\.attn\.",)),
    ("a Swin Transformer", (r"layers\.0\.blocks\.0\.attn\.relative_position",)),
    ("a vision transformer", (r"(cls|class)_token", r"patch_embed\.|conv_proj\.")),
    ("DRUNet", (r"m_head\.weight", r"m_tail\.weight")),
    ("ESRGAN", (r"(RRDB_trunk\.0|body\.0)\.(RDB1|rdb1)\.conv1\.",)),
    ("EDSR", (r"head\.0\.weight", r"body\.0\.body\.0\.weight")),
    ("GFPGAN", (r"stylegan_decoder\.",)),
    ("CodeFormer", (r"quantize\.embedding\.weight",)),
    ("Stable Diffusion", (r"model\.diffusion_model\.",)),
    ("a ResNet", (r"layer1\.0\.conv1\.weight",)),
    ("a VGG", (r"features\.0\.weight",)),
)


@dataclass(frozen=True)
class Parameters:
    """The parameters of a network in a file."""

    prefix: str
    """The prefix of the official names, such as ``params.module.``."""
    names: Mapping[str, str]
    """The names in the file, by official names."""
    ignored: Sequence[str] = ()
    """Names in the file of entries of the network that are no parameters."""


def find_parameters(path: Path, file: TensorFile) -> Parameters:
    """Find the parameters of a network in a file.

    They may be nested in dicts, with any prefix, and parts of the network may be wrapped. Of
    several networks the one with averaged parameters (EMA) is taken, then the first of
    :data:`CONTAINERS`.

    Raises
    ------
    WeightsError
        If there are none, or several networks to choose from, or parameters that stand for others.
    """
    if not len(file):
        what = f", but {file.other}" if file.other else ""
        remedy = "" if file.other else "; save the state_dict() of the network, not the network"
        raise WeightsError(f"{path}: holds no state dict{what}{remedy}")
    prefix = _choose_prefix(path, file)
    found = defaultdict(list)
    for stored in file:
        if stored.startswith(prefix):
            found[_unwrap(stored.removeprefix(prefix))].append(stored)
    names: dict[str, str] = {}
    ignored = []
    for name, stored_as in found.items():
        if _is_stray(name, alone=prefix == ""):
            ignored += stored_as
        elif len(stored_as) > 1:
            both = " and ".join(map(harmless, stored_as[:2]))
            raise WeightsError(f"{path}: holds a parameter twice ({both}); keep one network")
        else:
            names[name] = stored_as[0]
    _refuse_substitutes(path, names)
    return Parameters(prefix, names, ignored)


def looks_like(names: Iterable[str]) -> str:
    """Guess another network from names of parameters, as words for people; "" without a guess.

    Parameters
    ----------
    names
        Names of parameters, with or without a prefix.
    """
    text = "\n".join(names)
    for network, starts in _OTHERS:
        if all(re.search(rf"(?m)^([\w-]+\.){{0,3}}?{start}", text) for start in starts):
            return f"it looks like {network}"
    return ""


def _unwrap(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)


def _is_stray(name: str, *, alone: bool) -> bool:
    """True if an entry is no parameter.

    Parameters
    ----------
    alone
        True if the network is at the top of the file, among other entries.
    """
    words = name.split(".")
    return (
        words[-1] in COUNTERS
        or not OBSERVERS.isdisjoint(words)
        or any(word.startswith("activation_post_process_") for word in words)
        or (alone and words[0] in TRAINING)
    )


def _refuse_substitutes(path: Path, names: Iterable[str]) -> None:
    for name in names:
        for pattern, what, remedy in _SUBSTITUTES:
            if re.search(pattern, name):
                raise WeightsError(f"{path}: {harmless(name)} {what}; {remedy}")


def _choose_prefix(path: Path, file: TensorFile) -> str:
    """Find the prefix of the names of the network, with wrappers of all of it."""
    found = []
    for name in file:
        unwrapped = _unwrap(name)
        if unwrapped == SIGNATURE or unwrapped.endswith(f".{SIGNATURE}"):
            found.append(name[: name.rindex(SIGNATURE.partition(".")[0])])
    if not found:
        names = [_unwrap(name) for name in file]
        _refuse_substitutes(path, names)
        hints = [f"it holds {file.other}" if file.other else "", looks_like(names)]
        hint = next((f"; {hint}" for hint in hints if hint), "")
        raise WeightsError(f"{path}: is no Restormer: has no tensor {SIGNATURE}{hint}")
    averaged = [prefix for prefix in found if re.search(r"(^|[._])ema[._]", prefix)]
    found = averaged or found
    if len(found) == 1:
        return found[0]
    for container in CONTAINERS:
        matching = [prefix for prefix in found if _unwrap(prefix) == container]
        if len(matching) == 1:
            return matching[0]
    several = ", ".join(harmless(prefix.removesuffix(".")) or "at the top" for prefix in found[:4])
    raise WeightsError(f"{path}: holds several networks ({several}); keep one of them")
