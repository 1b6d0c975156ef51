"""BERT, RoBERTa and GPT-2 as decoders beside an encoder, against transformers at batch size 1."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import BERT_SIZES, ODD_BERT_SIZES, STATES, assert_close, assert_fields_close, draw_weights
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

import tritone
from tritone.scheduler.model_protocol import Task
from tritone.scheduler.request import GenerationOptions, Request

GPT2 = {"vocab_size": 61, "n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 40, "eos_token_id": 2}
ODD_BERT = ODD_BERT_SIZES | {"type_vocab_size": 1, "tie_word_embeddings": False}
# A family's configuration and model, and fields that are not its defaults.
SPECS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertLMHeadModel", BERT_SIZES),
    "bert-odd": ("BertConfig", "BertLMHeadModel", {**ODD_BERT, "pad_token_id": None}),
    "bert-relu-one-head": (
        "BertConfig",
        "BertLMHeadModel",
        {
            **BERT_SIZES,
            "hidden_act": "relu",
            "num_attention_heads": 1,
            "pad_token_id": 7,
            "type_vocab_size": 5,
        },
    ),
    "roberta": ("RobertaConfig", "RobertaForCausalLM", BERT_SIZES),
    "roberta-odd": ("RobertaConfig", "RobertaForCausalLM", {**ODD_BERT, "pad_token_id": 6}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "gpt2-odd": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            **GPT2,
            "n_embd": 33,
            "n_head": 11,
            "n_inner": 50,
            "scale_attn_weights": False,
            "activation_function": "relu",
            "layer_norm_epsilon": 1e-3,
            "tie_word_embeddings": False,
        },
    ),
    "gpt2-by-layer": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            **GPT2,
            "n_layer": 4,
            "n_inner": 23,
            "scale_attn_by_inverse_layer_idx": True,
            "reorder_and_upcast_attn": True,
        },
    ),
}


@dataclass(frozen=True)
class Models:
    """One checkpoint in both libraries."""

    folder: Path
    theirs: Any
    ours: Any

    @property
    def width(self) -> int:
        return self.theirs.config.hidden_size

    def tokens(self, count: int, padding: bool = False) -> Tensor:
        """Tokens [1, count], different for every count; with two padding tokens where there is one."""
        draw = torch.Generator().manual_seed(count)
        tokens = torch.randint(8, self.theirs.config.vocab_size, (1, count), generator=draw)
        if padding and self.theirs.config.pad_token_id is not None:
            tokens[0, [3, 4]] = self.theirs.config.pad_token_id
        return tokens

    def encoded(self, count: int) -> Tensor:
        """Encoder output [1, count, width]."""
        draw = torch.Generator().manual_seed(100 + count)
        return torch.randn(1, count, self.width, generator=draw)

    @property
    def base(self) -> Any:
        """Their model without its head."""
        return self.theirs.base_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Models]:
    return {}


@pytest.fixture(params=list(SPECS))
def models(request: pytest.FixtureRequest, made: Any, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Each checkpoint of `SPECS` in both libraries, written by transformers. Leave them as they are."""
    name = request.param
    if name not in made:
        folder = tmp_path_factory.mktemp(name)
        config_name, model_name, given = SPECS[name]
        config = getattr(transformers, config_name)(**given, is_decoder=True, add_cross_attention=True)
        torch.manual_seed(sum(map(ord, name)))
        model = getattr(transformers, model_name)(config)
        draw_weights(model)
        model.save_pretrained(folder)
        theirs = type(model).from_pretrained(folder, attn_implementation="eager").eval()
        made[name] = Models(folder, theirs, getattr(tritone, model_name).from_pretrained(folder))
    return made[name]


@torch.inference_mode()
def test_every_field_agrees_by_name_and_as_a_tuple(models: Models) -> None:
    tokens, encoded = models.tokens(9, padding=True), models.encoded(13)
    given = {"encoder_hidden_states": encoded, **STATES}
    wanted = models.theirs(tokens, **given)
    assert {"past_key_values", "hidden_states", "attentions", "cross_attentions"} < set(wanted)
    assert_fields_close(models.ours(tokens, **given), wanted)
    assert_close(
        models.ours(tokens, **given, return_dict=False), models.theirs(tokens, **given, return_dict=False)
    )


@torch.inference_mode()
def test_the_loss_agrees_and_so_does_what_comes_with_it(models: Models) -> None:
    tokens, encoded = models.tokens(9, padding=True), models.encoded(13)
    labels = tokens.masked_fill(torch.arange(9) % 4 == 1, -100)
    wanted = models.theirs(tokens, encoder_hidden_states=encoded, labels=labels)
    output = models.ours(tokens, encoder_hidden_states=encoded, labels=labels)
    assert output.keys() == list(wanted.keys())
    assert_close(output.loss, wanted.loss)
    last = models.ours(tokens, encoder_hidden_states=encoded, logits_to_keep=2).logits
    assert torch.equal(last, output.logits[:, -2:])


@torch.inference_mode()
def test_arguments_come_in_the_same_order(models: Models) -> None:
    tokens, encoded = models.tokens(5), models.encoded(3)
    mask, types, positions = (
        torch.ones(1, 5, dtype=torch.int64),
        torch.zeros_like(tokens),
        torch.arange(5)[None],
    )
    source_mask = torch.ones(1, 3, dtype=torch.int64)
    if models.theirs.config.model_type == "gpt2":
        given = (tokens, None, mask, types, positions + 3, None, encoded, source_mask)
        labels, rest = (tokens, False), (None, False, 3)
    else:
        given = (tokens, mask, types, positions + 7, None, encoded, source_mask)
        labels, rest = (tokens, None, False), (None, None, False, 3)
    for more in (labels, rest):
        wanted, output = models.theirs(*given, *more), models.ours(*given, *more)
        assert output.keys() == list(wanted.keys())
        assert_close(output.to_tuple(), wanted.to_tuple())
    # The model without a head takes the same, but for labels and what comes after.
    assert_close(models.ours.get_decoder()(*given)[0], models.base(*given)[0])


@torch.inference_mode()
def test_embeddings_may_stand_for_tokens(models: Models) -> None:
    tokens, encoded = models.tokens(7), models.encoded(4)
    embedded = models.ours.get_input_embeddings()(tokens)
    wanted = models.theirs(inputs_embeds=embedded, encoder_hidden_states=encoded).logits
    assert_close(models.ours(inputs_embeds=embedded, encoder_hidden_states=encoded).logits, wanted)
    assert_close(models.ours(tokens, encoder_hidden_states=encoded).logits, wanted)


@torch.inference_mode()
def test_a_decoder_without_an_encoder_leaves_cross_attention_out(models: Models) -> None:
    tokens = models.tokens(9, padding=True)
    wanted = models.theirs(tokens, output_hidden_states=True)
    output = models.ours(tokens, output_hidden_states=True)
    assert_close(output.logits, wanted.logits)
    assert_close(output.hidden_states, wanted.hidden_states)
    assert [len(layer) for layer in output.past_key_values] == [2] * models.theirs.config.num_hidden_layers


@torch.inference_mode()
def test_decoding_token_by_token_agrees_however_the_past_is_carried(models: Models) -> None:
    tokens, encoded = models.tokens(8, padding=True), models.encoded(6)
    theirs_past: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
    ours_past: Any = None
    lent_past = EncoderDecoderCache(DynamicCache(), DynamicCache())
    bounds = (0, 3, 4, 5, 8)
    together = models.ours(tokens, encoder_hidden_states=encoded).logits
    for start, end in pairwise(bounds):
        given = {"input_ids": tokens[:, start:end], "encoder_hidden_states": encoded, "use_cache": True}
        wanted = models.theirs(**given, past_key_values=theirs_past)
        theirs_past = wanted.past_key_values
        mine = models.ours(**given, past_key_values=ours_past)
        ours_past = mine.past_key_values
        lent = models.ours(**given, past_key_values=lent_past)
        assert lent.past_key_values is lent_past
        assert_close(mine.logits, wanted.logits)
        assert_close(ours_past, theirs_past)
        assert_close(lent.logits, wanted.logits)
        # RoBERTa counts a padding token that lies in the cache, and none that it reads in the same call.
        if models.theirs.config.model_type != "roberta" or end <= 5:
            assert_close(mine.logits, together[:, start:end])


@torch.inference_mode()
def test_a_row_of_a_padded_batch_equals_the_row_alone(models: Models) -> None:
    lengths, sources = (7, 1, 12, 3, 16, 2, 9, 5), (4, 11, 1, 6, 3, 17, 8, 2)
    tokens = torch.zeros(8, 16, dtype=torch.int64)
    mask, encoded = torch.zeros(8, 16, dtype=torch.int64), torch.randn(8, 17, models.width)
    source_mask = torch.zeros(8, 17, dtype=torch.int64)
    for row, (length, source) in enumerate(zip(lengths, sources, strict=True)):
        own = slice(16 - length, 16) if row % 2 else slice(0, length)  # padded on either side
        tokens[row, own], mask[row, own] = models.tokens(length)[0], 1
        encoded[row, :source], source_mask[row, :source] = models.encoded(source)[0], 1
    output = models.ours(
        tokens, attention_mask=mask, encoder_hidden_states=encoded, encoder_attention_mask=source_mask
    )
    for row, (length, source) in enumerate(zip(lengths, sources, strict=True)):
        alone = models.ours(models.tokens(length), encoder_hidden_states=models.encoded(source)).logits[0]
        assert torch.equal(output.logits[row][mask[row].bool()], alone)


class Beside:
    """A decoder with an encoder that hands on its input: what the runner drives."""

    task = Task.GENERATION

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def encoder_length(self, frames: int) -> int:
        return frames

    def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        return features, cu_frames


@torch.inference_mode()
def test_decoding_in_pages_agrees_and_is_the_same_alone_and_among_others(
    models: Models, run_loop: Any
) -> None:
    sources = (4, 11, 1, 6, 3, 17, 8, 2)
    padding = models.theirs.config.pad_token_id
    options = GenerationOptions(max_length=20, decoder_start_token_id=3, forced_bos_token_id=padding)
    requests = [Request(index, models.encoded(source)[0], options) for index, source in enumerate(sources)]
    run = run_loop(Beside(models.ours), requests)
    assert run.most_requests == len(sources)
    for index in (0, 4, 7):
        alone = run_loop(Beside(models.ours), requests[index : index + 1])
        assert torch.equal(torch.cat(alone.logits[index]), torch.cat(run.logits[index]))
    told = set()
    for index, source in enumerate(sources):
        (hypothesis,) = run.completions[index].hypotheses
        told.add(tuple(hypothesis.token_ids))
        read = torch.tensor([hypothesis.token_ids])[:, :-1]
        past, wanted = EncoderDecoderCache(DynamicCache(), DynamicCache()), []
        given = {"encoder_hidden_states": models.encoded(source), "past_key_values": past, "use_cache": True}
        for token in read[0]:
            wanted.append(models.theirs(token[None, None], **given).logits[0])
        assert_close(torch.cat(run.logits[index])[: read.shape[1]], torch.cat(wanted))
    assert len(told) > 4


def test_gradients_agree(models: Models) -> None:
    tokens, encoded = models.tokens(9, padding=True), models.encoded(5)
    gradients = []
    for model in (models.theirs, models.ours):
        source = encoded.clone().requires_grad_()
        model.zero_grad()
        model(tokens, encoder_hidden_states=source, labels=tokens).loss.backward()
        found = {name: parameter.grad for name, parameter in model.named_parameters()}
        gradients.append({**found, "source": source.grad})
        model.zero_grad()
    wanted, found = gradients
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (gradient is None) == (found[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_what_is_saved_loads_in_transformers(models: Models, tmp_path: Path) -> None:
    models.ours.save_pretrained(tmp_path)
    theirs, report = type(models.theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokens, encoded = models.tokens(6), models.encoded(5)
    with torch.inference_mode():
        wanted = models.theirs(tokens, encoder_hidden_states=encoded).logits
        assert_close(theirs.eval()(tokens, encoder_hidden_states=encoded).logits, wanted)
    again = type(models.ours).from_pretrained(tmp_path)
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in models.ours.state_dict().items())


@pytest.mark.parametrize("name", ["BertConfig", "RobertaConfig", "GPT2Config"])
def test_every_field_of_the_configuration_has_the_same_default(name: str) -> None:
    theirs, ours = getattr(transformers, name), getattr(tritone, name)()
    fields = [field for field in theirs.__annotations__ if not field.startswith("_")]
    assert len(fields) > 15
    for field in fields:
        assert getattr(ours, field) == getattr(theirs(), field), field


# Classes of the same family that write checkpoints a decoder is made of, and their fields.
OTHERS = {
    "BertModel": ("BertConfig", "BertLMHeadModel", BERT_SIZES),
    "BertForMaskedLM": ("BertConfig", "BertLMHeadModel", BERT_SIZES),
    "BertForPreTraining": ("BertConfig", "BertLMHeadModel", BERT_SIZES),
    "RobertaModel": ("RobertaConfig", "RobertaForCausalLM", BERT_SIZES),
    "RobertaForMaskedLM": ("RobertaConfig", "RobertaForCausalLM", BERT_SIZES),
    "GPT2Model": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "GPT2LMHeadModel": ("GPT2Config", "GPT2LMHeadModel", GPT2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_without_cross_attention_becomes_a_decoder_with_a_warning(
    name: str, tmp_path: Path
) -> None:
    config_name, model_name, fields = OTHERS[name]
    torch.manual_seed(1)
    theirs = getattr(transformers, name)(getattr(transformers, config_name)(**fields))
    draw_weights(theirs)
    theirs.save_pretrained(tmp_path)
    wanted = {
        key.removeprefix(f"{theirs.base_model_prefix}."): value for key, value in theirs.state_dict().items()
    }
    config = getattr(tritone, config_name).from_pretrained(tmp_path)
    config.is_decoder = config.add_cross_attention = True
    with pytest.warns(UserWarning, match="crossattention"):
        ours, report = getattr(tritone, model_name).from_pretrained(
            tmp_path, config=config, output_loading_info=True
        )
    headless = {"BertModel", "RobertaModel"}
    for key in report["missing_keys"]:
        assert "cross" in key or name in headless, key
    held = {key.removeprefix(ours.base_prefix): value for key, value in ours.state_dict().items()}
    loaded = [key for key in held if key in wanted]
    assert len(loaded) > 20
    assert all(torch.equal(held[key], wanted[key]) for key in loaded)
    # As they stand: every text is read by causal layers, bidirectional ones in the base models.
    tokens = torch.randint(8, 61, (1, 9), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        if name == "GPT2LMHeadModel":
            assert_close(ours(tokens).logits, theirs.eval()(tokens).logits)


@pytest.mark.parametrize("name", ["BertModel", "RobertaModel", "GPT2Model"])
@torch.inference_mode()
def test_a_model_without_a_head_is_bidirectional_where_it_is_no_decoder(name: str, tmp_path: Path) -> None:
    config_name, _, fields = OTHERS[name]
    torch.manual_seed(2)
    config = getattr(transformers, config_name)(
        **{**fields, "type_vocab_size": 2} if name == "BertModel" else fields
    )
    theirs = getattr(transformers, name)(config)
    draw_weights(theirs)
    theirs.save_pretrained(tmp_path)
    theirs = type(theirs).from_pretrained(tmp_path, attn_implementation="eager").eval()
    ours = getattr(tritone, name).from_pretrained(tmp_path)
    tokens = torch.randint(8, 61, (1, 9), generator=torch.Generator().manual_seed(3))
    types = (torch.arange(9) > 4).long()[None]
    given = {"token_type_ids": types, **STATES} if name != "RobertaModel" else STATES
    wanted, output = theirs(tokens, **given), ours(tokens, **given)
    assert output.keys() == list(wanted.keys())
    for field in wanted:
        assert_close(output[field], wanted[field])
    # Each row of a padded batch is what it is alone, the pooled first token too.
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, :4] = 0
    padded = ours(tokens.expand(2, -1), attention_mask=mask)
    alone = ours(tokens[:, 4:])
    assert torch.equal(padded[0][1, 4:], alone[0][0])
    if name != "GPT2Model":
        assert torch.equal(padded.pooler_output[1], alone.pooler_output[0])
        assert not torch.allclose(output.attentions[0][..., 0, 1], torch.zeros(()))
