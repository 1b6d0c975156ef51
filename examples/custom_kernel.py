"""Layer normalization by a Triton kernel of one's own: checked, compiled, timed, and put into the engine.

    python examples/custom_kernel.py

Without a GPU the kernel runs in Triton's interpreter, and is compiled for sm_90 to show its registers.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

if __name__ == "__main__" and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported, and for all of the engine's kernels

import triton
import triton.language as tl

import tritone.kernels

ROOT = Path(__file__).parents[1]


@triton.jit
def rows_kernel(hidden_ptr, weight_ptr, bias_ptr, out_ptr, width, eps, BLOCK: tl.constexpr):
    # A program normalizes one row, [width] of hidden [rows, width]: no neighbor can change its bits.
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, BLOCK)
    inside = column < width
    hidden = tl.load(hidden_ptr + row + column, mask=inside, other=0.0).to(tl.float32)
    centered = tl.where(inside, hidden - tl.sum(hidden, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centered * centered, 0) / width + eps)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    out = centered * scale * weight + bias
    tl.store(out_ptr + row + column, out.to(out_ptr.dtype.element_ty), mask=inside)


def layer_norm(hidden, weight, bias, eps=1e-5, *, residual=None, activation=None):
    """Layer normalization of packed rows, float [rows, width], with the arguments of the shipped one."""
    if residual is not None or activation is not None:
        return NotImplemented  # the shipped kernel's
    hidden, out = hidden.contiguous(), torch.empty_like(hidden)
    width = hidden.shape[-1]
    block = triton.next_power_of_2(width)
    rows_kernel[hidden.numel() // width,](hidden, weight, bias, out, width, eps, BLOCK=block)
    return out


def main() -> None:
    """Compare it with the reference, show its compiled code, and transcribe a recording with it."""
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bench.kernels", "--solution", f"{__file__}:layer_norm", "--quick"]
    subprocess.run(command, cwd=ROOT, env=compiling, check=True)
    with tritone.kernels.use("layer_norm", layer_norm) as mine, tritone.Engine("digits") as engine:
        (result,) = engine.transcribe([ROOT / "samples" / "digits" / "two_digits_16k.wav"])
    print(f"{result.text} ({mine.calls} calls of layer_norm)")


if __name__ == "__main__":
    main()
