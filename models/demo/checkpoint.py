"""Writes trained weights as a Hugging Face checkpoint in LLaVA's layout."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import scenes
import tokenizer as tok
import train_scenes
from model import Shape
from train_tower import VISION_SHAPE

CONVERT_VISION = Path(__file__).parents[2] / "scripts" / "convert_vision.py"

TOKEN_IDS = {"bos_token_id": tok.BOS, "eos_token_id": tok.END, "pad_token_id": tok.EOS}


def llama_config(shape: Shape) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": tok.CONTEXT_TOKENS,
        "tie_word_embeddings": True,
        **TOKEN_IDS,
        "torch_dtype": "bfloat16",
    }


def llava_config() -> dict:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": llama_config(train_scenes.SHAPE),
        "vision_config": {
            "model_type": "siglip_vision_model",
            "image_size": VISION_SHAPE.image_size,
            "patch_size": VISION_SHAPE.patch_size,
            "hidden_size": VISION_SHAPE.hidden_size,
            "intermediate_size": VISION_SHAPE.intermediate_size,
            "num_hidden_layers": VISION_SHAPE.num_hidden_layers,
            "num_attention_heads": VISION_SHAPE.num_attention_heads,
            "layer_norm_eps": VISION_SHAPE.layer_norm_eps,
            "hidden_act": "gelu_pytorch_tanh",
            "vision_use_head": False,
        },
        "image_token_index": tok.IMAGE,
        "image_seq_length": VISION_SHAPE.n_patches,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": True,
        **TOKEN_IDS,
        "torch_dtype": "bfloat16",
    }


def generation_config() -> dict:
    return {
        "bos_token_id": tok.BOS,
        "eos_token_id": [tok.END, tok.EOS],
        "pad_token_id": tok.EOS,
        "do_sample": False,
    }


def preprocessor_config() -> dict:
    return {
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": scenes.SIDE, "width": scenes.SIDE},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def processor_config() -> dict:
    return {
        "processor_class": "LlavaProcessor",
        "image_token": tok.IMAGE_TOKEN,
        "patch_size": VISION_SHAPE.patch_size,
        "num_additional_image_tokens": 0,
        "vision_feature_select_strategy": "full",
    }


def export(weights: Path, folder: Path) -> None:
    """Configuration, tokenizer, bf16 weights; tower and projector in ONNX form, too."""
    files = {
        "config.json": llava_config(),
        "generation_config.json": generation_config(),
        "preprocessor_config.json": preprocessor_config(),
        "processor_config.json": processor_config(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    tok.save(folder)
    bf16 = {name: weight.to(torch.bfloat16).contiguous() for name, weight in load_file(weights).items()}
    save_file(bf16, folder / "model.safetensors", metadata={"format": "pt"})
    subprocess.run([sys.executable, CONVERT_VISION, folder], check=True)
