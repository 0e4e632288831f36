"""Makes goldens/quant/*.bin, the blocks with which quantised formats are tested.

pip install gguf==0.19.0 numpy==2.4.6; python make.py

Each file, little endian: u32 blocks, u32 weights, u32 quantised bytes; the blocks, random with finite scales; the f32 that
gguf dequantises them to; then weights, f32, and the bytes that gguf quantises them to (both empty where it cannot).
"""

import importlib.metadata
import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

# The bytes at which f16 scales begin.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "TQ1_0": [52], "TQ2_0": [64], "IQ4_NL": [0], "IQ4_XS": [0],
}
WEIGHTS_MAX = 1024


def finite_f16(rng, count):
    """Any bits but those of infinities and NaN."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    return np.where(bits & 0x7C00 == 0x7C00, bits & 0xBFFF, bits).astype(np.uint16)


def weights(rng, elements):
    """Rows of very different kinds: Gaussian, tiny, zeros, constant, ternary, all of one sign, on halves between numbers."""
    gaussian = rng.standard_normal(WEIGHTS_MAX).astype(np.float32)
    x = gaussian.reshape(-1, elements).copy()
    kinds = [
        lambda r: r, lambda r: r * 1e-6, lambda r: r * 0, lambda r: r * 0 - 0.25, lambda r: np.sign(r) * 0.02,
        lambda r: np.abs(r), lambda r: -np.abs(r) - 1, lambda r: np.round(r * 8) / 16, lambda r: r * 1000,
    ]
    for i in range(len(x)):
        x[i] = kinds[i % len(kinds)](x[i])
    return x


def main():
    folder = pathlib.Path(__file__).parent / "quant"
    folder.mkdir(exist_ok=True)
    for seed, (name, scales) in enumerate(SCALES.items()):
        rng = np.random.default_rng(seed)
        qtype = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[qtype]
        count = WEIGHTS_MAX // elements
        blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for at in scales:
            blocks[:, at:at + 2] = finite_f16(rng, count).astype("<u2").view(np.uint8).reshape(-1, 2)
        values = dequantize(blocks, qtype)
        x = weights(rng, elements)
        try:
            quantised = quantize(x, qtype)
        except NotImplementedError:
            x, quantised = x[:0], blocks[:0]
        header = struct.pack("<III", count, x.size, quantised.size)
        parts = [blocks.tobytes(), values.astype("<f4").tobytes(), x.astype("<f4").tobytes(), quantised.tobytes()]
        (folder / f"{name}.bin").write_bytes(header + b"".join(parts))
    (folder / "VERSIONS").write_text(f"gguf {importlib.metadata.version('gguf')}, numpy {np.__version__}, by make.py\n")


if __name__ == "__main__":
    main()
