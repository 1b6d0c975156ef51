"""Text decoders: arguments, paged decoding, options of a configuration, and checkpoints of other classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import BERT_SIZES, STATES, assert_close, draw_weights
from text_decoders import (
    BART,
    BART_NAMES,
    BERT,
    GPT2,
    GPT2_SIZES,
    MBART,
    OTHER_NAMES,
    ROBERTA,
    SPECS,
    Decoder,
)
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

import tritone
from tritone.scheduler.model_protocol import Task
from tritone.scheduler.request import GenerationOptions, Request

not_bart = pytest.mark.parametrize("decoder", OTHER_NAMES, indirect=True)
one_each = pytest.mark.parametrize("decoder", ["bart-odd", "mbart-odd"], indirect=True)


@not_bart
@torch.inference_mode()
def test_arguments_come_in_the_same_order(decoder: Any) -> None:
    tokens, encoded = decoder.tokens(5), decoder.encoded(3)
    mask, types, positions = (
        torch.ones(1, 5, dtype=torch.int64),
        torch.zeros_like(tokens),
        torch.arange(5)[None],
    )
    source_mask = torch.ones(1, 3, dtype=torch.int64)
    if decoder.config.model_type == "gpt2":
        given = (tokens, None, mask, types, positions + 3, None, encoded, source_mask)
        labels, rest = (tokens, False), (None, False, 3)
    else:
        given = (tokens, mask, types, positions + 7, None, encoded, source_mask)
        labels, rest = (tokens, None, False), (None, None, False, 3)
    for more in (labels, rest):
        wanted, output = decoder.theirs(*given, *more), decoder.ours(*given, *more)
        assert output.keys() == list(wanted.keys())
        assert_close(output.to_tuple(), wanted.to_tuple())
    # The model without a head takes the same, but for labels and what comes after.
    assert_close(decoder.ours.get_decoder()(*given)[0], decoder.base(*given)[0])


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


@not_bart
@torch.inference_mode()
def test_decoding_in_pages_agrees_and_is_the_same_alone_and_among_others(decoder: Any, run_loop: Any) -> None:
    sources = (4, 11, 1, 6, 3, 17, 8, 2)
    padding = decoder.config.pad_token_id
    options = GenerationOptions(max_length=20, decoder_start_token_id=3, forced_bos_token_id=padding)
    requests = [Request(index, decoder.encoded(source)[0], options) for index, source in enumerate(sources)]
    run = run_loop(Beside(decoder.ours), requests)
    assert run.most_requests == len(sources)
    for index in (0, 4, 7):
        alone = run_loop(Beside(decoder.ours), requests[index : index + 1])
        assert torch.equal(torch.cat(alone.logits[index]), torch.cat(run.logits[index]))
    transcripts = set()
    for index, source in enumerate(sources):
        (hypothesis,) = run.completions[index].hypotheses
        transcripts.add(tuple(hypothesis.token_ids))
        read = torch.tensor([hypothesis.token_ids])[:, :-1]
        past, wanted = EncoderDecoderCache(DynamicCache(), DynamicCache()), []
        given = {"encoder_hidden_states": decoder.encoded(source), "past_key_values": past, "use_cache": True}
        for token in read[0]:
            wanted.append(decoder.theirs(token[None, None], **given).logits[0])
        assert_close(torch.cat(run.logits[index])[: read.shape[1]], torch.cat(wanted))
    assert len(transcripts) > 4


@one_each
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_new", "gelu_fast", "silu", "swish", "tanh"])
@torch.inference_mode()
def test_each_activation_agrees(decoder: Any, activation: str) -> None:
    ours, theirs = decoder.load(activation_function=activation)
    given = {"input_ids": decoder.tokens(), "encoder_hidden_states": decoder.encoded()}
    assert_close(ours(**given).logits, theirs(**given).logits)


@one_each
@torch.inference_mode()
def test_layer_drop_of_one_skips_every_layer(decoder: Any) -> None:
    ours, theirs = decoder.load(dropout=0.0, decoder_layerdrop=1.0)
    tokens, encoded = decoder.tokens(), decoder.encoded()
    output = ours.train()(tokens, encoder_hidden_states=encoded, use_cache=True, **STATES)
    wanted = theirs.train()(tokens, encoder_hidden_states=encoded, use_cache=False)
    assert_close(output.logits, wanted.logits)
    assert output.attentions == ()
    assert output.past_key_values is None


@pytest.mark.parametrize("name", BART_NAMES)
@pytest.mark.parametrize("whole", ["ForConditionalGeneration", "Model"])
@pytest.mark.filterwarnings("error")
def test_the_decoder_is_taken_out_of_a_checkpoint_with_an_encoder(
    name: str, whole: str, tmp_path: Path
) -> None:
    # transformers itself leaves the embedding fresh where encoder and decoder share it: it looks for the
    # decoder's own name.
    (config_name, model_name), fields = SPECS[name]
    config = getattr(transformers, config_name)(**fields)
    model = getattr(transformers, config_name.replace("Config", whole))(config).eval()
    draw_weights(model)
    model.save_pretrained(tmp_path)
    load = getattr(tritone, model_name).from_pretrained
    if whole == "Model" and not config.tie_word_embeddings:
        with pytest.raises(ValueError, match=r"missing: lm_head\.weight"):
            load(tmp_path)
        return
    ours = load(tmp_path)
    decoder = Decoder(tmp_path, model, ours)
    tokens, encoded = decoder.tokens(), decoder.encoded()
    with torch.inference_mode():
        hidden = getattr(model, "model", model).decoder(tokens, encoder_hidden_states=encoded)[0]
        head = ours.lm_head if whole == "Model" else model.lm_head
        assert_close(ours(tokens, encoder_hidden_states=encoded).logits, head(hidden))
        assert_close(ours.get_decoder()(tokens, encoder_hidden_states=encoded).last_hidden_state, hidden)
    assert (ours.lm_head.weight is ours.get_input_embeddings().weight) == config.tie_word_embeddings


# Classes of the same family that write checkpoints a decoder is made of, and their fields.
OTHERS = {
    **dict.fromkeys(("BertModel", "BertForMaskedLM", "BertForPreTraining"), (*BERT, BERT_SIZES)),
    **dict.fromkeys(("RobertaModel", "RobertaForMaskedLM"), (*ROBERTA, BERT_SIZES)),
    **dict.fromkeys(("GPT2Model", "GPT2LMHeadModel"), (*GPT2, GPT2_SIZES)),
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


@pytest.mark.parametrize("name", [config for config, _ in (BERT, ROBERTA, GPT2, BART, MBART)])
def test_a_configuration_has_transformers_fields_and_defaults(name: str) -> None:
    ours, theirs = getattr(tritone, name)(), getattr(transformers, name)()
    for field, value in ours.to_dict().items():
        assert getattr(theirs, field) == value, field
    inherited = {"keys_to_ignore_at_inference", "attribute_map", "base_model_tp_plan", "base_model_pp_plan"}
    fields = {field for field in type(theirs).__annotations__ if not field.startswith("_")} - inherited
    assert len(fields) > 15
    assert fields <= {*ours.to_dict()}
    assert type(ours).adopt(theirs).to_dict().items() >= ours.to_dict().items()
