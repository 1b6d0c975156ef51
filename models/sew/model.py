"""SEW (arXiv 2109.06870): wav2vec 2.0 with a transformer that runs at a reduced frame rate."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.conv.positional import positional_length
from ...kernels.runtime.packing import cumulative, spans
from ..core.layers import apply_linear, normalize
from ..wav2vec2.audio_classification import AudioClassifier
from ..wav2vec2.ctc import CTCModel
from ..wav2vec2.encoder import WaveformEncoder
from ..wav2vec2.layers import EncoderLayer, PositionalConvolution, run_transformer
from .config import SEWConfig, SqueezedConfig


class Squeeze(nn.Module):
    """Base encoder of SEW and SEW-D: pool frames to fewer tokens, run a transformer, upsample to frames."""

    def __init__(self, config: SqueezedConfig) -> None:
        super().__init__()
        self.config = config
        self.frames_per_token = config.squeeze_factor
        self.pos_conv_embed = PositionalConvolution(config, stride=config.squeeze_factor)
        self.upsample = _Upsampling(config)

    def transform(
        self, hidden: Tensor, cu_tokens: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, list[list[Tensor]] | None]:
        """Transform tokens [tokens, hidden_size]; also return attention weights, None if not recorded."""
        raise NotImplementedError

    def forward(
        self, hidden: Tensor, cu_frames: Tensor, states: list[Tensor] | None, record: bool
    ) -> tuple[Tensor, Tensor, list[list[Tensor]] | None]:
        """Encode frames [frames, hidden_size]; arguments and results as in `wav2vec2.layers.Encoder`."""
        hidden, cu_tokens = self._squeezed(hidden, cu_frames)
        hidden, weights = self.transform(hidden, cu_tokens, states, record)
        return self._unsqueezed(hidden, cu_tokens, cu_frames), cu_tokens, weights

    def _squeezed(self, hidden: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Pool every `frames_per_token` frames to their mean, plus a position embedding; with cu_seqlens."""
        factor, kernel = self.frames_per_token, self.config.num_conv_pos_embeddings
        positions = self.pos_conv_embed(hidden, cu_frames)
        counts, whole, own = list[int](), [hidden[:0]], [positions[:0]]
        begin = 0
        for start, end in spans(cu_frames):
            count = (end - start) // factor
            counts.append(count)
            whole.append(hidden[start : start + count * factor])
            # With an odd kernel the convolution has an output for leftover frames too, which is dropped.
            own.append(positions[begin : begin + count])
            begin += positional_length(end - start, kernel, factor)
        # Added frame by frame, so that the order of additions does not depend on the number of tokens.
        groups = torch.cat(whole).view(-1, factor, hidden.shape[1])
        pooled = sum((groups[:, index] for index in range(1, factor)), groups[:, 0]) / factor
        return pooled + torch.cat(own), cumulative(counts, hidden.device)

    def _unsqueezed(self, hidden: Tensor, cu_tokens: Tensor, cu_frames: Tensor) -> Tensor:
        """Upsample tokens to frames [frames, hidden_size], with zeros for frames that pooling left over."""
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
        """Upsample tokens [tokens, hidden_size] to frames [tokens * squeeze_factor, hidden_size]."""
        wide = apply_linear(self.projection, hidden, self.activation)
        return wide.view(-1, hidden.shape[1])


class SEWEncoder(Squeeze):
    """SEW's encoder: wav2vec 2.0's transformer layers, with post-norm, on pooled frames."""

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
        return run_transformer(self, hidden, cu_tokens, states, record)


class SqueezedEncoder(WaveformEncoder):
    """Base class of SEW's and SEW-D's models without a head; a subclass sets its `encoder_class`."""

    encoder_class: ClassVar[type[Squeeze]]
    frame_eps: ClassVar[str] = "layer_norm_eps"  # field with the epsilon of the frames' normalization

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
        frames = normalize(self.layer_norm, frames)
        projection = self.feature_projection
        hidden = frames if projection is None else apply_linear(projection, frames)
        return F.dropout(hidden, self.config.feat_proj_dropout, self.training), frames


class SEWModel(SqueezedEncoder):
    """SEW without a head: convolutional feature encoder and a transformer on pooled frames."""

    config_class = SEWConfig
    base_prefix = "sew."
    encoder_class = SEWEncoder


class SEWForCTC(CTCModel):
    """SEW with a CTC head, for transcription."""

    base_class = SEWModel


class SEWForSequenceClassification(AudioClassifier):
    """SEW with mean pooling and a classification head."""

    base_class = SEWModel
