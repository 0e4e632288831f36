"""Makes models/goldens/gguf_files: GGUF files as the `gguf` package writes them, and what it reads in them.

    pip install gguf==0.19.0 numpy==2.4.6
    python models/goldens/gguf_files.py

Tests read the files, compare with `expected.json`, and write `types.gguf` anew to the same bytes.
"""

import json
from pathlib import Path

import gguf
import numpy as np

FOLDER = Path(__file__).parent / "gguf_files"
QUANTISED_HERE = ["BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"]
# The package reads these and cannot make them: blocks of any bytes, with scales that are finite.
BLOCKS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
NUMBERS = ["float16", "float32", "float64", "int8", "int16", "int32", "int64"]


def metadata(writer: gguf.GGUFWriter) -> None:
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60_000)
    writer.add_int16("test.i16", -30_000)
    writer.add_uint32("test.u32", 4_000_000_000)
    writer.add_int32("test.i32", -2_000_000_000)
    writer.add_uint64("test.u64", 2**63 + 1)
    writer.add_int64("test.i64", -(2**62))
    writer.add_float32("test.f32", 1e-5)
    writer.add_float64("test.f64", 1e-300)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "grüße 🙂")
    writer.add_array("test.strings", ["", "a", "▁Hello", "é"])
    writer.add_array("test.floats", [0.5, -1.25, 3.0])
    writer.add_array("test.integers", [1, -2, 3])
    writer.add_array("test.bools", [True, False, True])


def write_types(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "test")
    metadata(writer)
    rng = np.random.default_rng(1)
    for name in NUMBERS:
        # Sizes whose bytes need padding behind them.
        values = (100 * rng.standard_normal((3, 5))).astype(name)
        writer.add_tensor(f"number.{name}", values)
    rows = rng.standard_normal((2, 256)).astype(np.float32)
    for name in QUANTISED_HERE:
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(f"block.{name}", gguf.quants.quantize(rows, kind), raw_dtype=kind)
    for name in BLOCKS:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (2, 2, 256 // elements * size), dtype=np.uint8)
        writer.add_tensor(f"block.{name}", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_split(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "test", split_max_tensors=2)
    metadata(writer)
    for i in range(5):
        writer.add_tensor(f"part.{i}", np.full((i + 1, 3), i, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path) -> dict:
    reader = gguf.GGUFReader(path)
    return {
        "keys": [name for name in reader.fields if not name.startswith("GGUF.")],
        "tensors": {
            tensor.name: {
                "type": tensor.tensor_type.name,
                # The package keeps the order of the file.
                "shape": [int(size) for size in reversed(tensor.shape)],
                "bytes": tensor.data.tobytes().hex(),
            }
            for tensor in reader.tensors
        },
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    write_types(FOLDER / "types.gguf")
    write_split(FOLDER / "split.gguf")
    expected = {path.name: read(path) for path in sorted(FOLDER.glob("*.gguf"))}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


main()
