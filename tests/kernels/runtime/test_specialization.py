"""Ahead-of-time specializations against those of launches.

Triton itself is asked, in a process that does not interpret, for the specialization of the very arguments
that launches of the engine have.
"""

import subprocess
import sys

SCRIPT = """
import sys
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

import tritone
from tritone.kernels.runtime import dispatch, launch
from tritone.kernels.runtime.compilation import TARGETS, specialization
from tritone.kernels.runtime.packing import cumulative
from tritone.scheduler.request import GenerationOptions, Request

dispatch.interpreting = lambda: True  # CPU tensors go to the kernels, which are recorded and not launched
triton.knobs.amd.use_buffer_ops = False
seen, wrong = set(), []


def check(case, grid, *arguments):
    if 0 in grid:
        return
    arguments = case.prepare(arguments)
    for architecture, target in TARGETS.items():
        case = case.kernel.cases[architecture, case.key]
        function, types, known = specialization(case)
        backend = make_backend(GPUTarget(*target))
        bind = create_function_from_signature(function.signature, function.params, backend)
        bound, special, options = bind(*arguments, **dict(case.constants), **case.options)
        _, signature, constants, attributes = function._pack_args(
            backend, dict(case.options), bound, special, options
        )
        attributes = {place: found for place, found in attributes.items() if found}
        named = {function.arg_names[place]: value for (place,), value in constants.items()}
        if (signature, attributes, named) != (types, known, dict(case.constants)):
            wrong.append(f"{case.label} for {architecture}: {signature} {attributes} {named}")
    seen.add(case.label)


launch.Case.launch = check

from tritone.kernels.sampling import append, beams, candidates, step_inputs
from tritone.kernels.slots import admit, finished, gather

ends = append._append, step_inputs._step_inputs, candidates._top_candidates, beams._advance_beams
for operation in (*ends, admit._admit, gather._gather, finished._finished):  # whose results end requests
    def both(*given, _triton=operation.triton, _reference=operation.reference, **named):
        _triton(*given, **named)
        return _reference(*given, **named)

    operation.triton = both

with torch.inference_mode():
    for width, heads in ((256, 4), (36, 1)):
        config = tritone.Speech2TextConfig(
            d_model=width, encoder_attention_heads=heads, decoder_attention_heads=heads,
            encoder_layers=1, decoder_layers=1, encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width,
            conv_channels=64, vocab_size=16 * heads + 1 if heads == 1 else 10000,
        )
        for dtype in (torch.float32, torch.float16):
            model = tritone.Speech2TextForConditionalGeneration(config).to(dtype).eval()
            features, cu_frames = tritone.Speech2TextFeatureExtractor().extract_packed(
                torch.randn(9001), cumulative([1, 4000, 5000])
            )
            encode, decode = model.encode, model.decode
            noise = lambda tensor: tensor.normal_()
            model.encode = lambda *given: tuple(
                noise(part) if part.is_floating_point() else part for part in encode(*given)
            )
            model.decode = lambda *given: noise(decode(*given))
            # Rows of 1 and 16, and lengths beside them: what Triton specializes on by itself.
            for rows in (1, 16, 17):
                loop = model.generation_loop(num_pages=200, num_rows=20)
                for index in range(rows):
                    beams = 3 if rows == 1 else 1
                    options = GenerationOptions(max_length=2, eos_token_ids=(), num_beams=beams)
                    loop.submit(Request(index, torch.randn(16 + index, 80).to(dtype), options))
                loop.step()

from tritone.kernels.sampling import candidates, draw, warping
for vocabulary in (1, 16, 10000, 14):
    for rows in (1, 5):
        scores = torch.randn(rows, vocabulary)
        numbers = torch.arange(rows)
        draw.greedy(scores.half())
        draw.draw(scores, scores, numbers, numbers, numbers)
        candidates.top_candidates(scores, 1)
        warping.warp(scores, temperature=0.7, top_k=5, top_p=0.9)

from tritone.kernels.conv import normalized, positional, waveform
from tritone.kernels.norm import group_norm, layer_norm
from tritone.kernels.pooling import mean_pool
with torch.inference_mode():
    for dtype in (torch.float32, torch.float16):
        for channels in (1, 16, 10, 144):
            # An utterance, 16 outputs of one, and lengths beside them.
            for lengths in ([85], [1, 90, 400], [16] * 16):
                ones = lambda *shape: torch.ones(shape, dtype=dtype)
                cu = cumulative(lengths)
                samples, hidden, weight = ones(sum(lengths), 1), ones(sum(lengths), channels), ones(channels)
                taps = ones(channels, 1, 10)
                waveform.waveform_conv(samples, cu, taps, None, stride=5)
                normalized.normalized_conv(samples, cu, taps, weight, weight, stride=5)
                for name in (None, "gelu"):
                    waveform.waveform_conv(
                        hidden, cu, ones(channels, channels, 2), weight, stride=1, activation=name
                    )
                    positional.positional_conv(
                        hidden, cu, ones(channels, channels, 3), None, groups=1, activation=name
                    )
                group_norm.group_norm(hidden, cu, channels, weight, weight, activation="gelu")
                layer_norm.layer_norm(hidden, weight, weight, activation="gelu")
                mean_pool.mean_pool(hidden, cu)

print(len(seen), "cases asked for:", *sorted(seen), sep="\\n")
print(*wrong, sep="\\n", file=sys.stderr)
sys.exit(bool(wrong) or len(seen) < 40)
"""


def test_triton_would_specialize_each_launch_as_it_is_compiled_ahead_of_time(tmp_path):
    script = tmp_path / "specialization.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "fbank" in done.stdout
    assert "linear decode plain fp16 aligned" in done.stdout
    assert "implicit_gemm gelu fp16 aligned wide" in done.stdout
    assert "first_layer fp32 any" in done.stdout
    assert "mean_pool_pieces fp16 aligned" in done.stdout
    assert "mean_pool fp32 any" in done.stdout
