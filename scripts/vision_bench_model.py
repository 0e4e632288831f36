"""Makes a LLaVA checkpoint of random weights with a CLIP ViT-B/16 tower, for `make bench-vision`.

    python vision_bench_model.py FOLDER

86 million parameters at 224 pixels: what a picture costs in a real, small model. The language model is a stub.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE_TOKEN = 299


def main() -> None:
    folder = Path(sys.argv[1])
    if (folder / "vision.onnx").is_file():
        return
    torch.manual_seed(1)
    vision = CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224, patch_size=16
    )
    text = LlamaConfig(
        vocab_size=300, hidden_size=768, intermediate_size=768, num_hidden_layers=2, num_attention_heads=12
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": 224, "width": 224}
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "crop_size": side,
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    subprocess.run([sys.executable, Path(__file__).with_name("convert_vision.py"), folder], check=True)


if __name__ == "__main__":
    main()
