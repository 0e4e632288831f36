"""The tiny checkpoints of `make.py`: tokenizers, chat templates, processors and random weights.

Weights have the names, and files the layout, that the Hub's checkpoints have.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

HERE = Path(__file__).parent
CONVERT_VISION = HERE.parents[2] / "scripts" / "convert_vision.py"
INITIAL_STD = 0.2

# --- Tokenizers -------------------------------------------------------------------------------------------------------

N_BYTES = 256
LLAVA_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
ROWS_OR_COLUMNS_MAX = 6
SMOLVLM_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<global-img>",
    *(
        f"<row_{row}_col_{column}>"
        for row in range(1, ROWS_OR_COLUMNS_MAX + 1)
        for column in range(1, ROWS_OR_COLUMNS_MAX + 1)
    ),
    "<image>",
)

QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

LLAVA_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message['role'] != 'system' -%}
        {{- message['role'].upper() + ': ' -}}
    {%- endif -%}
    {%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}
        {{- '<image>\\n' -}}
    {%- endfor -%}
    {%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}
        {%- if message['role'] == 'assistant' -%}
            {% generation %}{{ part['text'] + ' ' }}{% endgeneration %}
        {%- else -%}
            {{- part['text'] + ' ' -}}
        {%- endif -%}
    {%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- 'ASSISTANT:' -}}
{%- endif -%}
"""

SMOLVLM_TEMPLATE = """\
<|im_start|>
{%- for message in messages -%}
    {{- message['role'] | capitalize -}}
    {{- ':' if message['content'][0]['type'] == 'image' else ': ' -}}
    {%- for part in message['content'] -%}
        {%- if part['type'] == 'text' -%}
            {{- part['text'] -}}
        {%- elif part['type'] == 'image' -%}
            {{- '<image>' -}}
        {%- endif -%}
    {%- endfor -%}
    {{- '<end_of_utterance>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- 'Assistant:' -}}
{%- endif -%}
"""


QWEN_TEMPLATE = """\
{%- for message in messages -%}
    {%- if loop.first and message['role'] != 'system' -%}
        {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}
    {%- endif -%}
    {{- '<|im_start|>' + message['role'] + '\n' -}}
    {%- if message['content'] is string -%}
        {{- message['content'] -}}
    {%- else -%}
        {%- for part in message['content'] -%}
            {%- if part['type'] == 'image' or 'image_url' in part -%}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
            {%- elif 'text' in part -%}
                {{- part['text'] -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""


def byte_tokenizer(special_tokens: tuple[str, ...]) -> Tokenizer:
    """One token per byte, ids below `N_BYTES`, then the special tokens in their order."""
    # Printable Latin-1 bytes stand for themselves; the others take the characters from U+0100 on, in order.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    vocab = {chr(byte if byte in printable else next(substitutes)): byte for byte in range(N_BYTES)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special_tokens])
    return tokenizer


def llava_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(LLAVA_TOKENS)
    # As Llama's: the template has no `<s>`, the tokenizer puts one before the text.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def smolvlm_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(SMOLVLM_TOKENS),
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        unk_token="<|endoftext|>",
        pad_token="<|im_start|>",
        extra_special_tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(QWEN_TOKENS), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def text_config(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> dict:
    return {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }


def llava_config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    return LlavaConfig(
        # Three rows more than there are tokens, as LLaVA-1.5 has 62 more.
        text_config=text_config(tokenizer, len(tokenizer) + 3),
        vision_config={
            "model_type": "clip_vision_model",
            "image_size": 56,
            "patch_size": 14,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "projection_dim": 32,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def smolvlm_config(tokenizer: PreTrainedTokenizerFast) -> SmolVLMConfig:
    return SmolVLMConfig(
        text_config=text_config(tokenizer, len(tokenizer)),
        vision_config={
            "image_size": 32,
            "patch_size": 8,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
    )


def qwen_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }
    text = text_config(tokenizer, len(tokenizer)) | {
        "model_type": "qwen2_5_vl_text",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            # Two by two embeddings.
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "out_hidden_size": text["hidden_size"],
        },
        **ids,
    )


def llava_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    return LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
        tokenizer,
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_TEMPLATE,
    )


def smolvlm_processor(tokenizer: PreTrainedTokenizerFast) -> SmolVLMProcessor:
    return SmolVLMProcessor(
        SmolVLMImageProcessorPil(size={"longest_edge": 96}, max_image_size={"longest_edge": 32}),
        tokenizer,
        SmolVLMVideoProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 32}),
        image_seq_len=4,
        chat_template=SMOLVLM_TEMPLATE,
    )


def qwen_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 12}
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessorPil(size=size),
        tokenizer,
        Qwen2VLVideoProcessor(size=size),
        chat_template=QWEN_TEMPLATE,
    )


def split_processor_files(folder: Path) -> None:
    """Turns the one `processor_config.json` of transformers 5 into the two files that the Hub's checkpoints have."""
    processor = json.loads((folder / "processor_config.json").read_text())
    preprocessor = processor.pop("image_processor")
    preprocessor["processor_class"] = processor["processor_class"]
    for name, config in (("processor_config.json", processor), ("preprocessor_config.json", preprocessor)):
        (folder / name).write_text(json.dumps(config, indent=2) + "\n")


# Names that users have on disk.
LLAVA_NAMES = (
    "language_model.model.embed_tokens.weight",
    "language_model.model.layers.0.self_attn.q_proj.weight",
    "language_model.lm_head.weight",
    "vision_tower.vision_model.embeddings.class_embedding",
    "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
    "multi_modal_projector.linear_1.weight",
)
SMOLVLM_NAMES = (
    "model.text_model.embed_tokens.weight",
    "model.text_model.layers.0.self_attn.q_proj.weight",
    "lm_head.weight",
    "model.vision_model.embeddings.patch_embedding.weight",
    "model.vision_model.encoder.layers.0.self_attn.q_proj.weight",
    "model.connector.modality_projection.proj.weight",
)


QWEN_NAMES = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "lm_head.weight",
    "visual.patch_embed.proj.weight",
    "visual.blocks.0.attn.qkv.weight",
    "visual.merger.mlp.0.weight",
)
TOKENIZERS = {"llava": llava_tokenizer, "smolvlm": smolvlm_tokenizer, "qwen2_5_vl": qwen_tokenizer}
CONFIGS = {"llava": llava_config, "smolvlm": smolvlm_config, "qwen2_5_vl": qwen_config}
PROCESSORS = {"llava": llava_processor, "smolvlm": smolvlm_processor, "qwen2_5_vl": qwen_processor}


@dataclass(frozen=True)
class Layout:
    name: str
    seed: int
    prefixes: dict[str, str]
    """Of the weights whose names transformers 5 saves otherwise than the Hub's checkpoints have them: new to old."""
    weight_names: tuple[str, ...]
    """Some of the names that the Hub's checkpoints have."""
    splits_images: bool

    @property
    def folder(self) -> Path:
        return HERE / self.name

    def processor(self):
        return PROCESSORS[self.name](TOKENIZERS[self.name]())

    def config(self, tokenizer: PreTrainedTokenizerFast):
        return CONFIGS[self.name](tokenizer)


LAYOUTS = (
    Layout(
        "llava",
        seed=5,
        prefixes={"vision_tower.": "vision_tower.vision_model."},
        weight_names=LLAVA_NAMES,
        splits_images=False,
    ),
    Layout("smolvlm", seed=5, prefixes={}, weight_names=SMOLVLM_NAMES, splits_images=True),
    Layout("qwen2_5_vl", seed=5, prefixes={}, weight_names=QWEN_NAMES, splits_images=False),
)


def random_model(layout: Layout, processor):
    torch.manual_seed(layout.seed)
    config = layout.config(processor.tokenizer)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:  # norms start as ones and biases as zeros, which would hide a missing one
                weight.add_(torch.randn_like(weight) * INITIAL_STD)
            else:
                weight.copy_(torch.randn_like(weight) * INITIAL_STD)
        # What is chosen is a byte, and not one of the many special tokens.
        model.lm_head.weight[N_BYTES:] *= 0.25
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def rename_weights(layout: Layout, file: Path) -> None:
    weights = {}
    for name, weight in load_file(file).items():
        prefix = next((new for new in layout.prefixes if name.startswith(new)), "")
        weights[layout.prefixes.get(prefix, "") + name.removeprefix(prefix)] = weight
    absent = set(layout.weight_names) - weights.keys()
    assert not absent, f"the Hub's checkpoints have {absent}"
    save_file(weights, file, metadata={"format": "pt"})


def write_checkpoint(layout: Layout):
    """Returns the model and the processor as they are read back from the files."""
    folder = layout.folder
    shutil.rmtree(folder, ignore_errors=True)
    processor = layout.processor()
    model = random_model(layout, processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if layout.name == "llava":
        split_processor_files(folder)
    rename_weights(layout, folder / "model.safetensors")

    loaded, info = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in model.state_dict().items())
    subprocess.run([sys.executable, CONVERT_VISION, folder], check=True)
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return loaded.eval(), processor
