"""Cases of the encoder: from the waveform to its first layer, and attention over whole sequences."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tritone.kernels.attention.flash import flash_attention, flash_attention_reference
from tritone.kernels.conv.normalized import normalized_conv, normalized_conv_reference
from tritone.kernels.conv.padded import padded_conv, padded_conv_reference
from tritone.kernels.conv.positional import positional_conv, positional_conv_reference
from tritone.kernels.conv.subsample import conv_subsample, conv_subsample_reference
from tritone.kernels.conv.waveform import waveform_conv, waveform_conv_reference
from tritone.kernels.embedding import add_positions, add_positions_reference
from tritone.kernels.features.fbank import fbank, fbank_reference
from tritone.kernels.norm.group_norm import group_norm, group_norm_reference
from tritone.kernels.norm.utterance_cmvn import utterance_cmvn, utterance_cmvn_reference
from tritone.kernels.pooling.mean_pool import mean_pool, mean_pool_reference

from ..common.roofline import Work
from ..common.shapes import Batch
from . import peers
from .cases import HALF, Case, Prepared, Setup, last_alone, last_channels, last_padded

MEL_BINS, CONV_KERNEL = 80, 5


def filter_bank(batch: Batch) -> Case:
    frames, samples = sum(batch.frames), sum(batch.samples)
    # A frame's fast Fourier transform of 512 real samples; the steps on 400 samples before it; power, and two
    # triangles over each of 257 lines. Or both linear steps as products with matrices.
    fast = 2.5 * 512 * 9 + 4 * 400 + 7 * 257
    dense = 2 * 400 * 2 * 257 + 2 * 257 * MEL_BINS

    def prepare(setup: Setup) -> Prepared:
        cu_samples = setup.offsets(batch.samples)
        waveforms = setup.random(samples, dtype=torch.float32, scale=1000.0)
        wanted = last_alone(fbank_reference, waveforms[0], batch.samples, dtype=torch.float64)
        count = len(wanted)
        # Rounding is 1e-4 of the frame's peak; a logarithm near 13 keeps all of that in four digits.
        prepared = Prepared.of(lambda i: fbank(waveforms[i], cu_samples)[0], wanted, 1e-3)
        try:
            one = peers.torchaudio_fbank()
        except (ImportError, OSError) as error:
            prepared.missing["torchaudio"] = str(error).splitlines()[0]
        else:
            prepared.beside(
                "torchaudio",
                lambda i: [one(waveform) for waveform in waveforms[i].split(batch.samples)],
                lambda out: out[-1],
            )
        if batch.size <= 256:
            many = [peers.padded(waveform, batch.samples) for waveform in waveforms]
            prepared.beside("torch, padded", lambda i: peers.batched_fbank(many[i]), last_padded(count))
        return prepared

    work = Work(frames * fast, 4 * (samples + frames * MEL_BINS), frames * dense)
    return Case("fbank", batch.model.name, batch.size, "real lengths", work, prepare, frozenset({"fbank"}))


def cmvn(batch: Batch) -> Case:
    frames, last = sum(batch.frames), batch.frames[-1]

    def prepare(setup: Setup) -> Prepared:
        cu_frames = setup.offsets(batch.frames)
        features = [
            tensor.add_(5.0) for tensor in setup.random(frames, MEL_BINS, dtype=torch.float32, scale=3.0)
        ]
        wanted = last_alone(utterance_cmvn_reference, features[0], batch.frames, dtype=torch.float64)
        many = [peers.padded(tensor, batch.frames) for tensor in features]
        mask = peers.mask_of(batch.frames, setup.device)
        ours = Prepared.of(lambda i: utterance_cmvn(features[i], cu_frames), wanted, 1e-4)
        return ours.beside("torch, padded", lambda i: peers.normalized(many[i], mask), last_padded(last))

    size = frames * MEL_BINS
    work = Work(6 * size, 8 * size)
    return Case("utterance_cmvn", batch.model.name, batch.size, "real lengths", work, prepare)


def conv(batch: Batch, layer: int) -> Case:
    model = batch.model
    lengths, out_lengths = (batch.frames, batch.halves) if layer == 1 else (batch.halves, batch.tokens)
    channels, outputs = (MEL_BINS, model.conv) if layer == 1 else (model.conv // 2, 2 * model.width)

    def prepare(setup: Setup) -> Prepared:
        frames = setup.random(sum(lengths), channels)
        weight = setup.random(outputs, channels, CONV_KERNEL, scale=(channels * CONV_KERNEL) ** -0.5)[0]
        bias = setup.random(outputs)[0]
        cu_frames = setup.offsets(lengths)
        wanted = last_alone(conv_subsample_reference, frames[0], lengths, weight, bias)
        many = [peers.channels_first(tensor, lengths) for tensor in frames]
        return Prepared.of(
            lambda i: conv_subsample(frames[i], cu_frames, weight, bias)[0], wanted, setup.error
        ).beside("conv1d + GLU", lambda i: peers.conv_glu(many[i], weight, bias), last_channels(len(wanted)))

    steps, size = sum(out_lengths), outputs * channels * CONV_KERNEL
    work = Work(2 * steps * size, HALF * (sum(lengths) * channels + size + steps * outputs // 2))
    shape = f"layer {layer}, {channels} to {outputs // 2} channels"
    return Case("conv_subsample", model.name, batch.size, shape, work, prepare, frozenset({"conv"}))


def padded_layer(batch: Batch, stride: int) -> Case:
    """Whisper's first convolution, from mels, or its second, which halves the frame rate."""
    width, lengths = batch.model.width, batch.frames
    channels = MEL_BINS if stride == 1 else width
    out_lengths = lengths if stride == 1 else batch.halves

    def prepare(setup: Setup) -> Prepared:
        frames = setup.random(sum(lengths), channels)
        weight, bias = (
            setup.random(width, channels, 3, scale=(3 * channels) ** -0.5)[0],
            setup.random(width)[0],
        )
        cu_frames = setup.offsets(lengths)
        options = {"stride": stride, "activation": "gelu"}
        wanted = last_alone(padded_conv_reference, frames[0], lengths, weight, bias, **options)
        many = [peers.channels_first(tensor, lengths) for tensor in frames]
        return Prepared.of(
            lambda i: padded_conv(frames[i], cu_frames, weight, bias, **options)[0], wanted, setup.error
        ).beside(
            "conv1d + GELU",
            lambda i: F.gelu(F.conv1d(many[i], weight, bias, stride=stride, padding=1)),
            last_channels(len(wanted)),
        )

    steps, size = sum(out_lengths), 3 * channels * width
    work = Work(2 * steps * size, HALF * (sum(lengths) * channels + size + steps * width))
    shape = f"{channels} to {width} channels, stride {stride}"
    return Case("padded_conv", batch.model.name, batch.size, shape, work, prepare)


def flash(batch: Batch, kind: str, *, causal: bool = False) -> Case:
    model, lengths = batch.model, batch.tokens
    pairs = sum(length * (length + 1) / 2 if causal else length**2 for length in lengths)
    last = lengths[-1]

    def prepare(setup: Setup) -> Prepared:
        given = [setup.random(sum(lengths), model.heads, model.head_dim) for _ in range(3)]
        cu, alone = setup.offsets(lengths), setup.offsets([last])
        ends = [tensors[0][-last:].float() for tensors in given]
        wanted = flash_attention_reference(*ends, alone, alone, causal=causal)
        many = [[peers.heads_first(tensor, lengths) for tensor in tensors] for tensors in given]
        jagged = [[peers.nested(tensor, lengths) for tensor in tensors] for tensors in given]
        mask = peers.mask_of(lengths, setup.device)[:, None, None]
        attend = partial(F.scaled_dot_product_attention, is_causal=causal)
        # Causal queries never see the padding behind them; equal lengths have none.
        hide = {} if causal or len(set(lengths)) == 1 else {"attn_mask": mask}

        def ours(i: int) -> Tensor:
            query, key, value = (tensors[i] for tensors in given)
            return flash_attention(query, key, value, cu, cu, causal=causal)

        prepared = Prepared.of(ours, wanted, setup.error).beside(
            "SDPA, padded",
            lambda i: attend(*(tensors[i] for tensors in many), **hide),
            lambda out: out[-1].transpose(0, 1)[:last],
        )
        if setup.device.type == "cuda" or not causal:  # on the CPU nested tensors have no causal attention
            prepared.beside(
                "SDPA, nested",
                lambda i: attend(*(tensors[i] for tensors in jagged)),
                lambda out: out.transpose(1, 2).values()[-last:],
                graph=False,
            )
        return prepared

    work = Work(4 * pairs * model.width, HALF * 4 * sum(lengths) * model.width)
    shape = f"{kind}, {sum(lengths):,} tokens" + (", causal" if causal else "")
    tags = frozenset() if causal else frozenset({f"flash {kind}"})
    return Case("flash_attention", model.name, batch.size, shape, work, prepare, tags, graph=True)


def groups(batch: Batch) -> Case:
    """wav2vec2's first layer: each of 512 channels over an utterance's time."""
    channels, lengths = _channels(batch), batch.first_layer

    def prepare(setup: Setup) -> Prepared:
        hidden = setup.random(sum(lengths), channels)
        weight, bias = (setup.random(channels)[0] for _ in range(2))
        cu = setup.offsets(lengths)
        wanted = last_alone(group_norm_reference, hidden[0], lengths, channels, weight, bias)
        # Padding would change the statistics, so torch has a call for each utterance.
        alone = [peers.one_by_one(tensor, lengths) for tensor in hidden]
        return Prepared.of(
            lambda i: group_norm(hidden[i], cu, channels, weight, bias), wanted, setup.error
        ).beside(
            "torch, one by one",
            lambda i: [F.group_norm(one, channels, weight, bias) for one in alone[i]],
            lambda out: out[-1][0].T,
        )

    size = sum(lengths) * channels
    shape = f"{channels} channels, {sum(lengths):,} steps"
    return Case("group_norm", batch.model.name, batch.size, shape, Work(8 * size, HALF * 2 * size), prepare)


def first_layer(batch: Batch) -> Case:
    """wav2vec2's first layer in one: convolution of the waveform, group norm over time, GELU."""
    channels, lengths = _channels(batch), batch.first_layer
    samples = sum(batch.samples)

    def prepare(setup: Setup) -> Prepared:
        waveforms = setup.random(samples, 1)
        weights = setup.random(channels, 1, 10)[0], *(setup.random(channels)[0] for _ in range(2))
        options = {"stride": 5, "activation": "gelu"}
        cu_samples = setup.offsets(batch.samples)
        wanted = last_alone(normalized_conv_reference, waveforms[0], batch.samples, *weights, **options)
        # Padding would change the statistics, so torch has three calls for each utterance.
        alone = [peers.one_by_one(tensor, batch.samples) for tensor in waveforms]

        def torch_alone(one: Tensor) -> Tensor:
            weight, *norm = weights
            return F.gelu(F.group_norm(F.conv1d(one, weight, stride=5), channels, *norm))

        return Prepared.of(
            lambda i: normalized_conv(waveforms[i], cu_samples, *weights, **options)[0], wanted, setup.error
        ).beside(
            "torch, one by one",
            lambda i: [torch_alone(one) for one in alone[i]],
            lambda out: out[-1][0].T,
        )

    size = sum(lengths) * channels
    work = Work((20 + 20) * size, HALF * (samples + size))
    shape = f"1 to {channels} channels, {samples:,} samples"
    return Case("normalized_conv", batch.model.name, batch.size, shape, work, prepare)


def waveform_layer(batch: Batch) -> Case:
    """wav2vec2's second layer, which takes half of its feature encoder's operations."""
    channels, lengths = _channels(batch), batch.first_layer
    steps = sum((length - 3) // 2 + 1 for length in lengths)

    def prepare(setup: Setup) -> Prepared:
        hidden = setup.random(sum(lengths), channels)
        weight = setup.random(channels, channels, 3, scale=(3 * channels) ** -0.5)[0]
        options = {"stride": 2, "activation": "gelu"}
        cu = setup.offsets(lengths)
        wanted = last_alone(waveform_conv_reference, hidden[0], lengths, weight, None, **options)
        many = [peers.channels_first(tensor, lengths) for tensor in hidden]
        return Prepared.of(
            lambda i: waveform_conv(hidden[i], cu, weight, None, **options)[0], wanted, setup.error
        ).beside(
            "conv1d + GELU, padded",
            lambda i: F.gelu(F.conv1d(many[i], weight, stride=2)),
            last_channels(len(wanted)),
        )

    size = 3 * channels * channels
    work = Work(2 * steps * size, HALF * ((sum(lengths) + steps) * channels + size))
    shape = f"{channels} to {channels} channels, {sum(lengths):,} steps"
    return Case("waveform_conv", batch.model.name, batch.size, shape, work, prepare)


def positional(batch: Batch) -> Case:
    """wav2vec2's positions: 128 taps in 16 groups, GELU and residual."""
    width, rows, last = batch.model.width, sum(batch.tokens), batch.tokens[-1]
    groups, taps = (16, 128) if width > 100 else (4, 8)

    def prepare(setup: Setup) -> Prepared:
        hidden = setup.random(rows, width)
        weight = setup.random(width, width // groups, taps, scale=(taps * width / groups) ** -0.5)[0]
        bias = setup.random(width)[0]
        options = {"groups": groups, "activation": "gelu"}
        cu = setup.offsets(batch.tokens)
        end = hidden[0][-last:].float()
        wanted = last_alone(
            positional_conv_reference, hidden[0], batch.tokens, weight, bias, residual=end, **options
        )
        many = [peers.channels_first(tensor, batch.tokens) for tensor in hidden]

        def torch_padded(one: Tensor) -> Tensor:
            mixed = F.conv1d(one, weight, bias, padding=taps // 2, groups=groups)
            return one + F.gelu(mixed[:, :, :-1])

        return Prepared.of(
            lambda i: positional_conv(hidden[i], cu, weight, bias, residual=hidden[i], **options),
            wanted,
            setup.error,
        ).beside("conv1d + GELU, padded", lambda i: torch_padded(many[i]), last_channels(last))

    size = width // groups * taps * width
    work = Work(2 * rows * size, HALF * (3 * rows * width + size))
    shape = f"{groups} groups, {taps} taps, {rows:,} tokens"
    return Case("positional_conv", batch.model.name, batch.size, shape, work, prepare)


def pool(batch: Batch) -> Case:
    """The mean of each recording's last hidden states, for an audio classifier."""
    width, lengths = batch.model.width, batch.tokens

    def prepare(setup: Setup) -> Prepared:
        # Around 1, or rounding would make up most of the mean.
        hidden = [tensor.add_(1.0) for tensor in setup.random(sum(lengths), width)]
        cu = setup.offsets(lengths)
        wanted = last_alone(mean_pool_reference, hidden[0], lengths, dtype=torch.float64)
        many = [peers.padded(tensor, lengths) for tensor in hidden]
        mask = peers.mask_of(lengths, setup.device)
        ours = Prepared.of(lambda i: mean_pool(hidden[i], cu), wanted, setup.error)
        return ours.beside("torch, padded", lambda i: peers.pooled(many[i], mask))

    size = sum(lengths) * width
    work = Work(size, HALF * (size + batch.size * width))
    shape = f"{width} columns, {sum(lengths):,} tokens"
    return Case("mean_pool", batch.model.name, batch.size, shape, work, prepare, graph=True)


def _channels(batch: Batch) -> int:
    """Channels of wav2vec2's feature encoder."""
    return 512 if batch.model.width > 100 else 40


def positions(batch: Batch) -> Case:
    """The encoder's positions, added to the output of the convolutions."""
    model, rows = batch.model, sum(batch.tokens)

    def prepare(setup: Setup) -> Prepared:
        hidden, table = setup.random(rows, model.width), setup.random(1026, model.width)
        indices = torch.cat([torch.arange(length, device=setup.device) for length in batch.tokens]) + 2
        scale, few = model.width**0.5, 64
        wanted = add_positions_reference(hidden[0][-few:].double(), indices[-few:], table[0].double(), scale)
        return Prepared.of(
            lambda i: add_positions(hidden[i], indices, table[i], scale), wanted, setup.error
        ).beside("torch", lambda i: hidden[i] * scale + F.embedding(indices, table[i]))

    work = Work(2 * rows * model.width, HALF * (2 * rows + max(batch.tokens)) * model.width + 8 * rows)
    return Case("add_positions", model.name, batch.size, f"{rows:,} tokens", work, prepare, graph=True)
