"""Models of BitNet's linear layers, for `make.py`: by transformers' own modules.

transformers itself puts them in place only where the `accelerate` package is there, and compiles their functions; here they are put
in place by hand, and run as they are written.
"""

import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.bitnet import (
    AutoBitLinear,
    BitLinear,
    pack_weights,
    replace_with_bitnet_linear,
    unpack_weights,
)
from transformers.utils.quantization_config import BitNetQuantConfig


def stored(config: dict, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint of float `weights`: ternary and packed, or in bf16 where the config says that they become so when used."""
    fields = config["quantization_config"]
    auto = fields.get("linear_class") == "autobitlinear"
    names = [name for name in weights if name.endswith("_proj.weight")]
    for name in names:
        n_in = weights[name].shape[1]
        if fields.get("use_rms_norm"):
            weights[name.replace(".weight", ".rms_norm.weight")] = 1 + 0.3 * torch.randn(n_in)
        if auto and fields["quantization_mode"] == "online":
            weights[name] = weights[name].bfloat16()
            continue
        size = weights[name].abs().mean()
        weights[name.replace(".weight", ".weight_scale")] = (size if auto else 1 / size)[None]
        weights[name] = pack_weights((weights[name] / size).round().clamp(-1, 1))
    return weights


def load(config: AutoConfig, weights: dict[str, Tensor], dtype: torch.dtype):
    """The model of a checkpoint, in this dtype."""
    quantization = config.quantization_config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    replace_with_bitnet_linear(model, ["lm_head"], BitNetQuantConfig(**quantization))
    for name, weight in weights.items():
        packed = weight.dtype == torch.uint8
        if packed and isinstance(model.get_submodule(name.removesuffix(".weight")), AutoBitLinear):
            weights[name] = unpack_weights(weight, dtype=dtype)
        elif not packed:
            weights[name] = weight.to(dtype)
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    return model.eval()


def closest_edge(model: nn.Module, ids: Tensor) -> float:
    """How close an activation comes to where it would be rounded to another integer, in steps between integers."""
    closest = [0.5]

    def look(linear: nn.Module, args: tuple[Tensor]) -> None:
        (x,) = args
        x = x if linear.rms_norm is None else linear.rms_norm(x)
        x = x * (127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))
        closest.append((0.5 - (x - x.round()).abs()).min().item())

    linears = [module for module in model.modules() if isinstance(module, (AutoBitLinear, BitLinear))]
    hooks = [linear.register_forward_pre_hook(look) for linear in linears]
    if linears:
        model(ids[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return min(closest)
