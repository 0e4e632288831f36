"""Makes the golden files of vision-language serving: pictures, tiny random checkpoints, and what transformers does.

    .deps/python/bin/python tests/goldens/vision/make.py [LAYOUT]...

`images/` holds the pictures, each for what may go wrong:

    portrait.png   75 x 120    RGB, taller than wide, odd width
    rotated.jpg   144 x 90     EXIF orientation 6: shown 90 x 144, so a reader without EXIF gets rows for columns.
                               4:4:4, as decoders differ in how they enlarge subsampled colour
    clear.png      48 x 40     RGBA, alpha from 0 to 255, with colour where nothing shows; both models enlarge it
    wide.gif      200 x 48     a palette of 64 colours, four times wider than tall
    small.webp     41 x 40     lossless, almost square: the sides round to different sizes

`llava/` has the layout of LLaVA-1.5 (a CLIP tower, 16 patches), its image processor in `preprocessor_config.json` as
the Hub's checkpoints have it; `smolvlm/` that of SmolVLM (up to 3 x 3 tiles and then the whole, 4 embeddings each), its
image processor within `processor_config.json` as transformers 5 saves it; `qwen2_5_vl/` that of Qwen2.5-VL (up to 12 embeddings of
2 x 2 patches), saved in the same way. All have `vision.onnx`, made by `scripts/convert_vision.py`, and

    pixels.safetensors       FILE  [n, 3, height, width]    f32   the picture preprocessed: n is 1, or its tiles
    embeddings.safetensors   FILE  [n, rows, hidden_size]   f32   those encoded and projected
    golden.json              chats with their prompts, logits and greedy choices

with [n_patches, size] and [1, rows, hidden_size] in qwen2_5_vl

where `unsplit/FILE` is the picture with `do_image_splitting` off. A case of `golden.json` is

    messages               with OpenAI's content parts, whose `url` is a file in `images/`
    do_image_splitting     smolvlm: whether it is on, as in `processor_config.json`, or off
    images                 {file, tiles, rows, grid} in the order of the prompt: `rows` embeddings in all, of `grid`
                           [rows, columns] of tiles, [0, 0] for one that is not split; qwen2_5_vl: of embeddings
    rendered, expanded     the chat template's text with a generation prompt, and it with each `<image>` expanded
    ids                    of `expanded`, with the token that the tokenizer puts before a text, if it does
    logits                 at the last position, f32
    greedy_ids             the 12 ids that follow greedily, each a byte's
    smallest_margin        by how much the least certain of those choices led, in logits

Beside the cases it has `image_token_id` and `rows_per_tile`, the embeddings of one tile, where all have as many.

All in f32 with eager attention and the PIL image processors, whose resampling is Pillow's: torchvision's bicubic
differs by one level, and its substitute for Lanczos by thirty. Pictures are turned by their EXIF orientation first, as
transformers does when it reads them. Then `convert_to_rgb` of both processors lays alpha over white; it is not dropped,
as `Image.convert("RGB")` alone would do. Since version 13 Pillow resizes columns before rows where the height shrinks
by more than twice the pixels that the width does: `unsplit/portrait.png` and `unsplit/rotated.jpg` are such.
"""

import json
import platform
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
import PIL
import tokenizers
import torch
import torchvision
import transformers
from PIL import Image, ImageDraw, ImageOps
from safetensors.torch import save_file
from torch import Tensor

from checkpoints import LAYOUTS, N_BYTES, Layout, write_checkpoint

HERE = Path(__file__).parent
IMAGES = HERE / "images"
COMMAND = ".deps/python/bin/python tests/goldens/vision/make.py"
VERSIONS = {
    "torch": torch.__version__,
    "torchvision": torchvision.__version__,
    "transformers": transformers.__version__,
    "tokenizers": tokenizers.__version__,
    "pillow": PIL.__version__,
    "onnx": onnx.__version__,
    "onnxruntime": onnxruntime.__version__,
    "python": platform.python_version(),
}
GREEDY_TOKENS = 12
# A hundred times what f32 logits of two implementations differ by.
MARGIN_MIN = 0.01

# --- Pictures ---------------------------------------------------------------------------------------------------------


def picture(width: int, height: int) -> Image.Image:
    """A gradient of another colour in each corner under a few shapes: no turn or mirror image of it is the same."""
    x = numpy.linspace(0.0, 1.0, width)[None, :].repeat(height, 0)
    y = numpy.linspace(0.0, 1.0, height)[:, None].repeat(width, 1)
    image = Image.fromarray((numpy.stack((x, y, (1 - x) * (1 - y)), axis=-1) * 255).astype(numpy.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 10, height // 8, width // 2, height // 2), fill=(240, 230, 20))
    draw.rectangle((width * 6 // 10, height * 5 // 10, width * 9 // 10, height * 7 // 10), fill=(20, 60, 220))
    draw.line((0, height - 1, width // 3, height * 6 // 10), fill=(255, 255, 255), width=2)
    return image


def make_images() -> None:
    IMAGES.mkdir(exist_ok=True)
    picture(75, 120).save(IMAGES / "portrait.png", optimize=True)

    orientation = Image.Exif()
    orientation[0x0112] = 6
    stored = picture(90, 144).transpose(Image.Transpose.ROTATE_90)
    stored.save(IMAGES / "rotated.jpg", quality=92, subsampling=0, exif=orientation)

    clear = picture(48, 40)
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(IMAGES / "clear.png", optimize=True)

    picture(200, 48).quantize(64).save(IMAGES / "wide.gif")
    picture(41, 40).save(IMAGES / "small.webp", lossless=True)


def load_image(file: str) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(IMAGES / file))


FILES = ("portrait.png", "rotated.jpg", "clear.png", "wide.gif", "small.webp")

# --- Chats ------------------------------------------------------------------------------------------------------------


def text(content: str) -> dict:
    return {"type": "text", "text": content}


def image(file: str) -> dict:
    return {"type": "image_url", "image_url": {"url": file}}


def message(role: str, *parts: dict) -> dict:
    return {"role": role, "content": list(parts)}


ONE_IMAGE = [message("user", image("portrait.png"), text("What is this?"))]
CHATS = (
    ONE_IMAGE,
    [message("user", text("Which way up is "), image("rotated.jpg"))],
    [message("user", image("clear.png"), image("wide.gif"), text("Compare."))],
    [
        message("user", image("small.webp"), text("Name the colours.")),
        message("assistant", text("Yellow, blue.")),
        message("user", text("And "), image("portrait.png"), text(" here?")),
    ],
    [
        message("system", text("Be brief.")),
        message("user", text("Hello!")),
        message("assistant", text("Hi.")),
        message("user", text("What is 2 + 3?")),
    ],
)

# --- Golden files -----------------------------------------------------------------------------------------------------


def encode_images(layout: Layout, model, processor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Each picture's pixel values and its embeddings, by the names that the files have."""
    options = {file: {} for file in FILES}
    if layout.splits_images:
        options |= {f"unsplit/{file}": {"do_image_splitting": False} for file in FILES}
    pixels, embeddings = {}, {}
    for name, option in options.items():
        images = [load_image(Path(name).name)]
        inputs = processor.image_processor(images, return_tensors="pt", **option)
        features = torch.cat(list(model.get_image_features(**inputs).pooler_output))
        if "image_grid_thw" in inputs:
            pixels[name], n_tiles = inputs.pixel_values.contiguous(), 1
        else:
            pixels[name] = inputs.pixel_values.flatten(0, -4).contiguous()
            n_tiles = pixels[name].shape[0]
        embeddings[name] = features.view(n_tiles, -1, features.shape[-1]).contiguous()
    return pixels, embeddings


def files_of(messages: list[dict]) -> list[str]:
    return [part["image_url"]["url"] for turn in messages for part in turn["content"] if part["type"] == "image_url"]


def expand(rendered: str, processor, images: list[Image.Image], option: dict) -> tuple[str, list[list[int]]]:
    """The text with each `<image>` replaced as the processor does, and each image's grid."""
    inputs = processor.image_processor(images, return_tensors="pt", **option)
    pieces = rendered.split(processor.image_token)
    replacements = [processor.replace_image_token(inputs, index) for index in range(len(images))]
    expanded = pieces[0] + "".join(new + piece for new, piece in zip(replacements, pieces[1:], strict=True))
    if "image_grid_thw" in inputs:
        merge = processor.image_processor.merge_size
        return expanded, [[rows // merge, columns // merge] for _, rows, columns in inputs["image_grid_thw"].tolist()]
    if "rows" not in inputs:
        return expanded, [[0, 0]] * len(images)
    (rows,), (columns,) = inputs["rows"], inputs["cols"]
    return expanded, [list(grid) for grid in zip(rows, columns, strict=True)]


def greedy(model, inputs: dict) -> tuple[Tensor, list[int], float]:
    """The last logits, the ids that follow without a KV cache, and the smallest lead of a choice over the second."""
    inputs = dict(inputs)
    last_logits, new_ids, margin = None, [], float("inf")
    while len(new_ids) < GREEDY_TOKENS:
        logits = model(**inputs, use_cache=False).logits[0, -1]
        last_logits = logits if last_logits is None else last_logits
        best = logits.topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        new_ids.append(best.indices[0].item())
        assert new_ids[-1] < N_BYTES, "another seed is needed: a choice is no byte"
        inputs["input_ids"] = torch.cat((inputs["input_ids"], best.indices[None, :1]), dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 1))
    assert margin >= MARGIN_MIN, f"another seed is needed: a choice led by {margin:.4f} only"
    return last_logits, new_ids, margin


def case(layout: Layout, model, processor, messages: list[dict], option: dict, embeddings: dict[str, Tensor]) -> dict:
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    files = files_of(messages)
    images = [load_image(file) for file in files]
    row_col = {"return_row_col_info": True} if layout.splits_images else {}
    expanded, grids = expand(rendered, processor, images, option | row_col) if images else (rendered, [])
    inputs = processor(text=rendered, images=images or None, return_tensors="pt", **(option if images else {}))
    ids = inputs["input_ids"][0].tolist()
    assert ids == processor.tokenizer(expanded).input_ids

    of_image = [embeddings[f"unsplit/{file}" if option else file] for file in files]
    rows = [rows.shape[0] * rows.shape[1] for rows in of_image]
    assert ids.count(model.config.image_token_id) == sum(rows)
    logits, greedy_ids, margin = greedy(model, inputs)
    print(
        f"{layout.name}  {len(ids):3} tokens, {sum(rows):2} of images"
        f"  logit std {logits.std().item():.2f}  greedy margin {margin:.3f}"
    )
    return {
        "messages": messages,
        **({"do_image_splitting": not option} if layout.splits_images else {}),
        "images": [
            {"file": file, "tiles": tiles.shape[0], "rows": n_rows, "grid": grid}
            for file, tiles, n_rows, grid in zip(files, of_image, rows, grids, strict=True)
        ],
        "rendered": rendered,
        "expanded": expanded,
        "ids": ids,
        # The shortest decimals that read back as the same f32.
        "logits": [float(str(logit)) for logit in logits.numpy()],
        "greedy_ids": greedy_ids,
        "smallest_margin": round(margin, 4),
    }


@torch.no_grad()
def make(layout: Layout) -> None:
    model, processor = write_checkpoint(layout)
    pixels, embeddings = encode_images(layout, model, processor)
    cases = [case(layout, model, processor, messages, {}, embeddings) for messages in CHATS]
    if layout.splits_images:
        cases.append(case(layout, model, processor, ONE_IMAGE, {"do_image_splitting": False}, embeddings))
    provenance = {
        "command": COMMAND,
        "model": f"random weights, seed {layout.seed}, f32, eager attention",
        "image_processor": type(processor.image_processor).__name__,
        "processor": type(processor).__name__,
        "versions": VERSIONS,
    }
    for name, tensors in (("pixels", pixels), ("embeddings", embeddings)):
        # One metadata key: with several, safetensors writes them in an order that differs from run to run.
        metadata = {"provenance": json.dumps(provenance)}
        save_file(tensors, layout.folder / f"{name}.safetensors", metadata=metadata)
    golden = provenance | {
        "image_token_id": model.config.image_token_id,
        **({} if layout.name == "qwen2_5_vl" else {"rows_per_tile": embeddings[FILES[0]].shape[1]}),
        "cases": cases,
    }
    (layout.folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")


def main() -> None:
    """Those that are named, or all."""
    names = sys.argv[1:]
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    make_images()
    for layout in LAYOUTS:
        if not names or layout.name in names:
            make(layout)


if __name__ == "__main__":
    main()
