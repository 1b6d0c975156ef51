"""Write an operation with a Triton kernel of its own, and check it against plain torch.

    python examples/custom_kernel.py

Without a GPU the kernel runs in Triton's interpreter, on CPU tensors; with one it is compiled.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import triton.language as tl

from tritone.kernels.runtime.launch import ARCHITECTURES, kernel, ready


@kernel()
def swiglu_kernel(hidden_ptr, out_ptr, width: tl.int32, BLOCK: tl.constexpr):
    # hidden [tokens, 2 * width], out [tokens, width]; a program for each token, which no neighbor can change
    token = tl.program_id(0).to(tl.int64)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        gate = tl.load(hidden_ptr + 2 * token * width + column, mask=column < width, other=0.0)
        value = tl.load(hidden_ptr + (2 * token + 1) * width + column, mask=column < width, other=0.0)
        tl.store(out_ptr + token * width + column, gate * tl.sigmoid(gate) * value, mask=column < width)


for architecture in ARCHITECTURES:  # nothing but a declared case is ever compiled
    types = dict.fromkeys(("hidden_ptr", "out_ptr"), torch.float32)
    swiglu_kernel.declare(architecture=architecture, pointers=types, BLOCK=64)


def swiglu(hidden: torch.Tensor) -> torch.Tensor:
    """SwiGLU of packed rows: float32 [tokens, 2 * width] to [tokens, width] (arXiv 2002.05202)."""
    out = hidden.new_empty(len(hidden), hidden.shape[1] // 2)
    swiglu_kernel.case(hidden.device).launch((len(hidden),), ready(hidden), out, out.shape[1])
    return out


if __name__ == "__main__":
    hidden = torch.randn(37, 2 * 101, device="cuda" if torch.cuda.is_available() else "cpu")
    gate, value = hidden.chunk(2, dim=-1)
    torch.testing.assert_close(swiglu(hidden), torch.nn.functional.silu(gate) * value)
    assert torch.equal(swiglu(hidden)[5:6], swiglu(hidden[5:6])), "a row depends on its neighbors"
    print("kernel and reference agree")
