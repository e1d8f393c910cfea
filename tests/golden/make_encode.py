"""Writes encode.safetensors: weights and the blocks that gguf-py makes of them, for the formats that make_quant.py has no encoder for.

    python tests/golden/make_encode.py
"""

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants
from safetensors.numpy import save_file

rng = np.random.default_rng(20261124)
tensors = {}
for name in ["Q4_1", "Q5_0", "Q5_1"]:
    # Rows of one block each: normal, tiny, large, one-sided, zeros, equal, ties of the extremes, exact steps.
    x = rng.standard_normal((8, 32)).astype(np.float32)
    x[1] *= 1e-4
    x[2] *= 3e3
    x[3] = np.abs(x[3]) + 0.5
    x[4] = 0.0
    x[5] = 0.375
    x[6, :4] = [-3.5, 3.5, -3.5, 3.5]
    x[7] = (np.arange(32) % 17 - 8) / 8
    tensors[f"{name.lower()}.encode_input"] = x
    tensors[f"{name.lower()}.encode_blocks"] = quants.quantize(x, Type[name]).view(np.uint8).reshape(8, -1)
save_file(tensors, "tests/golden/encode.safetensors")
