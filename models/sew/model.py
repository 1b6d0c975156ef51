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
from ..wav2vec2.layers import EncoderLayer, PositionalConvolution, run_layers
from .config import SEWConfig, SqueezedConfig


class Squeeze(nn.Module):
    """Frames to fewer tokens and back, around a transformer; SEW's encoder and SEW-D's build on it.

    Args:
        config: sizes.
    """

    def __init__(self, config: SqueezedConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv_embed = PositionalConvolution(config, stride=config.squeeze_factor)
        self.upsample = _Upsampling(config)

    def squeezed(self, hidden: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [frames, hidden_size] to tokens: the mean of `squeeze_factor` frames, positions added."""
        config, factor = self.config, self.config.squeeze_factor
        kernel = config.num_conv_pos_embeddings
        positions = self.pos_conv_embed(hidden, cu_frames)
        starts, counts = list[int](), list[int]()
        whole, begin = [hidden[:0]], 0
        for start, end in spans(cu_frames):
            counts.append(self.width(end - start))
            starts.append(begin)
            whole.append(hidden[start : start + counts[-1] * factor])
            begin += positional_length(end - start, kernel, factor)
        # One after the other, so that the order of a sum does not depend on how many there are.
        groups = torch.cat(whole).view(-1, factor, hidden.shape[1])
        pooled = sum((groups[:, place] for place in range(1, factor)), groups[:, 0]) / factor
        # An odd kernel tells the positions of frames left over too.
        kept = [positions[start : start + count] for start, count in zip(starts, counts, strict=True)]
        return pooled + torch.cat([positions[:0], *kept]), cumulative(counts, hidden.device)

    def unsqueezed(self, hidden: Tensor, cu_tokens: Tensor, cu_frames: Tensor) -> Tensor:
        """Tokens back to frames [frames, hidden_size]; zero for frames that were left over."""
        hidden = self.upsample(hidden)
        factor = self.config.squeeze_factor
        frames = [hidden[:0]]
        for (first, last), (start, end) in zip(spans(cu_tokens), spans(cu_frames), strict=True):
            rest = (end - start) - (last - first) * factor
            frames.append(F.pad(hidden[first * factor : last * factor], (0, 0, 0, rest)))
        return torch.cat(frames)

    def width(self, frames: int) -> int:
        """Tokens for so many frames."""
        return frames // self.config.squeeze_factor


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
    """Wav2vec 2.0's layers, normalized last, on the tokens."""

    def __init__(self, config: SEWConfig) -> None:
        super().__init__(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(
            EncoderLayer(config, index, stable=False) for index in range(config.num_hidden_layers)
        )

    def forward(
        self, hidden: Tensor, cu_frames: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, Tensor, list[list[Tensor]] | None]:
        """See `wav2vec2_layers.Encoder`."""
        hidden, cu_tokens = self.squeezed(hidden, cu_frames)
        hidden = normalize(self.layer_norm, hidden)
        hidden = F.dropout(hidden, self.config.hidden_dropout, self.training)
        hidden, weights = run_layers(self.layers, hidden, cu_tokens, self.config, states, record)
        return self.unsqueezed(hidden, cu_tokens, cu_frames), cu_tokens, weights


class SqueezedEncoder(WaveformEncoder):
    """What SEW and SEW-D have around their transformers; a family sets `encoder`, a `Squeeze`.

    Args:
        config: sizes and constants.
        eps: of the normalization of the frames.
    """

    def __init__(self, config: SqueezedConfig, eps: float) -> None:
        super().__init__(config)
        width = config.conv_dim[-1]
        self.layer_norm = nn.LayerNorm(width, eps=eps)
        self.feature_projection = (
            nn.Linear(width, config.hidden_size) if width != config.hidden_size else None
        )

    @property
    def least_frames(self) -> int:
        """Frames of the shortest recording: those of a token."""
        return int(self.config.squeeze_factor)

    def project(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """See `WaveformEncoder`."""
        frames = normalize(self.layer_norm, frames)
        hidden, projection = frames, self.feature_projection
        if projection is not None:
            hidden = linear(frames, projection.weight, projection.bias)
        return F.dropout(hidden, self.config.feat_proj_dropout, self.training), frames


class SEWModel(SqueezedEncoder):
    """Convolutions on the waveform and a transformer on squeezed frames."""

    config_class: ClassVar[type[PretrainedConfig]] = SEWConfig
    base_prefix: ClassVar[str] = "sew."

    def __init__(self, config: SEWConfig) -> None:
        super().__init__(config, config.layer_norm_eps)
        self.encoder = SEWEncoder(config)
        self.initialize()


class SEWForCTC(CTCModel):
    """SEW with a CTC head."""

    base_class = SEWModel


class SEWForSequenceClassification(AudioClassifier):
    """SEW with a classification head."""

    base_class = SEWModel
