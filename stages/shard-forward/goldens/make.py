"""Makes the golden files of the Llama forward pass: tiny random checkpoints with the logits transformers gives them.

    make goldens     # which is: .deps/python/bin/python stages/shard-forward/goldens/make.py

Each folder holds a checkpoint (`config.json`, `model.safetensors`, f32) and `expected.safetensors`, where for prompt i

    input_ids.i   [n_tokens]                i64   the prompt
    logits.i      [n_stored, vocab_size]    f32   at its last n_stored positions: at all, unless the prompt is long
    greedy.i      [24]                      i64   what follows it greedily; an end-of-sequence id does not end it

The metadata of `expected.safetensors` says where it came from. A prompt is drawn again when one of its greedy choices
is closer than `MARGIN_MIN`, so that another order of additions does not change `greedy`.
"""

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent
COMMAND = ".deps/python/bin/python stages/shard-forward/goldens/make.py"
GREEDY_TOKENS = 24
LONG_PROMPT_TOKENS = 64
LONG_PROMPT_LOGITS = 8
MARGIN_MIN = 0.03
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


@dataclass(frozen=True)
class Golden:
    name: str
    seed: int
    config: dict
    prompt_lengths: tuple[int, ...] = field(default=(1, 7, 33))


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
)


def load(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def write_checkpoint(golden: Golden, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**COMMON, **golden.config}, indent=2) + "\n")
    torch.manual_seed(golden.seed)
    llama = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    with torch.no_grad():
        for weight in llama.parameters():
            if weight.dim() == 1:  # norms start as ones and biases as zeros, which would hide a missing one
                weight.add_(torch.randn_like(weight) * 0.3)
    weights = {name: weight.contiguous() for name, weight in llama.state_dict().items()}
    if golden.config["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def greedy(llama, input_ids: Tensor) -> tuple[Tensor, float]:
    """The ids that follow, without a KV cache, and the smallest lead of a chosen logit over the second."""
    ids, margin = input_ids, float("inf")
    for _ in range(GREEDY_TOKENS):
        best = llama(ids[None], use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids = torch.cat((ids, best.indices[:1]))
    return ids[len(input_ids) :], margin


@torch.no_grad()
def expected(golden: Golden, folder: Path) -> dict[str, Tensor]:
    llama = load(folder)
    generator = torch.Generator().manual_seed(golden.seed)
    tensors: dict[str, Tensor] = {}
    for i, n_tokens in enumerate(golden.prompt_lengths):
        n_stored = n_tokens if n_tokens <= LONG_PROMPT_TOKENS else LONG_PROMPT_LOGITS
        margin = 0.0
        while margin < MARGIN_MIN:
            input_ids = torch.randint(3, COMMON["vocab_size"], (n_tokens,), generator=generator)
            greedy_ids, margin = greedy(llama, input_ids)
        tensors[f"input_ids.{i}"] = input_ids
        tensors[f"logits.{i}"] = llama(input_ids[None], use_cache=False).logits[0, -n_stored:].contiguous()
        tensors[f"greedy.{i}"] = greedy_ids
        spread = tensors[f"logits.{i}"].std().item()
        print(f"{golden.name}  {n_tokens:3} tokens  logit std {spread:.2f}  greedy margin {margin:.3f}")
    return tensors


def provenance(golden: Golden) -> str:
    return json.dumps(
        {
            "model": f"random weights, seed {golden.seed}, f32, eager attention",
            "command": COMMAND,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        }
    )


def main() -> None:
    torch.set_num_threads(1)
    for golden in GOLDENS:
        folder = HERE / golden.name
        write_checkpoint(golden, folder)
        tensors = expected(golden, folder)
        # One metadata key: with several, safetensors writes them in an order that differs from run to run.
        save_file(tensors, folder / "expected.safetensors", metadata={"provenance": provenance(golden)})


if __name__ == "__main__":
    main()
