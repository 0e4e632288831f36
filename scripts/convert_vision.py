"""Exports the vision encoder and the projector of a vision-language checkpoint to `vision.onnx` in its folder.

    python convert_vision.py MODEL_DIR [--output FILE]

MODEL_DIR is a Hugging Face checkpoint of one of these layouts, by the `model_type` in its `config.json`:

    llava                 a CLIP or SigLIP vision tower, one hidden layer of it, a projector
    idefics3, smolvlm     a vision model like SigLIP's, a connector with a pixel shuffle
    qwen2_5_vl            patches of an image at its own size, most layers within windows, a patch merger

The file takes the place of `get_image_features` in transformers, in f32:

    input  pixel_values  [n, 3, height, width]     f32   n images (llava) or full tiles (the others), n is dynamic
    output embeddings    [n, rows, hidden_size]    f32   what stands in for each one's image tokens

With qwen2_5_vl, for one image, all but `size` dynamic:

    input  pixel_values  [n_patches, size]         f32   as the image processor gives them
           positions     [n_patches, 2]            i64   row and column of each patch
           windows       [n_windows, window_len]   i64   which patches see each other in most layers, filled up with -1
           places        [n_patches]               i64   where each patch stands in `windows`, row after row
    output embeddings    [rows, hidden_size]       f32   n_patches / spatial_merge_size**2 of them

Weights that do not fit into it lie beside it in `FILE.data`. Before it gets its name, it is compared with transformers. Exit status: 0, 1 if it differs, 2 for any other error.
Needs torch, transformers, onnx, onnxscript and onnxruntime.
"""

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NoReturn

import onnx
import onnxruntime
import torch
import transformers
from torch import Tensor, nn
from torch.export import Dim
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

VISION_TOWERS = ("clip_vision_model", "siglip_vision_model")
# Relative to the largest reference value where that is above one: f32 has no digits left to ask for more.
ERROR_MAX = 1e-4
# Protobuf's limit for one message, less what the graph itself takes.
WEIGHT_BYTES_MAX = 2**31 - 2**24


class LlavaVision(nn.Module):
    """`[n, 3, height, width]` to `[n, rows, hidden_size]` by one hidden layer of the tower, then the projector."""

    def __init__(self, llava: PreTrainedModel):
        super().__init__()
        self.vision_tower = llava.vision_tower
        self.multi_modal_projector = llava.multi_modal_projector
        self.layer = llava.config.vision_feature_layer
        self.drops_cls = llava.config.vision_feature_select_strategy == "default"

    def forward(self, pixel_values: Tensor) -> Tensor:
        hidden_states = self.vision_tower(pixel_values, output_hidden_states=True).hidden_states[self.layer]
        return self.multi_modal_projector(hidden_states[:, 1:] if self.drops_cls else hidden_states)

    def dynamic(self) -> dict[str, dict[int, Dim]]:
        return {"pixel_values": {0: Dim("n")}}

    def examples(self, config: PreTrainedConfig) -> list[dict[str, Tensor]]:
        return examples_of_one_size(config)

    def reference(self, llava: PreTrainedModel, pixel_values: Tensor) -> Tensor:
        return torch.stack(list(llava.get_image_features(pixel_values).pooler_output))


class Idefics3Vision(nn.Module):
    """`[n, 3, height, width]` to `[n, rows, hidden_size]` for full tiles, which need no mask."""

    def __init__(self, idefics3: PreTrainedModel):
        super().__init__()
        self.vision_model = idefics3.vision_model
        self.connector = idefics3.connector
        self.register_buffer("positions", self.positions_of_full_tile())

    def positions_of_full_tile(self) -> Tensor:
        """The position embeddings that the model adds to every full tile, `[1, n_patches, vision_hidden_size]`.

        Observed and not computed, as the model finds them with roundings that depend on the size.
        """
        embeddings = self.vision_model.embeddings
        observed: list[Tensor] = []
        hook = embeddings.position_embedding.register_forward_hook(lambda _, args, output: observed.append(output))
        self.vision_model(torch.zeros(1, 3, embeddings.image_size, embeddings.image_size))
        hook.remove()
        return observed[0]

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.vision_model.embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        encoded = self.vision_model.encoder(inputs_embeds=patches + self.positions, attention_mask=None)
        return self.connector(self.vision_model.post_layernorm(encoded.last_hidden_state))

    def dynamic(self) -> dict[str, dict[int, Dim]]:
        return {"pixel_values": {0: Dim("n")}}

    def examples(self, config: PreTrainedConfig) -> list[dict[str, Tensor]]:
        return examples_of_one_size(config)

    def reference(self, idefics3: PreTrainedModel, pixel_values: Tensor) -> Tensor:
        n_tiles = pixel_values.shape[0]
        of_each_prompt = idefics3.get_image_features(pixel_values[None]).pooler_output
        return torch.cat(list(of_each_prompt)).view(n_tiles, -1, idefics3.config.text_config.hidden_size)


class Qwen25Vision(nn.Module):
    """`[n_patches, size]` to `[rows, hidden_size]`.

    The patches keep the processor's order: transformers brings them into that of the windows and back, which nothing but the order
    of sums depends on.
    """

    def __init__(self, qwen: PreTrainedModel):
        super().__init__()
        self.visual = qwen.visual
        self.config = qwen.config.vision_config

    def forward(self, pixel_values: Tensor, positions: Tensor, windows: Tensor, places: Tensor) -> Tensor:
        kernel = self.visual.patch_embed.proj.weight
        hidden_states = nn.functional.linear(pixel_values, kernel.flatten(1))
        rotation = self.visual.rotary_pos_emb(hidden_states, positions)
        for index, block in enumerate(self.visual.blocks):
            q, k, v = self.heads(block.attn, block.norm1(hidden_states), rotation)
            if index in self.config.fullatt_block_indexes:
                attended = self.attend_to_all(q, k, v)
            else:
                attended = self.attend_within(windows, places, q, k, v)
            hidden_states = hidden_states + block.attn.proj(attended)
            hidden_states = hidden_states + block.mlp(block.norm2(hidden_states))
        return self.visual.merger(hidden_states)

    def heads(self, attention: nn.Module, normed: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Queries, scaled, keys and values: `[n_heads, n_patches, head_dim]` each."""
        qkv = attention.qkv(normed).unflatten(1, (3, self.config.num_heads, -1))
        q, k, v = qkv.unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, *rotation)
        return (q * attention.scaling).transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)

    def attend_to_all(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A head after the other: the scores of all at once would be gigabytes for a large image."""
        heads = [(q[head] @ k[head].T).softmax(-1) @ v[head] for head in range(self.config.num_heads)]
        return torch.cat(heads, dim=1)

    def attend_within(self, windows: Tensor, places: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        inside = windows.clamp(min=0)
        unseen = torch.where(windows < 0, -torch.inf, 0.0)[None, :, None, :]
        q, k, v = q[:, inside], k[:, inside], v[:, inside]
        # [n_heads, n_windows, window_len, head_dim]
        attended = (q @ k.transpose(2, 3) + unseen).softmax(-1) @ v
        return attended.permute(1, 2, 0, 3).flatten(0, 1).flatten(1)[places]

    def dynamic(self) -> dict[str, dict[int, Dim]]:
        # Whole squares of patches become an embedding.
        n_patches = self.config.spatial_merge_size**2 * Dim("rows")
        return {
            "pixel_values": {0: n_patches},
            "positions": {0: n_patches},
            "windows": {0: Dim("n_windows")},
            "places": {0: n_patches},
        }

    def examples(self, config: PreTrainedConfig) -> list[dict[str, Tensor]]:
        """Images that fill windows and that do not, wide and tall; the first is the one to export with."""
        merge, window = config.vision_config.spatial_merge_size, self.window()
        sizes = ((window + merge, 2 * window + merge), (window, window), (merge, merge), (3 * window, merge))
        random = torch.Generator().manual_seed(0)
        patch, frames = config.vision_config.patch_size, config.vision_config.temporal_patch_size
        size = config.vision_config.in_channels * frames * patch**2
        return [
            {"pixel_values": torch.randn(rows * columns, size, generator=random), **self.places_in(rows, columns)}
            for rows, columns in sizes
        ]

    def window(self) -> int:
        """Side of a window in patches."""
        config = self.config
        return config.window_size // config.spatial_merge_size // config.patch_size * config.spatial_merge_size

    def places_in(self, rows: int, columns: int) -> dict[str, Tensor]:
        merge, window = self.config.spatial_merge_size, self.window()
        order = [
            (row + down, column + right)
            for row in range(0, rows, merge)
            for column in range(0, columns, merge)
            for down in range(merge)
            for right in range(merge)
        ]
        windows_a_row = -(-columns // window)
        windows = torch.full((windows_a_row * -(-rows // window), window**2), -1)
        number = [row // window * windows_a_row + column // window for row, column in order]
        inside = [row % window * window + column % window for row, column in order]
        windows[number, inside] = torch.arange(len(order))
        places = torch.tensor(number) * window**2 + torch.tensor(inside)
        return {"positions": torch.tensor(order), "windows": windows, "places": places}

    def reference(self, qwen: PreTrainedModel, pixel_values: Tensor, positions: Tensor, **_: Tensor) -> Tensor:
        rows, columns = (positions.amax(0) + 1).tolist()
        grid_thw = torch.tensor([[1, rows, columns]])
        return torch.cat(list(qwen.get_image_features(pixel_values, grid_thw).pooler_output))


def examples_of_one_size(config: PreTrainedConfig) -> list[dict[str, Tensor]]:
    """Batches of two, of one and of three images."""
    size = config.vision_config.image_size
    random = torch.Generator().manual_seed(0)
    images = torch.randn(3, config.vision_config.num_channels, size, size, generator=random)
    return [{"pixel_values": batch} for batch in (images[:2], images[:1], images)]


VISIONS = {
    "llava": LlavaVision,
    "idefics3": Idefics3Vision,
    "smolvlm": Idefics3Vision,
    "qwen2_5_vl": Qwen25Vision,
}


def fail(message: object, status: int = 2) -> NoReturn:
    first_line = str(message).strip().partition("\n")[0]
    print(f"convert_vision.py: {first_line}", file=sys.stderr)
    sys.exit(status)


def read_config(folder: Path) -> PreTrainedConfig:
    """Refuses what this script cannot export before any weight is read."""
    if not (folder / "config.json").is_file():
        fail(f"`{folder}` is not a folder with a `config.json`")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        fail(f"`{folder / 'config.json'}`: {error}")
    if config.model_type not in VISIONS:
        fail(f"model type `{config.model_type}` is none of {', '.join(VISIONS)}")
    if config.model_type == "qwen2_5_vl":
        if not isinstance(config.vision_config.patch_size, int):
            fail(f"patch size `{config.vision_config.patch_size}` is not one number")
        return config
    if config.model_type == "llava":
        if config.vision_config.model_type not in VISION_TOWERS:
            fail(f"vision tower `{config.vision_config.model_type}` is none of {', '.join(VISION_TOWERS)}")
        if not isinstance(config.vision_feature_layer, int):
            fail(f"vision feature layers `{config.vision_feature_layer}` are not one number")
    if not isinstance(config.vision_config.image_size, int):
        fail(f"image size `{config.vision_config.image_size}` is not one number")
    return config


def load(folder: Path, config: PreTrainedConfig) -> PreTrainedModel:
    """The model without its language model's layers and head, in f32."""
    config.text_config.num_hidden_layers = 0
    if config.model_type == "qwen2_5_vl":
        config.text_config.layer_types = []
    try:
        model, info = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        fail(f"`{folder}`: {error}")
    # transformers would leave these random.
    if missing := sorted(info["missing_keys"]):
        fail(f"`{folder}` lacks {len(missing)} weights, `{missing[0]}` among them")
    return model.eval()


def export(vision: nn.Module, example: dict[str, Tensor]) -> onnx.ModelProto:
    program = torch.onnx.export(
        vision,
        tuple(example.values()),
        input_names=list(example),
        output_names=["embeddings"],
        dynamic_shapes=vision.dynamic(),
        dynamo=True,
        verbose=False,
    )
    return without_traces(program.model_proto)


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops what the exporter notes about the Python source of each node, paths of this machine among it."""
    graph = model.graph
    for described in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        described.ClearField("metadata_props")
        described.ClearField("doc_string")
    return model


def largest_error(session: onnxruntime.InferenceSession, example: dict[str, Tensor], reference: Tensor) -> float:
    """Relative to the largest reference value, if that is above one."""
    (embeddings,) = session.run(["embeddings"], {name: tensor.numpy() for name, tensor in example.items()})
    if embeddings.shape != tuple(reference.shape):
        fail(f"shape {embeddings.shape} instead of {tuple(reference.shape)}", status=1)
    difference = (torch.from_numpy(embeddings) - reference).abs().max().item()
    return difference / max(1.0, reference.abs().max().item())


def check(vision: nn.Module, model: PreTrainedModel, examples: list[dict[str, Tensor]], file: Path) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for example in examples:
        reference = vision.reference(model, **example)
        error = largest_error(session, example, reference)
        print(f"{list(example['pixel_values'].shape)} to {list(reference.shape)}, error {error:.1e}", flush=True)
        # Written so that a NaN fails too.
        if not error <= ERROR_MAX:
            fail(f"the exported model is off by {error:.1e}", status=1)


@torch.no_grad()
def convert(folder: Path, output: Path) -> None:
    config = read_config(folder)
    print(f"loading {folder} ({config.model_type})", flush=True)
    model = load(folder, config)
    vision = VISIONS[config.model_type](model).eval()
    examples = vision.examples(config)
    print(f"exporting [n, {', '.join(map(str, examples[0]['pixel_values'].shape[1:]))}]", flush=True)
    exported = export(vision, examples[0])
    has_data_file = sum(weight.nbytes for weight in vision.parameters()) > WEIGHT_BYTES_MAX

    data_file = output.with_name(output.name + ".data")
    try:
        # A folder of its own, as the file names the one beside it.
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f"{output.name}.") as folder:
            partial = Path(folder) / output.name
            onnx.save(exported, partial, save_as_external_data=has_data_file, location=data_file.name)
            print("checking against transformers", flush=True)
            check(vision, model, examples, partial)
            if has_data_file:
                # The exporter keeps it to its owner; a service may run as another user.
                (Path(folder) / data_file.name).chmod(partial.stat().st_mode)
                os.replace(Path(folder) / data_file.name, data_file)
            else:
                data_file.unlink(missing_ok=True)
            os.replace(partial, output)
    except OSError as error:
        fail(error)
    written = [output, data_file] if has_data_file else [output]
    print("\n".join(f"wrote {file} ({file.stat().st_size:,} bytes)" for file in written))


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports a checkpoint's vision encoder and projector to ONNX.")
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: MODEL_DIR/vision.onnx")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # Of torch's exporter about its own code.
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("ignore", "# The axis name")
    convert(arguments.model_dir, arguments.output or arguments.model_dir / "vision.onnx")


if __name__ == "__main__":
    main()
