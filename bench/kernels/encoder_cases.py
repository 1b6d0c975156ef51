"""From the waveform to the encoder's first layer, and attention over whole sequences."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tritone.kernels.attention.flash import flash_attention, flash_attention_reference
from tritone.kernels.conv.normalized import normalized_conv, normalized_conv_reference
from tritone.kernels.conv.positional import positional_conv, positional_conv_reference
from tritone.kernels.conv.subsample import conv_subsample, conv_subsample_reference
from tritone.kernels.conv.waveform import waveform_conv, waveform_conv_reference
from tritone.kernels.embedding import add_positions, add_positions_reference
from tritone.kernels.features.fbank import fbank, fbank_reference
from tritone.kernels.norm.group_norm import group_norm, group_norm_reference
from tritone.kernels.norm.utterance_cmvn import utterance_cmvn, utterance_cmvn_reference
from tritone.kernels.pooling.mean_pool import mean_pool, mean_pool_reference
from tritone.kernels.runtime.packing import cumulative

from ..common.roofline import Work
from ..common.shapes import Batch
from . import peers
from .cases import HALF, Case, Contestant, Prepared, Stage

MEL_BINS, CONV_KERNEL = 80, 5


def filter_bank(batch: Batch) -> Case:
    frames, samples = sum(batch.frames), sum(batch.samples)
    # A frame's fast Fourier transform of 512 real samples; what is done to 400 samples before; power, and two
    # triangles over each of 257 lines. Or both linear steps as products with matrices.
    fast = 2.5 * 512 * 9 + 4 * 400 + 7 * 257
    dense = 2 * 400 * 2 * 257 + 2 * 257 * MEL_BINS

    def prepare(stage: Stage) -> Prepared:
        cu_samples = cumulative(batch.samples, stage.device)
        waveforms = stage.random(samples, dtype=torch.float32, scale=1000.0)
        last = batch.samples[-1]
        alone = cumulative([last], stage.device)
        wanted, _ = fbank_reference(waveforms[0][-last:].double(), alone)
        ours = Contestant(lambda i: fbank(waveforms[i], cu_samples)[0], lambda out: out[-len(wanted) :])
        others, missing = {}, {}
        try:
            one = peers.torchaudio_fbank()
        except (ImportError, OSError) as error:
            missing["torchaudio"] = str(error).splitlines()[0]
        else:
            others["torchaudio"] = Contestant(
                lambda i: [one(waveform) for waveform in waveforms[i].split(batch.samples)],
                lambda out: out[-1],
            )
        if batch.size <= 256:
            many = [peers.padded(waveform, batch.samples) for waveform in waveforms]
            others["torch, padded"] = Contestant(
                lambda i: peers.batched_fbank(many[i]), lambda out: out[-1, : len(wanted)]
            )
        # Rounding is 1e-4 of the frame's peak; a logarithm near 13 keeps all of that in four digits.
        return Prepared(ours, others, wanted, 1e-3, missing)

    work = Work(frames * fast, 4 * (samples + frames * MEL_BINS), frames * dense)
    return Case("fbank", batch.model.name, batch.size, "real lengths", work, prepare, frozenset({"fbank"}))


def cmvn(batch: Batch) -> Case:
    frames = sum(batch.frames)

    def prepare(stage: Stage) -> Prepared:
        cu_frames = cumulative(batch.frames, stage.device)
        features = [
            tensor.add_(5.0) for tensor in stage.random(frames, MEL_BINS, dtype=torch.float32, scale=3.0)
        ]
        last = batch.frames[-1]
        wanted = utterance_cmvn_reference(features[0][-last:].double(), cumulative([last], stage.device))
        many = [peers.padded(tensor, batch.frames) for tensor in features]
        mask = peers.mask_of(batch.frames, stage.device)
        return Prepared(
            Contestant(lambda i: utterance_cmvn(features[i], cu_frames), lambda out: out[-last:]),
            {
                "torch, padded": Contestant(
                    lambda i: peers.normalized(many[i], mask), lambda out: out[-1, :last]
                )
            },
            wanted,
            1e-4,
        )

    size = frames * MEL_BINS
    return Case(
        "utterance_cmvn", batch.model.name, batch.size, "real lengths", Work(6 * size, 8 * size), prepare
    )


def conv(batch: Batch, layer: int) -> Case:
    model = batch.model
    lengths, out_lengths = (batch.frames, batch.halves) if layer == 1 else (batch.halves, batch.tokens)
    channels, outputs = (MEL_BINS, model.conv) if layer == 1 else (model.conv // 2, 2 * model.width)

    def prepare(stage: Stage) -> Prepared:
        frames = stage.random(sum(lengths), channels)
        weight = stage.random(outputs, channels, CONV_KERNEL, scale=(channels * CONV_KERNEL) ** -0.5)[0]
        bias = stage.random(outputs)[0]
        cu_frames = cumulative(lengths, stage.device)
        last = lengths[-1]
        wanted, _ = conv_subsample_reference(
            frames[0][-last:].float(), cumulative([last], stage.device), weight.float(), bias.float()
        )
        many = [peers.padded(tensor, lengths).transpose(1, 2).contiguous() for tensor in frames]
        return Prepared(
            Contestant(
                lambda i: conv_subsample(frames[i], cu_frames, weight, bias)[0],
                lambda out: out[-len(wanted) :],
            ),
            {
                "conv1d + GLU": Contestant(
                    lambda i: peers.conv_glu(many[i], weight, bias),
                    lambda out: out[-1].T[: len(wanted)],
                )
            },
            wanted,
            stage.error,
        )

    steps, size = sum(out_lengths), outputs * channels * CONV_KERNEL
    work = Work(2 * steps * size, HALF * (sum(lengths) * channels + size + steps * outputs // 2))
    shape = f"layer {layer}, {channels} to {outputs // 2} channels"
    return Case("conv_subsample", model.name, batch.size, shape, work, prepare, frozenset({"conv"}))


def flash(batch: Batch, kind: str, *, causal: bool = False) -> Case:
    model, lengths = batch.model, batch.tokens
    pairs = sum(length * (length + 1) / 2 if causal else length**2 for length in lengths)

    def prepare(stage: Stage) -> Prepared:
        given = [stage.random(sum(lengths), model.heads, model.head_dim) for _ in range(3)]
        cu = cumulative(lengths, stage.device)
        last = lengths[-1]
        alone = cumulative([last], stage.device)
        ends = [tensors[0][-last:].float() for tensors in given]
        wanted = flash_attention_reference(*ends, alone, alone, causal=causal)
        many = [[peers.heads_first(tensor, lengths) for tensor in tensors] for tensors in given]
        jagged = [[peers.nested(tensor, lengths) for tensor in tensors] for tensors in given]
        mask = peers.mask_of(lengths, stage.device)[:, None, None]
        attend = partial(F.scaled_dot_product_attention, is_causal=causal)
        # Causal queries never see what is behind them; and with equal lengths nothing is behind.
        hide = {} if causal or len(set(lengths)) == 1 else {"attn_mask": mask}

        def ours(i: int) -> Tensor:
            query, key, value = (tensors[i] for tensors in given)
            return flash_attention(query, key, value, cu, cu, causal=causal)

        others = {
            "SDPA, padded": Contestant(
                lambda i: attend(*(tensors[i] for tensors in many), **hide),
                lambda out: out[-1].transpose(0, 1)[:last],
            )
        }
        if stage.device.type == "cuda" or not causal:  # on the CPU nested tensors have no causal attention
            others["SDPA, nested"] = Contestant(
                lambda i: attend(*(tensors[i] for tensors in jagged)),
                lambda out: out.transpose(1, 2).values()[-last:],
                graph=False,
            )
        return Prepared(Contestant(ours, lambda out: out[-last:]), others, wanted, stage.error)

    work = Work(4 * pairs * model.width, HALF * 4 * sum(lengths) * model.width)
    shape = f"{kind}, {sum(lengths):,} tokens" + (", causal" if causal else "")
    tags = frozenset() if causal else frozenset({f"flash {kind}"})
    return Case("flash_attention", model.name, batch.size, shape, work, prepare, tags, graph=True)


def groups(batch: Batch) -> Case:
    """wav2vec2's first layer: each of 512 channels over an utterance's time."""
    channels, lengths = _channels(batch), batch.first_layer

    def prepare(stage: Stage) -> Prepared:
        hidden = stage.random(sum(lengths), channels)
        weight, bias = (stage.random(channels)[0] for _ in range(2))
        cu = cumulative(lengths, stage.device)
        last = lengths[-1]
        wanted = group_norm_reference(
            hidden[0][-last:].float(),
            cumulative([last], stage.device),
            channels,
            weight.float(),
            bias.float(),
        )
        # Padding would change the statistics, so torch has a call for each utterance.
        alone = [[one.T[None].contiguous() for one in tensor.split(lengths)] for tensor in hidden]
        return Prepared(
            Contestant(lambda i: group_norm(hidden[i], cu, channels, weight, bias), lambda out: out[-last:]),
            {
                "torch, one by one": Contestant(
                    lambda i: [F.group_norm(one, channels, weight, bias) for one in alone[i]],
                    lambda out: out[-1][0].T,
                )
            },
            wanted,
            stage.error,
        )

    size = sum(lengths) * channels
    shape = f"{channels} channels, {sum(lengths):,} steps"
    return Case("group_norm", batch.model.name, batch.size, shape, Work(8 * size, HALF * 2 * size), prepare)


def first_layer(batch: Batch) -> Case:
    """wav2vec2's first layer in one: convolution of the waveform, group norm over time, GELU."""
    channels, lengths = _channels(batch), batch.first_layer
    samples = sum(batch.samples)

    def prepare(stage: Stage) -> Prepared:
        waveforms = stage.random(samples, 1)
        weight = stage.random(channels, 1, 10)[0]
        norm_weight, norm_bias = (stage.random(channels)[0] for _ in range(2))
        cu_samples = cumulative(batch.samples, stage.device)
        last = batch.samples[-1]
        wanted, _ = normalized_conv_reference(
            waveforms[0][-last:].float(),
            cumulative([last], stage.device),
            weight.float(),
            norm_weight.float(),
            norm_bias.float(),
            stride=5,
            activation="gelu",
        )
        # Padding would change the statistics, so torch has three calls for each utterance.
        alone = [[one.T[None].contiguous() for one in tensor.split(batch.samples)] for tensor in waveforms]

        def torch_alone(one: Tensor) -> Tensor:
            mixed = F.conv1d(one, weight, stride=5)
            return F.gelu(F.group_norm(mixed, channels, norm_weight, norm_bias))

        return Prepared(
            Contestant(
                lambda i: normalized_conv(
                    waveforms[i], cu_samples, weight, norm_weight, norm_bias, stride=5, activation="gelu"
                )[0],
                lambda out: out[-len(wanted) :],
            ),
            {
                "torch, one by one": Contestant(
                    lambda i: [torch_alone(one) for one in alone[i]], lambda out: out[-1][0].T
                )
            },
            wanted,
            stage.error,
        )

    size = sum(lengths) * channels
    work = Work((20 + 20) * size, HALF * (samples + size))
    shape = f"1 to {channels} channels, {samples:,} samples"
    return Case("normalized_conv", batch.model.name, batch.size, shape, work, prepare)


def waveform_layer(batch: Batch) -> Case:
    """wav2vec2's second layer, which takes half of its feature encoder's operations."""
    channels, lengths = _channels(batch), batch.first_layer
    steps = sum((length - 3) // 2 + 1 for length in lengths)

    def prepare(stage: Stage) -> Prepared:
        hidden = stage.random(sum(lengths), channels)
        weight = stage.random(channels, channels, 3, scale=(3 * channels) ** -0.5)[0]
        cu = cumulative(lengths, stage.device)
        last = lengths[-1]
        wanted, _ = waveform_conv_reference(
            hidden[0][-last:].float(),
            cumulative([last], stage.device),
            weight.float(),
            None,
            stride=2,
            activation="gelu",
        )
        many = [peers.padded(tensor, lengths).transpose(1, 2).contiguous() for tensor in hidden]
        return Prepared(
            Contestant(
                lambda i: waveform_conv(hidden[i], cu, weight, None, stride=2, activation="gelu")[0],
                lambda out: out[-len(wanted) :],
            ),
            {
                "conv1d + GELU, padded": Contestant(
                    lambda i: F.gelu(F.conv1d(many[i], weight, stride=2)),
                    lambda out: out[-1].T[: len(wanted)],
                )
            },
            wanted,
            stage.error,
        )

    size = 3 * channels * channels
    work = Work(2 * steps * size, HALF * ((sum(lengths) + steps) * channels + size))
    shape = f"{channels} to {channels} channels, {sum(lengths):,} steps"
    return Case("waveform_conv", batch.model.name, batch.size, shape, work, prepare)


def positional(batch: Batch) -> Case:
    """wav2vec2's positions: 128 taps in 16 groups, GELU and residual."""
    width, rows = batch.model.width, sum(batch.tokens)
    groups, taps = (16, 128) if width > 100 else (4, 8)

    def prepare(stage: Stage) -> Prepared:
        hidden = stage.random(rows, width)
        weight = stage.random(width, width // groups, taps, scale=(taps * width / groups) ** -0.5)[0]
        bias = stage.random(width)[0]
        cu = cumulative(batch.tokens, stage.device)
        last = batch.tokens[-1]
        end = hidden[0][-last:].float()
        wanted = positional_conv_reference(
            end,
            cumulative([last], stage.device),
            weight.float(),
            bias.float(),
            groups=groups,
            activation="gelu",
            residual=end,
        )
        many = [peers.padded(tensor, batch.tokens).transpose(1, 2).contiguous() for tensor in hidden]

        def torch_padded(one: Tensor) -> Tensor:
            mixed = F.conv1d(one, weight, bias, padding=taps // 2, groups=groups)
            return one + F.gelu(mixed[:, :, :-1])

        return Prepared(
            Contestant(
                lambda i: positional_conv(
                    hidden[i], cu, weight, bias, groups=groups, activation="gelu", residual=hidden[i]
                ),
                lambda out: out[-last:],
            ),
            {
                "conv1d + GELU, padded": Contestant(
                    lambda i: torch_padded(many[i]), lambda out: out[-1].T[:last]
                )
            },
            wanted,
            stage.error,
        )

    size = width // groups * taps * width
    work = Work(2 * rows * size, HALF * (3 * rows * width + size))
    shape = f"{groups} groups, {taps} taps, {rows:,} tokens"
    return Case("positional_conv", batch.model.name, batch.size, shape, work, prepare)


def pool(batch: Batch) -> Case:
    """Behind the last layer of a classifier of recordings: each one's mean."""
    width, lengths = batch.model.width, batch.tokens

    def prepare(stage: Stage) -> Prepared:
        # Around 1, or the mean would be mostly what rounding made of it.
        hidden = [tensor.add_(1.0) for tensor in stage.random(sum(lengths), width)]
        cu = cumulative(lengths, stage.device)
        last = lengths[-1]
        wanted = mean_pool_reference(hidden[0][-last:].double(), cumulative([last], stage.device))
        many = [peers.padded(tensor, lengths) for tensor in hidden]
        mask = peers.mask_of(lengths, stage.device)
        return Prepared(
            Contestant(lambda i: mean_pool(hidden[i], cu), lambda out: out[-1:]),
            {"torch, padded": Contestant(lambda i: peers.pooled(many[i], mask), lambda out: out[-1:])},
            wanted,
            stage.error,
        )

    size = sum(lengths) * width
    work = Work(size, HALF * (size + batch.size * width))
    shape = f"{width} columns, {sum(lengths):,} tokens"
    return Case("mean_pool", batch.model.name, batch.size, shape, work, prepare, graph=True)


def _channels(batch: Batch) -> int:
    """Of wav2vec2's feature encoder."""
    return 512 if batch.model.width > 100 else 40


def positions(batch: Batch) -> Case:
    """The encoder's positions, added to what the convolutions gave."""
    model, rows = batch.model, sum(batch.tokens)

    def prepare(stage: Stage) -> Prepared:
        hidden, table = stage.random(rows, model.width), stage.random(1026, model.width)
        where = torch.cat([torch.arange(length, device=stage.device) for length in batch.tokens]) + 2
        scale = model.width**0.5
        few = slice(-64, None)
        wanted = add_positions_reference(hidden[0][few].double(), where[few], table[0].double(), scale)
        return Prepared(
            Contestant(lambda i: add_positions(hidden[i], where, table[i], scale), lambda out: out[few]),
            {
                "torch": Contestant(
                    lambda i: hidden[i] * scale + F.embedding(where, table[i]), lambda out: out[few]
                )
            },
            wanted,
            stage.error,
        )

    work = Work(2 * rows * model.width, HALF * (2 * rows + max(batch.tokens)) * model.width + 8 * rows)
    return Case("add_positions", model.name, batch.size, f"{rows:,} tokens", work, prepare, graph=True)
