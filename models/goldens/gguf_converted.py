"""Makes models/goldens/gguf_converted: what llama.cpp's converter makes of each checkpoint of stages/shard-forward/goldens, without
the weights: keys, names, and the tensors that belong to the rotary embedding. The embedding keeps its rows; other tensors are one
byte each.

    pip install gguf==0.19.0 numpy==2.4.6 torch==2.11.0 transformers==5.24.0
    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36 && tar xf llama_cpp_python-0.3.36.tar.gz
    python models/goldens/gguf_converted.py llama_cpp_python-0.3.36/vendor/llama.cpp

The checkpoints have no tokenizer, so that tokens are made up.
"""

import json
import runpy
import sys
import tempfile
from pathlib import Path

LLAMA_CPP = Path(sys.argv[1]).resolve()
sys.path[:0] = [str(LLAMA_CPP), str(LLAMA_CPP / "gguf-py")]

import gguf  # noqa: E402
import numpy as np  # noqa: E402
from conversion import gemma, llama, phi, qwen  # noqa: E402, F401
from conversion.base import TextModel  # noqa: E402

FOLDER = Path(__file__).parent / "gguf_converted"
CHECKPOINTS = Path(__file__).parents[2] / "stages/shard-forward/goldens"
# With images' positions.
NOT_WRITTEN = ("qwen2-5-vl",)
KEPT = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")


def made_up_tokens(model: TextModel) -> None:
    count = model.hparams["vocab_size"]
    writer = model.gguf_writer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(count)])
    writer.add_token_types([gguf.TokenType.NORMAL] * count)
    writer.add_bos_token_id(model.hparams["bos_token_id"])
    writer.add_eos_token_id(model.hparams["eos_token_id"])


def replace_vocabularies(kind: type) -> None:
    kind.set_vocab = made_up_tokens
    for other in kind.__subclasses__():
        replace_vocabularies(other)


def without_rows_cut(self, data, name, bid):
    """Gemma 3 cuts the embedding to the tokenizer's length, which it reads of a file that is not there."""
    yield from super(gemma.Gemma3Model, self).modify_tensors(data + self.norm_shift(name), name, bid)


def convert(checkpoint: Path, to: Path) -> None:
    sys.argv = ["convert_hf_to_gguf.py", str(checkpoint), "--outfile", str(to), "--outtype", "f32"]
    runpy.run_path(str(LLAMA_CPP / "convert_hf_to_gguf.py"), run_name="__main__")


def strip(source: Path, to: Path) -> None:
    reader = gguf.GGUFReader(source)
    fields = [field for name, field in reader.fields.items() if not name.startswith("GGUF.")]
    writer = gguf.GGUFWriter(to, fields[0].contents())
    for field in fields[1:]:
        kinds = field.types
        writer.add_key_value(field.name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)
    for tensor in reader.tensors:
        rows = int(tensor.shape[-1]) if tensor.name == "token_embd.weight" else 1
        data = tensor.data if tensor.name in KEPT else np.zeros((rows, 1), dtype=np.int8)
        writer.add_tensor(tensor.name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    replace_vocabularies(TextModel)
    gemma.Gemma3Model.modify_tensors = without_rows_cut
    with tempfile.TemporaryDirectory() as folder:
        for config in sorted(CHECKPOINTS.glob("*/config.json")):
            fields = json.loads(config.read_text())
            if fields["model_type"] == "bitnet" or "quantization_config" in fields:
                continue  # as here, which refuses them
            name = config.parent.name
            if name in NOT_WRITTEN:
                continue
            whole = Path(folder) / f"{name}.gguf"
            convert(config.parent, whole)
            strip(whole, FOLDER / whole.name)


if __name__ == "__main__":
    main()
