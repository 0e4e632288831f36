"""Exports the vision encoder and the projector of a vision-language checkpoint to `vision.onnx` in its folder.

    python convert_vision.py MODEL_DIR [--output FILE]

MODEL_DIR is a Hugging Face checkpoint of one of these layouts, by the `model_type` in its `config.json`:

    llava                 a CLIP or SigLIP vision tower, one hidden layer of it, a projector
    idefics3, smolvlm     a vision model like SigLIP's, a connector with a pixel shuffle

The file takes the place of `get_image_features` in transformers, in f32:

    input  pixel_values  [n, 3, height, width]     f32   n images (llava) or full tiles (the others), n is dynamic
    output embeddings    [n, rows, hidden_size]    f32   what stands in for each one's image tokens

Before it gets its name, it is compared with transformers. Exit status: 0, 1 if it differs, 2 for any other error.
Needs torch, transformers, onnx, onnxscript and onnxruntime.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import NoReturn

import onnx
import onnxruntime
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

MODEL_TYPES = ("llava", "idefics3", "smolvlm")
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

    def reference(self, idefics3: PreTrainedModel, pixel_values: Tensor) -> Tensor:
        n_tiles = pixel_values.shape[0]
        of_each_prompt = idefics3.get_image_features(pixel_values[None]).pooler_output
        return torch.cat(list(of_each_prompt)).view(n_tiles, -1, idefics3.config.text_config.hidden_size)


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
    if config.model_type not in MODEL_TYPES:
        fail(f"model type `{config.model_type}` is none of {', '.join(MODEL_TYPES)}")
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


def export(vision: nn.Module, pixel_values: Tensor) -> onnx.ModelProto:
    weight_bytes = sum(weight.nbytes for weight in vision.parameters())
    if weight_bytes > WEIGHT_BYTES_MAX:
        fail(f"the vision encoder's {weight_bytes:,} bytes do not fit into one ONNX file of 2 GiB")
    program = torch.onnx.export(
        vision,
        (pixel_values,),
        input_names=["pixel_values"],
        output_names=["embeddings"],
        dynamic_shapes={"pixel_values": {0: torch.export.Dim("n")}},
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


def largest_error(session: onnxruntime.InferenceSession, pixel_values: Tensor, reference: Tensor) -> float:
    """Relative to the largest reference value, if that is above one."""
    (embeddings,) = session.run(["embeddings"], {"pixel_values": pixel_values.numpy()})
    if embeddings.shape != tuple(reference.shape):
        fail(f"shape {embeddings.shape} instead of {tuple(reference.shape)}", status=1)
    difference = (torch.from_numpy(embeddings) - reference).abs().max().item()
    return difference / max(1.0, reference.abs().max().item())


@torch.no_grad()
def convert(folder: Path, output: Path) -> None:
    config = read_config(folder)
    print(f"loading {folder} ({config.model_type})", flush=True)
    model = load(folder, config)
    vision = LlavaVision(model) if config.model_type == "llava" else Idefics3Vision(model)
    vision.eval()

    size = config.vision_config.image_size
    random = torch.Generator().manual_seed(0)
    images = torch.randn(3, config.vision_config.num_channels, size, size, generator=random)
    print(f"exporting [n, {', '.join(map(str, images.shape[1:]))}]", flush=True)
    exported = export(vision, images[:2])

    partial = output.with_name(output.name + ".part")
    try:
        onnx.save(exported, partial)
        print("checking against transformers", flush=True)
        session = onnxruntime.InferenceSession(partial, providers=["CPUExecutionProvider"])
        for batch in (images[:1], images):
            reference = vision.reference(model, batch)
            error = largest_error(session, batch, reference)
            print(f"batch of {len(batch)}: {list(reference.shape)}, error {error:.1e}", flush=True)
            # Written so that a NaN fails too.
            if not error <= ERROR_MAX:
                fail(f"the exported model is off by {error:.1e}", status=1)
        os.replace(partial, output)
    except OSError as error:
        fail(error)
    finally:
        partial.unlink(missing_ok=True)
    print(f"wrote {output} ({output.stat().st_size:,} bytes)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports a checkpoint's vision encoder and projector to ONNX.")
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: MODEL_DIR/vision.onnx")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # Of torch's exporter about its own code.
    warnings.simplefilter("ignore", FutureWarning)
    convert(arguments.model_dir, arguments.output or arguments.model_dir / "vision.onnx")


if __name__ == "__main__":
    main()
