"""Makes the golden files of positions that images have: a tiny random Qwen2.5-VL with the logits transformers gives it.

    make goldens     # which is: .deps/python/bin/python stages/shard-forward/goldens/make.py, and make_images.py

`qwen2-5-vl/` holds the language model's weights alone, its `config.json` and `preprocessor_config.json` as the Hub's checkpoints
have them. In `expected.safetensors` are prompts of text as `make.py` describes them, and for prompt i with images

    image_input_ids.i   [n_tokens]              i64   the prompt, its placeholders in full length
    image_grids.i       [n_images, 3]           i64   where each image's embeddings begin, their rows and columns
    image_embeddings.i  [n_rows, hidden_size]   f32   of all images, one after the other
    image_logits.i      [n_tokens, vocab_size]  f32   at every position
    image_greedy.i      [24]                    i64   what follows greedily
"""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from make import COMMON, GREEDY_TOKENS, HERE, MARGIN_MIN, SMALL, Golden, expected, provenance

COMMAND = ".deps/python/bin/python stages/shard-forward/goldens/make_images.py"
VISION_START, VISION_END, IMAGE, VIDEO = 120, 121, 122, 123
PATCH, MERGE = 4, 2
# Rows and columns of embeddings, by prompt.
IMAGES = (((2, 3),), ((1, 4), (5, 2)), ((3, 3), (1, 1), (2, 6)))

GOLDEN = Golden(
    "qwen2-5-vl",
    seed=24,
    config={
        **SMALL,
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "max_window_layers": 3,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_config": {
            "depth": 2,
            "hidden_act": "silu",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "in_chans": 3,
            "out_hidden_size": COMMON["hidden_size"],
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "spatial_patch_size": PATCH,
            "temporal_patch_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
    },
    prompt_lengths=(1, 7, 33, 600),
)
PREPROCESSOR = {
    "min_pixels": 64,
    "max_pixels": 4096,
    "patch_size": PATCH,
    "temporal_patch_size": 2,
    "merge_size": MERGE,
    "image_processor_type": "Qwen2VLImageProcessor",
}


def write_config(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    config = {**COMMON, **GOLDEN.config}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")


def random_model(folder: Path):
    torch.manual_seed(GOLDEN.seed)
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:  # norms start as ones and biases as zeros, which would hide a missing one
                weight.add_(torch.randn_like(weight) * 0.3)
    return model


def save_decoder(model, folder: Path) -> None:
    """By the names of the Hub's checkpoints, which have the decoder under `model.` and the tower under `visual.`."""
    weights = {
        name.replace("model.language_model.", "model."): weight.contiguous()
        for name, weight in model.state_dict().items()
        if ".visual." not in name
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def logits_of(model, input_ids: Tensor, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
    return model(
        input_ids[None],
        pixel_values=pixel_values,
        image_grid_thw=grid_thw,
        mm_token_type_ids=(input_ids == IMAGE)[None].int(),
        use_cache=False,
    ).logits[0]


def greedy(model, input_ids: Tensor, pixel_values: Tensor, grid_thw: Tensor) -> tuple[Tensor, float]:
    ids, margin = input_ids, float("inf")
    for _ in range(GREEDY_TOKENS):
        best = logits_of(model, ids, pixel_values, grid_thw)[-1].topk(2)
        if best.indices[0] == IMAGE:  # transformers would look for one more image
            return ids, 0.0
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids = torch.cat((ids, best.indices[:1]))
    return ids[len(input_ids) :], margin


def prompt_with(images: tuple[tuple[int, int], ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids, and where each image begins with its rows and columns; a few tokens of text before, between and behind."""
    ids, grids = [], []
    text = lambda: torch.randint(3, VISION_START, (5,), generator=generator).tolist()  # noqa: E731
    for rows, columns in images:
        ids += [*text(), VISION_START]
        grids.append((len(ids), rows, columns))
        ids += [IMAGE] * (rows * columns) + [VISION_END]
    return torch.tensor(ids + text()), torch.tensor(grids)


@torch.no_grad()
def expected_with_images(model) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(GOLDEN.seed)
    tensors: dict[str, Tensor] = {}
    for i, images in enumerate(IMAGES):
        grid_thw = torch.tensor([(1, MERGE * rows, MERGE * columns) for rows, columns in images])
        margin = 0.0
        while margin < MARGIN_MIN:
            input_ids, grids = prompt_with(images, generator)
            pixel_values = torch.randn(int(grid_thw.prod(1).sum()), 3 * 2 * PATCH**2, generator=generator)
            greedy_ids, margin = greedy(model, input_ids, pixel_values, grid_thw)
        embeddings = torch.cat(list(model.model.get_image_features(pixel_values, grid_thw).pooler_output))
        logits = logits_of(model, input_ids, pixel_values, grid_thw)
        tensors[f"image_input_ids.{i}"], tensors[f"image_grids.{i}"] = input_ids, grids
        tensors[f"image_embeddings.{i}"] = embeddings.contiguous()
        tensors[f"image_logits.{i}"], tensors[f"image_greedy.{i}"] = logits.contiguous(), greedy_ids
        print(f"{GOLDEN.name}  {len(input_ids):3} tokens  images {images}  greedy margin {margin:.3f}")
    return tensors


def main() -> None:
    torch.set_num_threads(1)
    folder = HERE / GOLDEN.name
    write_config(folder)
    model = random_model(folder)
    save_decoder(model, folder)
    coarse = copy.deepcopy(model).to(torch.bfloat16)
    tensors = expected(GOLDEN, model, coarse) | expected_with_images(model)
    save_file(tensors, folder / "expected.safetensors", metadata={"provenance": provenance(GOLDEN, COMMAND)})


if __name__ == "__main__":
    main()
