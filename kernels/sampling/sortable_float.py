"""Float32 numbers as int32 keys in the same order: what finds the largest of a row without a sort.

NaN is above infinity, as torch sorts it, and the two zeros are equal.
"""

from ..runtime.optional_triton import tl, triton

LOWEST_KEY = tl.constexpr(-(2**31))  # below the key of every number; minus infinity's is -2139095041
LOWEST_PACKED = tl.constexpr(-(2**63))  # below everything packed


@triton.jit
def order_key(values):
    """int32 keys of float32 values."""
    bits = tl.where(values == 0.0, 0.0, values).to(tl.int32, bitcast=True)
    # Among negative numbers larger bits are smaller numbers.
    return tl.where(values != values, 0x7F800001, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def value_of(key):
    """The float32 values of keys."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def packed(key, index):
    """Key and index in one int64: larger keys first, of equal keys the lower index (int32, from 0)."""
    return (key.to(tl.int64) << 32) | (0xFFFFFFFF - index.to(tl.int64))


@triton.jit
def key_of(pack):
    """The key packed with an index."""
    return (pack >> 32).to(tl.int32)


@triton.jit
def index_of(pack):
    """The index packed with a key, as int64."""
    return 0xFFFFFFFF - (pack & 0xFFFFFFFF)
