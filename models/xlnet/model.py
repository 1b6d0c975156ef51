"""XLNet (arXiv 1906.08237): a text encoder with relative positions, and its classifier."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.activation import activate, activate_
from ...kernels.linear.gemm import linear
from ...kernels.pooling.mean_pool import mean_pool
from ...kernels.runtime.packing import cumulative, pack, spans, unpack
from ...scheduler.model_protocol import Task
from ..core.classification import classification_loss, first_rows, last_rows
from ..core.config import PretrainedConfig
from ..core.model import PretrainedModel
from ..core.outputs import ModelOutput, as_asked
from ..core.padding import as_mask, pad_weights, unpack_all
from ..core.parameters import ParametersMixin
from .config import XLNetConfig
from .layers import Layout, XLNetLayer, XLNetRelativeAttention, position_features


@dataclass
class XLNetModelOutput(ModelOutput):
    """last_hidden_state [batch, tokens, d_model], zero where the input was padding; each layer's mems, [kept,
    batch, d_model]."""

    last_hidden_state: Tensor
    mems: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class XLNetForSequenceClassificationOutput(ModelOutput):
    """loss (a scalar, with labels), logits [batch, labels], and what the model without its head gave."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    mems: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class XLNetCheckpoint(PretrainedModel):
    """How checkpoints of XLNet name what they hold, and how fresh weights are drawn."""

    config_class: ClassVar[type[PretrainedConfig]] = XLNetConfig
    base_prefix: ClassVar[str | tuple[str, ...]] = "transformer."
    main_input_name: ClassVar[str] = "input_ids"
    # The heads of other tasks.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        r"^(lm_loss|start_logits|end_logits|answer_class|qa_outputs|classifier)\.",
        r"^(sequence_summary|logits_proj)\.",
    )

    def initialize(self) -> None:
        """Fresh weights as transformers draws them."""
        super().initialize()
        for module in self.modules():
            if isinstance(module, XLNetRelativeAttention):
                module.initialize()
            elif isinstance(module, XLNetModel):
                nn.init.normal_(module.mask_emb, std=self.config.init_std)


class XLNetModel(XLNetCheckpoint, ParametersMixin):
    """XLNet without a head.

    What pretraining alone uses is refused by name: `perm_mask`, `target_mapping` (hence no second stream),
    `mems` as an input, and `bi_data`.

    Args:
        config: sizes and constants; weights are fresh.

    Raises:
        ValueError: `bi_data`, with which half of the rows of a batch would read their positions backwards.
    """

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        if config.bi_data:
            raise ValueError(
                "bi_data=True is for pretraining: what it makes of a text depends on its place in the batch; "
                "set bi_data=False in the configuration, as fine-tuned models have it"
            )
        self.word_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.mask_emb = nn.Parameter(torch.empty(1, 1, config.d_model))
        self.layer = nn.ModuleList(XLNetLayer(config) for _ in range(config.n_layer))
        self.initialize()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Any = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> XLNetModelOutput | tuple[Any, ...]:
        """Hidden states of every given token; each row's are what they would be alone.

        Args:
            input_ids: int64 [batch, tokens].
            attention_mask: [batch, tokens], 1 for tokens that are there, on whichever side; all by default.
            mems, perm_mask, target_mapping: refused.
            token_type_ids: int64 [batch, tokens], any numbers: scores depend on whether two are equal. None
                is not the same as all alike only in the last bit.
            input_mask: the reverse of attention_mask, 1 for tokens that are not there.
            inputs_embeds: [batch, tokens, d_model] instead of input_ids.
            use_mems: also return each layer's input, detached, as `mem_len` and `reuse_len` say; by default
                as `use_mems_eval` or, in training, `use_mems_train` says.
            output_attentions: also return attention weights, [batch, heads, tokens, tokens] for each layer.
            output_hidden_states: also return what is embedded and each layer's output.
            return_dict: False for a plain tuple.

        Raises:
            ValueError: inputs that are missing, do not fit, or are of pretraining.
        """
        output, _, _ = self.run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            mems=mems,
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
            input_mask=input_mask,
            use_mems=use_mems,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return as_asked(output, return_dict, self.config)

    def run_padded(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        mems: Any = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> tuple[XLNetModelOutput, Tensor, Tensor]:
        """`forward` with all arguments by name.

        Returns:
            The output, and the last hidden states as they are inside: packed, [tokens, d_model], and their
            cu_seqlens.
        """
        for name, given in (("mems", mems), ("perm_mask", perm_mask), ("target_mapping", target_mapping)):
            if given is not None:
                raise ValueError(
                    f"{name} is not supported: it is for pretraining and generation, and classification does "
                    "without; leave it out"
                )
        config = self.config
        given = self._given(input_ids, inputs_embeds)
        mask = self._mask(given, attention_mask, input_mask)
        cu_tokens = cumulative(mask.sum(1))
        segments = None
        if token_type_ids is not None:
            if token_type_ids.shape != mask.shape:
                raise ValueError(
                    f"token_type_ids must be {list(mask.shape)}, got {list(token_type_ids.shape)}"
                )
            segments = pack(token_type_ids.to(mask.device), mask)
        if use_mems is None:
            use_mems = config.use_mems_train if self.training else config.use_mems_eval
        keep = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        record = config.output_attentions if output_attentions is None else output_attentions
        states: list[Tensor] | None = [] if keep or use_mems else None
        weights: list[list[Tensor]] | None = [] if record else None
        hidden = self.packed(pack(given, mask), cu_tokens, segments, states=states, weights=weights)
        padded = unpack_all(states, mask)
        output = XLNetModelOutput(
            last_hidden_state=unpack(hidden, mask),
            mems=tuple(map(self._memory, padded[:-1])) if use_mems and padded is not None else None,
            hidden_states=padded if keep else None,
            attentions=pad_weights(weights, mask, mask),
        )
        return output, hidden, cu_tokens

    def packed(
        self,
        given: Tensor,
        cu_tokens: Tensor,
        segments: Tensor | None = None,
        *,
        states: list[Tensor] | None = None,
        weights: list[list[Tensor]] | None = None,
    ) -> Tensor:
        """Packed texts to hidden states [tokens, d_model].

        Args:
            given: token ids [tokens], or instead of them embeddings [tokens, d_model].
            cu_tokens: int32 [n + 1].
            segments: token types [tokens]; None without any.
            states: gets what is embedded and each layer's output.
            weights: gets each layer's attention weights, see `Layout`.
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
        hidden = self.word_embedding(given) if given.dim() == 1 else given.to(self.dtype)
        hidden = F.dropout(hidden, config.dropout, training)
        if states is not None:
            states.append(hidden)
        for layer in self.layer:
            hidden = layer(hidden, layout)
            if states is not None:
                states.append(hidden)
        return F.dropout(hidden, config.dropout, training)

    def _given(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Whichever of the two was given, checked."""
        width, vocabulary = self.config.d_model, self.word_embedding.weight.shape[0]
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is not None:
            if inputs_embeds.dim() != 3 or inputs_embeds.shape[2] != width:
                raise ValueError(
                    f"inputs_embeds must be [batch, tokens, {width}], got {list(inputs_embeds.shape)}"
                )
            return inputs_embeds
        assert input_ids is not None
        if input_ids.dim() != 2:
            raise ValueError(f"input_ids must be [batch, tokens], got {list(input_ids.shape)}")
        if input_ids.numel() and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < vocabulary:
            raise ValueError(
                f"input_ids go from {int(input_ids.min())} to {int(input_ids.max())}, and the model knows "
                f"tokens 0 to {vocabulary - 1}"
            )
        return input_ids

    def _mask(self, given: Tensor, attention_mask: Tensor | None, input_mask: Tensor | None) -> Tensor:
        """Where there are tokens, bool [batch, tokens]."""
        batch, width = given.shape[:2]
        if input_mask is None:
            return as_mask(attention_mask, batch, width, given.device, "attention_mask")
        if attention_mask is not None:
            raise ValueError(
                "attention_mask and input_mask are both given, each the other's reverse; give one of them"
            )
        return ~as_mask(input_mask, batch, width, given.device, "input_mask")

    def _memory(self, state: Tensor) -> Tensor:
        """What of a layer's input [batch, tokens, d_model] counts as `mems`: [kept, batch, d_model]."""
        memory = state.transpose(0, 1)[: self.config.reuse_len or None]
        return memory[-(self.config.mem_len or 0) :].detach()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.word_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.word_embedding = value


class XLNetSequenceSummary(nn.Module):
    """One vector a text, for a classifier: of a token or of all, mapped where that is configured."""

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__()
        self.kind = config.summary_type
        self.activation = config.summary_activation or None
        self.first_dropout = getattr(config, "summary_first_dropout", 0.0)
        self.last_dropout = config.summary_last_dropout
        self.summary = nn.Linear(config.d_model, config.d_model) if config.summary_use_proj else None

    def forward(self, hidden: Tensor, cu_tokens: Tensor) -> Tensor:
        """Packed [tokens, d_model] to [texts, d_model]."""
        pool = {"first": first_rows, "mean": mean_pool}.get(self.kind, last_rows)
        pooled = F.dropout(pool(hidden, cu_tokens), self.first_dropout, self.training)
        if self.summary is not None:
            pooled = linear(pooled, self.summary.weight, self.summary.bias, activation=self.activation)
        elif pooled.requires_grad or pooled.device.type != "cpu":
            pooled = activate(pooled, self.activation)
        else:
            pooled = activate_(pooled, self.activation)  # an element's bits do not depend on its place
        return F.dropout(pooled, self.last_dropout, self.training)


class XLNetForSequenceClassification(XLNetCheckpoint, ParametersMixin):
    """XLNet with a map of each text's summary to labels.

    Args:
        config: sizes and constants; weights are fresh.
    """

    task: ClassVar[Task] = Task.SEQUENCE_CLASSIFICATION
    has_token_types: ClassVar[bool] = True
    ignored_keys: ClassVar[tuple[str, ...]] = XLNetCheckpoint.ignored_keys[:1]
    fresh_keys: ClassVar[tuple[str, ...]] = (r"^(sequence_summary|logits_proj)\.",)

    def __init__(self, config: XLNetConfig) -> None:
        super().__init__(config)
        self.transformer = XLNetModel(config)
        self.sequence_summary = XLNetSequenceSummary(config)
        self.logits_proj = nn.Linear(config.d_model, config.num_labels)
        self.initialize()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: Any = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_mems: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> XLNetForSequenceClassificationOutput | tuple[Any, ...]:
        """Logits [batch, labels], each row's what they would be alone, and with labels the loss.

        Args:
            labels: [batch] or [batch, labels], see `classification_loss`.

        The other arguments are `XLNetModel.forward`'s.

        Raises:
            ValueError: inputs or labels that do not fit, or a row without tokens.
        """
        output, hidden, cu_tokens = self.transformer.run_padded(
            input_ids,
            inputs_embeds,
            attention_mask=attention_mask,
            mems=mems,
            perm_mask=perm_mask,
            target_mapping=target_mapping,
            token_type_ids=token_type_ids,
            input_mask=input_mask,
            use_mems=use_mems,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        if any(start == end for start, end in spans(cu_tokens)):
            raise ValueError("attention_mask has a row without tokens; every text needs at least one")
        logits = self._logits(hidden, cu_tokens)
        finished = XLNetForSequenceClassificationOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            mems=output.mems,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return as_asked(finished, return_dict, self.config)

    # What the engine drives: packed in, a row of logits a text out.

    def encoder_length(self, tokens: int) -> int:
        """Places in the model for so many tokens; there is no most.

        Raises:
            ValueError: none at all.
        """
        if tokens < 1:
            raise ValueError("a text without tokens cannot be classified; give at least one")
        return tokens

    def predict(self, features: Tensor, cu_tokens: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The logits of packed texts, for `EncoderOnlyModel`.

        Args:
            features: int64 [tokens, 1], or [tokens, 2] with token types.
            cu_tokens: int32 [n + 1].

        Returns:
            logits, float32 [n, labels], and their cu_seqlens.
        """
        segments = features[:, 1] if features.shape[1] > 1 else None
        hidden = self.transformer.packed(features[:, 0], cu_tokens, segments)
        logits = self._logits(hidden, cu_tokens).float()
        return {"logits": (logits, cumulative([1] * len(logits), logits.device))}

    def _logits(self, hidden: Tensor, cu_tokens: Tensor) -> Tensor:
        head = self.logits_proj
        return linear(self.sequence_summary(hidden, cu_tokens), head.weight, head.bias)

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.transformer.word_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.transformer.word_embedding = value
