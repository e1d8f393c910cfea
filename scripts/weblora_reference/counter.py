"""The documented counter-based generator: every initial adapter weight and every synthetic weight comes from it.

    seed   = FNV-1a 64 of the UTF-8 key "{seed}/{parameter name}"
    bits_i = splitmix64_finalise(seed + i * 0x9E3779B97F4A7C15)       for element i = 1, 2, ... in row-major order
    value  = (2 k + 1 - 2**23) * 2**-23 * bound, k = top 23 bits      computed in float64, rounded once to float32
"""

import numpy as np

GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def fnv1a_64(key: str) -> int:
    """FNV-1a, 64 bits, of the UTF-8 bytes of `key`."""
    state = 0xCBF29CE484222325
    for byte in key.encode("utf-8"):
        state = ((state ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return state


def bits(key: str, count: int) -> np.ndarray:
    """The first `count` 64-bit values of the stream named `key`, as uint64."""
    with np.errstate(over="ignore"):
        index = np.arange(1, count + 1, dtype=np.uint64)
        z = np.uint64(fnv1a_64(key)) + index * np.uint64(GOLDEN_GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seed: int, name: str, shape: tuple[int, ...], bound: float) -> np.ndarray:
    """float32 array of `shape`, uniform in (-bound, bound), for the parameter `name` of a run with `seed`."""
    k = (bits(f"{seed}/{name}", int(np.prod(shape))) >> np.uint64(41)).astype(np.int64)
    return ((2 * k + 1 - 2**23).astype(np.float64) * 2.0**-23 * bound).astype(np.float32).reshape(shape)


def integers(key: str, count: int, limit: int) -> np.ndarray:
    """`count` integers in [0, limit) from the stream named `key` (top 32 bits, modulo: the bias is of no matter here)."""
    return ((bits(key, count) >> np.uint64(32)) % np.uint64(limit)).astype(np.int64)
