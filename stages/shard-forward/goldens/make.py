"""Makes the golden files of the forward pass: tiny random checkpoints with the logits transformers gives them.

    make goldens     # which is: .deps/python/bin/python stages/shard-forward/goldens/make.py, and make_images.py

Each folder holds a checkpoint (`config.json`, `model.safetensors`, f32) and `expected.safetensors`, where for prompt i

    input_ids.i   [n_tokens]                i64   the prompt
    logits.i      [n_stored, vocab_size]    f32   at its last n_stored positions: at all, unless the prompt is long
    bf16_logits.i [n_stored, vocab_size]    f32   the same by transformers in bf16, which says how much that changes; of some, none
    greedy.i      [24]                      i64   what follows it greedily; an end-of-sequence id does not end it

A checkpoint with a `quantization_config` has what `ternary.py` makes of the weights. Activations are rounded to integers there, and
one that lies between two may be rounded to the other after another order of additions, which changes logits by up to 0.1. So a prompt
is drawn again, too, when in f32 one of it or of its greedy answer is closer than `EDGE_MIN` to where that happens.

The metadata of `expected.safetensors` says where it came from. A prompt is drawn again when one of its greedy choices
is closer than `MARGIN_MIN`, so that another order of additions does not change `greedy`, and when bf16 is off by more than
`BF16_OFF_MAX` of a row's largest logit: a row went through other experts.
"""

import json
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path

import ternary
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

HERE = Path(__file__).parent
COMMAND = ".deps/python/bin/python stages/shard-forward/goldens/make.py"
GREEDY_TOKENS = 24
LONG_PROMPT_TOKENS = 64
LONG_PROMPT_LOGITS = 8
MARGIN_MIN = 0.03
BF16_OFF_MAX = 0.2
# In steps between integers: 127 such steps are a row's largest activation.
EDGE_MIN = 2e-5
INITIALIZER_RANGE = 0.2

COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": INITIALIZER_RANGE,
    "torch_dtype": "float32",
}

SMALL = {
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
DEEP = {
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "query_pre_attn_scalar": 8,
    "max_position_embeddings": 256,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
SMOLLM3 = {"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "pad_token_id": 0}
GEMMA = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "pad_token_id": 0}
GEMMA2 = {**GEMMA, "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
GEMMA3 = {**GEMMA, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
MIXTRAL = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
QWEN3_MOE = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}
PHI3 = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": 0}
BITNET = {"architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2"}


@dataclass(frozen=True)
class Golden:
    name: str
    seed: int
    config: dict
    prompt_lengths: tuple[int, ...] = field(default=(1, 7, 33))
    # Whether a test computes it in bf16.
    in_bf16: bool = True


GOLDENS = (
    Golden(
        "gqa",
        seed=1,
        config={
            "intermediate_size": 72,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 128,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
    ),
    Golden(
        "tied-wide-heads",
        seed=2,
        config={
            "intermediate_size": 56,
            "num_hidden_layers": 2,
            "num_key_value_heads": 4,
            "head_dim": 32,
            "max_position_embeddings": 128,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
        },
    ),
    Golden(
        "llama3-rope",
        seed=3,
        config={
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 512,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            "tie_word_embeddings": False,
        },
        prompt_lengths=(1, 7, 33, 300),
    ),
    Golden(
        "biases",
        seed=4,
        config={
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 128,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    Golden(
        "linear-rope",
        seed=5,
        config={**SMALL, "rope_scaling": {"type": "linear", "factor": 4.0}},
        prompt_lengths=(7, 300),
    ),
    # Up to `max_position_embeddings` its frequencies are plain ones.
    Golden(
        "dynamic-rope",
        seed=6,
        config={**SMALL, "max_position_embeddings": 300, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        prompt_lengths=(7, 270),
    ),
    Golden(
        "yarn-rope",
        seed=7,
        config={
            **SMALL,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 160},
            "max_position_embeddings": 640,
        },
        prompt_lengths=(7, 600),
    ),
    Golden(
        "mistral",
        seed=8,
        config={**MISTRAL, **SMALL, "head_dim": 24, "sliding_window": 20},
        prompt_lengths=(1, 7, 33, 600),
    ),
    Golden("mistral-v3", seed=9, config={**MISTRAL, **SMALL, "sliding_window": None, "rope_theta": 1000000.0}),
    Golden(
        "qwen2",
        seed=10,
        config={
            **QWEN2,
            **SMALL,
            "use_sliding_window": True,
            "sliding_window": 17,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
        prompt_lengths=(1, 7, 33, 600),
    ),
    Golden("qwen2-full", seed=11, config={**QWEN2, **SMALL, "num_key_value_heads": 1, "use_sliding_window": False}),
    Golden(
        "qwen3",
        seed=12,
        config={**QWEN3, **SMALL, "head_dim": 32, "tie_word_embeddings": True},
        prompt_lengths=(1, 7, 33, 600),
    ),
    Golden(
        "qwen3-biases",
        seed=13,
        config={
            **QWEN3,
            **SMALL,
            "head_dim": 16,
            "num_key_value_heads": 4,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    Golden(
        "smollm3",
        seed=14,
        config={
            **SMOLLM3,
            **SMALL,
            "num_hidden_layers": 4,
            "intermediate_size": 40,
            "rope_theta": 50000.0,
            "tie_word_embeddings": True,
        },
        prompt_lengths=(1, 7, 33, 600),
    ),
    Golden(
        "smollm3-windows",
        seed=15,
        config={
            **SMOLLM3,
            **SMALL,
            "no_rope_layers": [0, 1, 0],
            "use_sliding_window": True,
            "sliding_window": 12,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    Golden(
        "phi3",
        seed=16,
        config={**PHI3, **SMALL, "sliding_window": 30},
        prompt_lengths=(1, 7, 33, 600),
    ),
    # Up to the original length the short factors hold. One answer grows beyond it.
    Golden(
        "phi3-longrope",
        seed=17,
        config={
            **PHI3,
            **SMALL,
            "partial_rotary_factor": 0.75,
            "max_position_embeddings": 2560,
            "original_max_position_embeddings": 320,
            "tie_word_embeddings": True,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.05, 1.1, 1.3, 1.7, 2.2],
                "long_factor": [1.0, 1.5, 3.0, 6.0, 8.0, 8.0],
            },
        },
        prompt_lengths=(1, 7, 33, 290, 310, 600),
    ),
    Golden(
        "gemma2",
        seed=18,
        config={
            **GEMMA2,
            **SMALL,
            "head_dim": 24,
            "query_pre_attn_scalar": 40,
            "sliding_window": 20,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 8.0,
            "tie_word_embeddings": True,
        },
        prompt_lengths=(1, 7, 33, 600),
    ),
    Golden(
        "gemma3",
        seed=19,
        config={
            **GEMMA3,
            **SMALL,
            "num_hidden_layers": 4,
            "intermediate_size": 40,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 12,
            "sliding_window_pattern": 3,
            "rope_theta": 100000.0,
            "rope_local_base_freq": 5000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "tie_word_embeddings": True,
        },
        prompt_lengths=(1, 7, 33, 600),
    ),
    # What a GGUF says of Gemma: queries scaled by the width of a head, windows in all but each second or sixth layer.
    Golden(
        "gemma2-head-scale",
        seed=24,
        config={
            **GEMMA2,
            **SMALL,
            "head_dim": 24,
            "query_pre_attn_scalar": 24,
            "sliding_window": 20,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 8.0,
            "tie_word_embeddings": True,
        },
        prompt_lengths=(1, 7, 33, 600),
    ),
    Golden(
        "gemma3-sixth-layer",
        seed=25,
        config={
            **GEMMA3,
            **SMALL,
            "num_hidden_layers": 7,
            "intermediate_size": 40,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 12,
            "sliding_window_pattern": 6,
            "rope_theta": 100000.0,
            "rope_local_base_freq": 5000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "tie_word_embeddings": True,
        },
        prompt_lengths=(1, 7, 33, 600),
    ),
    # As many layers as the models of 27 billion parameters, by which a GGUF tells that queries are scaled by another width.
    Golden(
        "gemma2-46-layers",
        seed=26,
        config={
            **GEMMA2,
            **DEEP,
            "num_hidden_layers": 46,
            # llama.cpp's converter does not write it for Gemma 2.
            "rope_theta": 10000.0,
            "sliding_window": 20,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 8.0,
        },
        in_bf16=False,
    ),
    Golden(
        "gemma3-62-layers",
        seed=27,
        config={
            **GEMMA3,
            **DEEP,
            "num_hidden_layers": 62,
            "sliding_window": 12,
            "sliding_window_pattern": 6,
            "rope_local_base_freq": 5000.0,
        },
        in_bf16=False,
    ),
    Golden(
        "mixtral",
        seed=20,
        config={
            **MIXTRAL,
            **SMALL,
            "intermediate_size": 24,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "sliding_window": None,
        },
        prompt_lengths=(1, 7, 33, 600),
    ),
    Golden(
        "mixtral-windows",
        seed=21,
        config={
            **MIXTRAL,
            **SMALL,
            "intermediate_size": 24,
            "head_dim": 24,
            "num_local_experts": 3,
            "num_experts_per_tok": 1,
            "sliding_window": 14,
        },
    ),
    Golden(
        "qwen3-moe",
        seed=22,
        config={
            **QWEN3_MOE,
            **SMALL,
            "head_dim": 32,
            "moe_intermediate_size": 16,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "norm_topk_prob": True,
        },
        prompt_lengths=(1, 7, 33, 600),
    ),
    Golden(
        "qwen3-moe-some",
        seed=23,
        config={
            **QWEN3_MOE,
            **SMALL,
            "num_hidden_layers": 4,
            "moe_intermediate_size": 16,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "norm_topk_prob": False,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    # As microsoft/bitnet-b1.58-2B-4T.
    Golden(
        "bitnet",
        seed=24,
        config={
            **BITNET,
            **SMALL,
            "rope_theta": 500000.0,
            "tie_word_embeddings": True,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "offline",
            },
        },
    ),
    # So few activations that a prompt of 600 tokens is found of which none comes close to another integer.
    Golden(
        "bitnet-long",
        seed=30,
        config={
            **BITNET,
            **SMALL,
            "hidden_size": 32,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "offline",
            },
        },
        prompt_lengths=(600,),
    ),
    # As microsoft/bitnet-b1.58-2B-4T-bf16.
    Golden(
        "bitnet-online",
        seed=25,
        config={
            **BITNET,
            **SMALL,
            "intermediate_size": 52,
            "num_key_value_heads": 1,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "online",
            },
        },
    ),
    Golden(
        "bitnet-biases",
        seed=26,
        config={
            **BITNET,
            **SMALL,
            "num_key_value_heads": 4,
            "attention_bias": True,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "offline",
                "use_rms_norm": True,
                "rms_norm_eps": 1e-5,
            },
        },
    ),
    Golden(
        "bitnet-bitlinear",
        seed=27,
        config={
            **BITNET,
            **SMALL,
            "attention_bias": True,
            "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]},
        },
    ),
    Golden("bitnet-plain", seed=28, config={**BITNET, **SMALL, "attention_bias": True}),
    # As HF1BitLLM/Llama3-8B-1.58-100B-tokens.
    Golden(
        "llama-bitlinear",
        seed=29,
        config={**SMALL, "quantization_config": {"quant_method": "bitnet", "use_rms_norm": True}},
    ),
)


def load(folder: Path, dtype: torch.dtype):
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        return ternary.load(config, load_file(folder / "model.safetensors"), dtype)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def write_checkpoint(golden: Golden, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**COMMON, **golden.config}, indent=2) + "\n")
    torch.manual_seed(golden.seed)
    config = AutoConfig.from_pretrained(folder)
    is_ternary = hasattr(config, "quantization_config")
    if is_ternary:
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:  # norms start as ones and biases as zeros, which would hide a missing one
                weight.add_(torch.randn_like(weight) * 0.3)
    # As on the Hub: each expert's matrices by themselves.
    weights = revert_weight_conversion(model, model.state_dict())
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    if golden.config["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    if is_ternary:
        weights = ternary.stored(golden.config, weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def greedy(model, input_ids: Tensor) -> tuple[Tensor, float]:
    """The ids that follow, without a KV cache, and the smallest lead of a chosen logit over the second."""
    ids, margin = input_ids, float("inf")
    for _ in range(GREEDY_TOKENS):
        best = model(ids[None], use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids = torch.cat((ids, best.indices[:1]))
    return ids[len(input_ids) :], margin


@torch.no_grad()
def expected(golden: Golden, model, coarse) -> dict[str, Tensor]:
    """`coarse` is the model in bf16, or the same again where bf16 is not compared."""
    generator = torch.Generator().manual_seed(golden.seed)
    tensors: dict[str, Tensor] = {}
    for i, n_tokens in enumerate(golden.prompt_lengths):
        n_stored = n_tokens if n_tokens <= LONG_PROMPT_TOKENS else LONG_PROMPT_LOGITS
        margin, off = 0.0, torch.ones(1)
        while margin < MARGIN_MIN or off.max() > BF16_OFF_MAX:
            input_ids = torch.randint(3, COMMON["vocab_size"], (n_tokens,), generator=generator)
            if ternary.closest_edge(model, input_ids) < EDGE_MIN:
                continue
            greedy_ids, margin = greedy(model, input_ids)
            if ternary.closest_edge(model, torch.cat((input_ids, greedy_ids))) < EDGE_MIN:
                margin = 0.0
                continue
            logits, coarse_logits = (
                computed(input_ids[None], use_cache=False).logits[0, -n_stored:].float().contiguous()
                for computed in (model, coarse)
            )
            off = (coarse_logits - logits).abs().amax(1) / logits.abs().amax(1)
        tensors[f"input_ids.{i}"] = input_ids
        tensors[f"logits.{i}"] = logits
        if golden.in_bf16:
            tensors[f"bf16_logits.{i}"] = coarse_logits
        tensors[f"greedy.{i}"] = greedy_ids
        print(
            f"{golden.name}  {n_tokens:3} tokens  logit std {logits.std().item():.2f}  greedy margin {margin:.3f}  "
            f"bf16 off by {off.max().item():.3f} of a row's largest"
        )
    return tensors


def provenance(golden: Golden, command: str = COMMAND) -> str:
    return json.dumps(
        {
            "model": f"random weights, seed {golden.seed}, f32, eager attention",
            "command": command,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        }
    )


def main() -> None:
    """Those that are named, or all."""
    torch.set_num_threads(1)
    names = sys.argv[1:]
    for golden in GOLDENS:
        if names and golden.name not in names:
            continue
        folder = HERE / golden.name
        write_checkpoint(golden, folder)
        coarse = load(folder, torch.bfloat16 if golden.in_bf16 else torch.float32)
        tensors = expected(golden, load(folder, torch.float32), coarse)
        # One metadata key: with several, safetensors writes them in an order that differs from run to run.
        save_file(tensors, folder / "expected.safetensors", metadata={"provenance": provenance(golden)})


if __name__ == "__main__":
    main()
