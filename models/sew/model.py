"""SEW (arXiv 2109.06870): wav2vec 2.0 whose transformer works on fewer tokens than there are frames."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.conv.positional import positional_length
from ...kernels.linear.gemm import linear
from ...kernels.runtime.packing import cumulative, spans
from ..core.config import PretrainedConfig
from ..core.layers import normalize
from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from ..wav2vec2.encoder import WaveformEncoder
from ..wav2vec2.layers import EncoderLayer, PositionalConvolution, run_transformer
from .config import SEWConfig, SqueezedConfig


class Squeeze(nn.Module):
    """Frames to fewer tokens and back, around the transformer of SEW or SEW-D.

    Args:
        config: sizes.
    """

    def __init__(self, config: SqueezedConfig) -> None:
        super().__init__()
        self.config = config
        self.frames_per_token = config.squeeze_factor
        self.pos_conv_embed = PositionalConvolution(config, stride=config.squeeze_factor)
        self.upsample = _Upsampling(config)

    def transform(
        self, hidden: Tensor, cu_tokens: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, list[list[Tensor]] | None]:
        """Tokens [tokens, hidden_size] to the same, and attention weights, if they are recorded."""
        raise NotImplementedError

    def forward(
        self, hidden: Tensor, cu_frames: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, Tensor, list[list[Tensor]] | None]:
        """Frames [frames, hidden_size] to the same; arguments and results are `wav2vec2.layers.Encoder`'s."""
        hidden, cu_tokens = self._squeezed(hidden, cu_frames)
        hidden, weights = self.transform(hidden, cu_tokens, states, record)
        return self._unsqueezed(hidden, cu_tokens, cu_frames), cu_tokens, weights

    def _squeezed(self, hidden: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, each the mean of `frames_per_token` frames, with positions added; and their cu_seqlens."""
        factor, kernel = self.frames_per_token, self.config.num_conv_pos_embeddings
        positions = self.pos_conv_embed(hidden, cu_frames)
        counts, whole, own = list[int](), [hidden[:0]], [positions[:0]]
        begin = 0
        for start, end in spans(cu_frames):
            count = (end - start) // factor
            counts.append(count)
            whole.append(hidden[start : start + count * factor])
            # An odd kernel has positions for the frames left over too.
            own.append(positions[begin : begin + count])
            begin += positional_length(end - start, kernel, factor)
        # One after the other, so that the order of a sum does not depend on how many there are.
        groups = torch.cat(whole).view(-1, factor, hidden.shape[1])
        pooled = sum((groups[:, index] for index in range(1, factor)), groups[:, 0]) / factor
        return pooled + torch.cat(own), cumulative(counts, hidden.device)

    def _unsqueezed(self, hidden: Tensor, cu_tokens: Tensor, cu_frames: Tensor) -> Tensor:
        """Tokens back to frames [frames, hidden_size]; zero for frames that were left over."""
        hidden, factor = self.upsample(hidden), self.frames_per_token
        frames = [hidden[:0]]
        for (first, last), (start, end) in zip(spans(cu_tokens), spans(cu_frames), strict=True):
            rest = (end - start) - (last - first) * factor
            frames.append(F.pad(hidden[first * factor : last * factor], (0, 0, 0, rest)))
        return torch.cat(frames)


class _Upsampling(nn.Module):
    def __init__(self, config: SqueezedConfig) -> None:
        super().__init__()
        self.activation = config.feat_extract_activation
        self.projection = nn.Linear(config.hidden_size, config.hidden_size * config.squeeze_factor)

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, hidden_size] to [tokens * squeeze_factor, hidden_size]."""
        wide = linear(hidden, self.projection.weight, self.projection.bias, activation=self.activation)
        return wide.view(-1, hidden.shape[1])


class SEWEncoder(Squeeze):
    """Wav2vec 2.0's layers, normalized last, on squeezed frames."""

    stable = False

    def __init__(self, config: SEWConfig) -> None:
        super().__init__(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(
            EncoderLayer(config, index, stable=False) for index in range(config.num_hidden_layers)
        )

    def transform(
        self, hidden: Tensor, cu_tokens: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, list[list[Tensor]] | None]:
        """Output of the layers [tokens, hidden_size], and their attention weights."""
        return run_transformer(self, hidden, cu_tokens, states, record)


class SqueezedEncoder(WaveformEncoder):
    """Base of SEW and SEW-D; a family gives its `encoder_class`.

    Args:
        config: sizes and constants; weights are fresh.
    """

    encoder_class: ClassVar[type[Squeeze]]
    frame_eps: ClassVar[str] = "layer_norm_eps"  # field of the frames' normalization

    def __init__(self, config: SqueezedConfig) -> None:
        super().__init__(config)
        width = config.conv_dim[-1]
        self.layer_norm = nn.LayerNorm(width, eps=getattr(config, self.frame_eps))
        self.feature_projection = (
            nn.Linear(width, config.hidden_size) if width != config.hidden_size else None
        )
        self.encoder = self.encoder_class(config)
        self.initialize()

    def project(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [frames, conv_dim[-1]] to [frames, hidden_size], and the normalized frames."""
        frames = normalize(self.layer_norm, frames)
        hidden, projection = frames, self.feature_projection
        if projection is not None:
            hidden = linear(frames, projection.weight, projection.bias)
        return F.dropout(hidden, self.config.feat_proj_dropout, self.training), frames


class SEWModel(SqueezedEncoder):
    """Convolutions on the waveform and a transformer on squeezed frames."""

    config_class: ClassVar[type[PretrainedConfig]] = SEWConfig
    base_prefix: ClassVar[str] = "sew."
    encoder_class = SEWEncoder


class SEWForCTC(CTCModel):
    """SEW with a CTC head."""

    base_class = SEWModel


class SEWForSequenceClassification(AudioClassifier):
    """SEW with a classification head."""

    base_class = SEWModel
