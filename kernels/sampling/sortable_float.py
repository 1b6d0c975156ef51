"""Sortable floats: float32 values as int32 keys in the same order, to find a row's largest without a sort.

NaN is above infinity, as torch sorts it, and the two zeros are equal.
"""

from ..runtime.optional_triton import tl, triton

LOWEST_KEY = tl.constexpr(-(2**31))  # below the key of every value; minus infinity's is -2139095041
LOWEST_PACKED = tl.constexpr(-(2**63))  # below every packed key


@triton.jit
def order_key(values):
    """Int32 keys of float32 values, in the order of the values."""
    bits = tl.where(values == 0.0, 0.0, values).to(tl.int32, bitcast=True)
    # Among negative values larger bits are smaller values.
    return tl.where(values != values, 0x7F800001, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def value_of(key):
    """Float32 values of keys from `order_key`."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def packed(key, index):
    """Pack a key and an int32 index from 0 into an int64 that sorts by key, then by descending index."""
    return (key.to(tl.int64) << 32) | (0xFFFFFFFF - index.to(tl.int64))


@triton.jit
def key_of(pack):
    """Key of a value from `packed`, as int32."""
    return (pack >> 32).to(tl.int32)


@triton.jit
def index_of(pack):
    """Index of a value from `packed`, as int64."""
    return 0xFFFFFFFF - (pack & 0xFFFFFFFF)
