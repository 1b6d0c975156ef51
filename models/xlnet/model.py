"""XLNet (arXiv 1906.08237): text encoder with relative positions, and sequence classifier."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.activation import activate, activate_
from ...kernels.pooling.mean_pool import mean_pool
from ...kernels.runtime.packing import cumulative, pack, spans, unpack
from ..core.classification import labels_of, last_indices
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import apply_linear
from ..core.model import PretrainedModel
from ..core.outputs import ModelOutput
from ..core.padding import as_mask, check_inputs, pad_weights, unpack_all
from ..core.parameters import ParametersMixin
from ..core.sequence_classifier import LOGITS, SequenceClassifier
from ..core.stack import HIDDEN_STATES
from .config import XLNetConfig
from .layers import Layout, XLNetLayer, XLNetRelativeAttention, position_features

_TEXT = "input_ids attention_mask mems perm_mask target_mapping token_type_ids input_mask inputs_embeds"


@dataclass
class XLNetModelOutput(ModelOutput):
    """Output of `XLNetModel`: last_hidden_state [batch, tokens, d_model], zero at padding.

    `mems` holds the kept part of each layer's input, [positions, batch, d_model].
    """

    last_hidden_state: Tensor
    mems: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class XLNetForSequenceClassificationOutput(ModelOutput):
    """Output of the XLNet classifier: scalar loss (with labels), logits [batch, labels], encoder outputs."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    mems: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class XLNetCheckpoint(PretrainedModel):
    """Base class of XLNet models: configuration class, tensor names of checkpoints, initialization."""

    config_class = XLNetConfig
    base_prefix = "transformer."
    main_input_name = "input_ids"
    # Weights of heads for other tasks.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"^(lm_loss|start_logits|end_logits|answer_class|qa_outputs|classifier)\.",
        r"^(sequence_summary|logits_proj)\.",
    )

    def initialize(self) -> None:
        """Initialize weights randomly, with the distributions of transformers."""
        super().initialize()
        for module in self.modules():
            if isinstance(module, XLNetRelativeAttention):
                module.initialize()
            elif isinstance(module, XLNetModel):
                nn.init.normal_(module.mask_emb, std=self.config.init_std)


class XLNetModel(XLNetCheckpoint, ParametersMixin):
    """XLNet without a head: a text encoder with relative positions.

    Pretraining inputs raise an error that names them: `perm_mask`, `target_mapping` (hence no query stream)
    and `mems`.

    Args:
        config: model configuration; weights are randomly initialized.

    Raises:
        ValueError: `bi_data` is set, which reverses the positions of half a batch.
    """

    embedding_name = "word_embedding"

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        if config.bi_data:
            raise ValueError(
                "bi_data=True is for pretraining: a text's result depends on its position in the batch; "
                "set bi_data=False in the configuration, as fine-tuned models have it"
            )
        self.word_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.mask_emb = nn.Parameter(torch.empty(1, 1, config.d_model))
        self.layer = nn.ModuleList(XLNetLayer(config) for _ in range(config.n_layer))
        self.initialize()

    forward = declare_forward(
        f"{HIDDEN_STATES} token_type_ids are any numbers: scores depend on equality alone; None is the same "
        "as all alike but for the last bit.",
        f"{_TEXT} use_mems {OUTPUT_FLAGS}",
    )

    def forward_named(self, **inputs: Any) -> XLNetModelOutput:
        """Run `forward` with keyword arguments."""
        return self.run_padded(**inputs)

    def run_padded(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        **pretraining: Any,
    ) -> XLNetModelOutput:
        """Pack a padded batch, run the layers, and unpack their outputs; arguments are those of `forward`.

        Raises:
            ValueError: inputs are missing, have wrong shapes, or are for pretraining.
        """
        for name, value in pretraining.items():
            if value is not None:
                raise ValueError(
                    f"{name} is not supported: it is for pretraining and generation, and classification does "
                    "without; leave it out"
                )
        config = self.config
        inputs = check_inputs(input_ids, inputs_embeds, *self.word_embedding.weight.shape)
        mask = self._mask(inputs, attention_mask, input_mask)
        segments = None
        if token_type_ids is not None:
            if token_type_ids.shape != mask.shape:
                raise ValueError(
                    f"token_type_ids must be {list(mask.shape)}, got {list(token_type_ids.shape)}"
                )
            segments = pack(token_type_ids.to(mask.device), mask)
        if use_mems is None:
            use_mems = config.use_mems_train if self.training else config.use_mems_eval
        states: list[Tensor] | None = [] if output_hidden_states or use_mems else None
        weights: list[list[Tensor]] | None = [] if output_attentions else None
        cu_tokens = cumulative(mask.sum(1))
        hidden = self.forward_packed(pack(inputs, mask), cu_tokens, segments, states=states, weights=weights)
        padded = unpack_all(states, mask)
        return XLNetModelOutput(
            last_hidden_state=unpack(hidden, mask),
            mems=tuple(map(self._memory, padded[:-1])) if use_mems and padded is not None else None,
            hidden_states=padded if output_hidden_states else None,
            attentions=pad_weights(weights, mask, mask),
        )

    def forward_packed(
        self,
        inputs: Tensor,
        cu_tokens: Tensor,
        segments: Tensor | None = None,
        *,
        states: list[Tensor] | None = None,
        weights: list[list[Tensor]] | None = None,
    ) -> Tensor:
        """Encode packed texts to hidden states [tokens, d_model].

        Args:
            inputs: token ids [tokens], or token embeddings [tokens, d_model].
            cu_tokens: cu_seqlens of the n packed texts, int32 [n + 1].
            segments: token type ids [tokens]; None without token types.
            states: list to which the embedded tokens and each layer's output are appended.
            weights: list to which each layer's attention weights are appended, as in `Layout`.
        """
        config, training = self.config, self.training
        limit = max([end - start for start, end in spans(cu_tokens)] + [1]) - 1
        if config.clamp_len > 0:
            limit = min(limit, config.clamp_len)
        positions = None
        if torch.is_grad_enabled() or (training and config.dropout):
            positions = position_features(limit, self.word_embedding.weight[0])
            positions = F.dropout(positions, config.dropout, training)
        causal = config.attn_type == "uni"
        layout = Layout(
            cu_tokens,
            limit,
            None if segments is None else segments.int(),
            positions,
            causal,
            1 if causal and config.same_length else None,
            weights,
        )
        hidden = self.word_embedding(inputs) if inputs.dim() == 1 else inputs.to(self.dtype)
        hidden = F.dropout(hidden, config.dropout, training)
        if states is not None:
            states.append(hidden)
        for layer in self.layer:
            hidden = layer(hidden, layout)
            if states is not None:
                states.append(hidden)
        return F.dropout(hidden, config.dropout, training)

    def _mask(self, inputs: Tensor, attention_mask: Tensor | None, input_mask: Tensor | None) -> Tensor:
        """Mask of real tokens from either mask argument: bool [batch, tokens], False at padding."""
        batch, width = inputs.shape[:2]
        if input_mask is None:
            return as_mask(attention_mask, batch, width, inputs.device, "attention_mask")
        if attention_mask is not None:
            raise ValueError(
                "attention_mask and input_mask are both given, each the other's reverse; give one of them"
            )
        return ~as_mask(input_mask, batch, width, inputs.device, "input_mask")

    def _memory(self, state: Tensor) -> Tensor:
        """Entry of `mems` for one layer's input [batch, tokens, d_model]: [positions, batch, d_model]."""
        memory = state.transpose(0, 1)[: self.config.reuse_len or None]
        return memory[-(self.config.mem_len or 0) :].detach()

    # For `SequenceClassifier`: relative positions do not limit the length, token types are any integers.
    max_tokens = None

    def check_token_types(self, token_types: Tensor | None) -> None:
        """Accept any token types, since attention only compares them for equality."""


class XLNetSequenceSummary(nn.Module):
    """Pooling of each text to one vector: first token, last token or mean, then an optional linear layer."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.kind = config.summary_type
        self.activation = config.summary_activation or None
        self.first_dropout = getattr(config, "summary_first_dropout", 0.0)
        self.last_dropout = config.summary_last_dropout
        self.summary = nn.Linear(config.d_model, config.d_model) if config.summary_use_proj else None

    def forward(self, hidden: Tensor, cu_tokens: Tensor) -> Tensor:
        """Pool packed hidden states [tokens, d_model] to one vector per text, [texts, d_model]."""
        if self.kind == "mean":
            pooled = mean_pool(hidden, cu_tokens)
        else:
            pooled = hidden[cu_tokens[:-1].long() if self.kind == "first" else last_indices(cu_tokens)]
        pooled = F.dropout(pooled, self.first_dropout, self.training)
        if self.summary is not None:
            pooled = apply_linear(self.summary, pooled, self.activation)
        elif pooled.requires_grad or pooled.device.type != "cpu":
            pooled = activate(pooled, self.activation)
        else:
            pooled = activate_(pooled, self.activation)  # an element's bits do not depend on its position
        return F.dropout(pooled, self.last_dropout, self.training)


class XLNetForSequenceClassification(SequenceClassifier, XLNetCheckpoint):
    """XLNet sequence classifier: linear classification head on each text's pooled vector."""

    base_name = "transformer"
    output_class = XLNetForSequenceClassificationOutput
    ignored_keys = XLNetCheckpoint.ignored_keys[:1]
    fresh_keys = (r"^(sequence_summary|logits_proj)\.",)

    forward = declare_forward(LOGITS, f"{_TEXT} labels use_mems {OUTPUT_FLAGS}")

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.transformer = XLNetModel(config)
        self.sequence_summary = XLNetSequenceSummary(config)
        self.logits_proj = nn.Linear(config.d_model, labels_of(config))
        self.initialize()

    def run_base(self, **inputs: Any) -> XLNetModelOutput:
        return self.transformer.run_padded(**inputs)

    def token_mask(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None = None,
        input_mask: Tensor | None = None,
        **inputs: Any,
    ) -> Tensor:
        """Mask of real tokens, bool [batch, tokens], False at padding; ValueError for a row without any."""
        if input_mask is not None:
            attention_mask = input_mask.logical_not()
        return super().token_mask(hidden, attention_mask)

    def pool(self, hidden: Tensor, cu_tokens: Tensor, token_ids: Tensor | None) -> Tensor:
        """Pool packed hidden states [tokens, d_model] to one vector per text, [texts, d_model]."""
        return self.sequence_summary(hidden, cu_tokens)

    def classify(self, pooled: Tensor) -> Tensor:
        return apply_linear(self.logits_proj, pooled)

    def packed_logits(self, token_ids: Tensor, cu_tokens: Tensor, token_types: Tensor | None) -> Tensor:
        hidden = self.transformer.forward_packed(token_ids, cu_tokens, token_types)
        return self.classify(self.pool(hidden, cu_tokens, token_ids))
