"""Writes quant.safetensors: blocks of every weight format with the f32 values the reference decoders give them, and weights with the
blocks the reference encoders give them. Run from the repository root: python tests/golden/make_quant.py

Needs numpy, safetensors, gguf (decoders and encoders of the ggml formats), and torch with bitsandbytes for nf4.
"""

import numpy as np
import torch
from bitsandbytes import functional as bnb
from gguf import GGMLQuantizationType as Type
from gguf import quants
from safetensors.numpy import save_file

rng = np.random.default_rng(20261123)

# Format -> offsets of the f16 fields in a block, which must be finite; all other bytes are random.
DECODED = {
    "F32": None,
    "F16": None,
    "BF16": None,
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}
# Scales that a careless decoder gets wrong: zero, negative, subnormal in f16, the largest f16.
HARD_SCALES = np.array([0.0, -0.03125, 6e-8, 65504.0], np.float16)


def random_blocks(name, offsets):
    kind = Type[name]
    weights, size = quants.GGML_QUANT_SIZES[kind]
    if offsets is None:  # plain floats: sixty-four random finite ones
        x = (rng.standard_normal(64) * 10.0 ** rng.integers(-6, 5, 64)).astype(np.float32)
        x[:4] = [0.0, -0.0, 65504.0, 6e-8]
        return quants.quantize(x, kind).view(np.uint8).reshape(64, size)
    count = 5 if weights == 32 else 3
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for field, offset in enumerate(offsets):
        scales = (rng.standard_normal(count) * 0.05).astype(np.float16)
        # One hard scale in each 256-wide format, all of them in each 32-wide one; a different one for each field.
        hard = len(HARD_SCALES) if weights == 32 else 1
        scales[-hard:] = np.roll(HARD_SCALES, field + weights + size)[:hard]
        blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(count, 2)
    return blocks


def hard_weights(block):
    """Rows of one block each: normal, tiny, large, one-sided, zeros, ties of the extreme, exact steps."""
    x = rng.standard_normal((7, block)).astype(np.float32)
    x[1] *= 1e-4
    x[2] *= 3e3
    x[3] = np.abs(x[3]) + 0.5
    x[4] = 0.0
    x[5, :4] = [-3.5, 3.5, -3.5, 3.5]
    x[6] = (np.arange(block) % 17 - 8) / 8
    return x


tensors = {}
for name, offsets in DECODED.items():
    blocks = random_blocks(name, offsets)
    values = quants.dequantize(blocks, Type[name]).astype(np.float32)
    assert np.isfinite(values).all(), name
    tensors[f"{name.lower()}.blocks"] = blocks
    tensors[f"{name.lower()}.values"] = values.reshape(blocks.shape[0], -1)

for name in ["Q4_0", "Q8_0", "F16", "BF16"]:
    x = hard_weights(32)
    tensors[f"{name.lower()}.encode_input"] = x
    tensors[f"{name.lower()}.encode_blocks"] = quants.quantize(x, Type[name]).view(np.uint8).reshape(7, -1)

# nf4 in bitsandbytes' own layout: codes with the high nibble first, scales apart. The test converts.
x = hard_weights(64)
packed, state = bnb.quantize_4bit(torch.from_numpy(x), blocksize=64, quant_type="nf4", compress_statistics=False)
tensors["nf4.encode_input"] = x
tensors["nf4.codes"] = packed.numpy().reshape(7, 32)
tensors["nf4.absmax"] = state.absmax.numpy()
tensors["nf4.values"] = bnb.dequantize_4bit(packed, state).numpy().reshape(7, 64)

save_file(tensors, "tests/golden/quant.safetensors")
