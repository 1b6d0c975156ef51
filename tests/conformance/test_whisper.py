"""Whisper against transformers at batch size 1: encoder, logits, losses, gradients, tokens, saved folders."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from factories import tiny_whisper_config
from parity import STATES, assert_close, assert_fields_close, assert_gradients_close, draw_weights, two_stacks
from torch import Tensor

import tritone
from tritone.scheduler.request import Request

# Sizes that a padded or vectorized kernel would like to be rounder than they are.
SPECS: dict[str, dict[str, Any]] = {
    "two-layers": two_stacks(101, 36, layers=(2, 2), heads=(3, 2), feed_forward=(50, 70)),
    "one-layer-relu": two_stacks(53, 20, layers=(1, 1), heads=(2, 5), feed_forward=(33, 17))
    | {"num_mel_bins": 13, "max_source_positions": 9, "activation_function": "relu", "scale_embedding": True},
    "distilled-untied": two_stacks(64, 44, layers=(5, 1), heads=(11, 4), feed_forward=(44, 88))
    | {"num_mel_bins": 16, "max_source_positions": 33, "tie_word_embeddings": False},
    "long-narrow": two_stacks(257, 26, layers=(1, 3), heads=(1, 13), feed_forward=(90, 61))
    | {"max_source_positions": 70, "activation_function": "gelu_new", "pad_token_id": 0, "eos_token_id": 1},
    "english": two_stacks(1000, 96, layers=(2, 2), heads=(6, 6), feed_forward=(384, 384))
    | {"num_mel_bins": 80, "max_source_positions": 150, "bos_token_id": 1, "vocab_size": 999},
}
WEIGHTED = {"use_weighted_layer_sum": True, "encoder_layers": 3, "num_labels": 3}


@dataclass(frozen=True)
class Pair:
    """One checkpoint in both libraries."""

    folder: Path
    theirs: Any
    ours: Any

    def features(self, *seeds: int) -> Tensor:
        """Features [recordings, mels, frames]; a recording's depend on its seed alone."""
        config = self.ours.config
        shape = config.num_mel_bins, 2 * config.max_source_positions
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n in seeds])

    def tokens(self, *seeds: int) -> Tensor:
        """Decoder tokens [recordings, 13] behind the start token, some of them the padding token."""
        config = self.ours.config
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        tokens = torch.stack([torch.randint(4, config.vocab_size, (13,), generator=draw) for draw in draws])
        tokens[:, 0] = config.decoder_start_token_id
        tokens[:, [4, 5]] = config.pad_token_id
        return tokens


def write(folder: Path, model_class: str, **fields: Any) -> None:
    """A checkpoint of transformers, with weights at which outputs vary with the input."""
    torch.manual_seed(11)
    config = tiny_whisper_config(transformers.WhisperConfig, **fields)
    model = getattr(transformers, model_class)(config)
    draw_weights(model)
    model.save_pretrained(folder)


def load(folder: Path, theirs: str, ours: Any) -> Pair:
    """Both libraries' model of a folder."""
    model, report = ours.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    other = getattr(transformers, theirs).from_pretrained(folder, attn_implementation="eager").eval()
    for name, parameter in other.named_parameters():
        # Frozen in a fresh model; loading forgets it.
        parameter.requires_grad_(not name.endswith("encoder.embed_positions.weight"))
    return Pair(folder, other, model)


@pytest.fixture(scope="module")
def whisper_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Both libraries' model of a checkpoint of `SPECS`, made once. Leave them as they are."""

    @cache
    def pair(name: str) -> Pair:
        folder = tmp_path_factory.mktemp(name)
        write(folder, "WhisperForConditionalGeneration", **SPECS[name])
        return load(folder, "WhisperForConditionalGeneration", tritone.AutoModelForSpeechSeq2Seq)

    return pair


@pytest.fixture(params=SPECS)
def case(request: pytest.FixtureRequest, whisper_pair: Callable[[str], Pair]) -> Pair:
    return whisper_pair(request.param)


@torch.inference_mode()
def test_encoder_and_logits_and_every_other_output_are_those_of_transformers(case: Pair) -> None:
    for seed in range(2):
        given = {"input_features": case.features(seed), "decoder_input_ids": case.tokens(seed)}
        wanted = case.theirs(**given, labels=given["decoder_input_ids"], **STATES)
        found = case.ours(**given, labels=given["decoder_input_ids"], **STATES)
        assert_fields_close(found, wanted, rtol=1e-4)  # the first hidden states are large
        for name in ("logits", "encoder_last_hidden_state"):
            assert_close(found[name], wanted[name])
        assert wanted.encoder_last_hidden_state.std() > 0.3  # so that the tolerance means something
        assert wanted.logits.std() > 0.3
        base, their_base = case.ours.model(**given), case.theirs.model(**given)
        assert_fields_close(base, their_base)
        frames = given["input_features"].shape[2]
        packed, cu_tokens = case.ours.encode(given["input_features"][0].T, torch.tensor([0, frames]).int())
        assert_close(packed, wanted.encoder_last_hidden_state[0])
        assert cu_tokens.tolist() == [0, case.ours.encoder_length(frames)]


@torch.inference_mode()
def test_a_call_goes_on_from_the_cache_of_another_in_both_forms(case: Pair) -> None:
    features, tokens = case.features(3, 4), case.tokens(3, 4)
    whole = case.theirs(features, decoder_input_ids=tokens).logits
    for make_cache in (lambda: None, lambda: transformers.EncoderDecoderCache(*caches())):
        first = case.ours(features, decoder_input_ids=tokens[:, :8], past_key_values=make_cache())
        rest = case.ours(
            encoder_outputs=(first.encoder_last_hidden_state,),
            decoder_input_ids=tokens[:, 8:],
            past_key_values=first.past_key_values,
        )
        assert_close(torch.cat([first.logits, rest.logits], 1), whole)


def caches() -> list[Any]:
    return [transformers.DynamicCache(), transformers.DynamicCache()]


@torch.inference_mode()
def test_positions_embeddings_and_masks_of_the_decoder_are_read_as_in_transformers(case: Pair) -> None:
    features, tokens = case.features(5), case.tokens(5)
    embedded = case.theirs.get_input_embeddings()(tokens)
    positions = torch.arange(13)[None] + 2
    mask = torch.ones(1, 13).long()
    mask[:, 10:] = 0
    for given in (
        {"decoder_input_ids": tokens, "decoder_position_ids": positions},
        {"decoder_inputs_embeds": embedded},
        {"decoder_input_ids": tokens, "decoder_attention_mask": mask},
    ):
        found, wanted = case.ours(features, **given).logits, case.theirs(features, **given).logits
        assert_close(found[:, :10], wanted[:, :10])


def test_loss_and_gradients_are_those_of_transformers(whisper_pair: Callable[[str], Pair]) -> None:
    for name in ("two-layers", "distilled-untied"):
        case = whisper_pair(name)
        labels = case.tokens(7, 8)
        labels[1, 9:] = -100
        for model in (case.ours, case.theirs):
            model.zero_grad(set_to_none=True)
            model(case.features(7, 8), labels=labels).loss.backward()
        assert_gradients_close(case.ours, case.theirs, 1e-4)
        assert case.ours.model.encoder.embed_positions.weight.grad is None
        for model in (case.ours, case.theirs):
            model.zero_grad(set_to_none=True)


@torch.inference_mode()
def test_generated_tokens_are_those_of_transformers(case: Pair) -> None:
    for seed in (1, 2):
        features = case.features(seed)
        for options in ({}, {"num_beams": 3, "length_penalty": 0.6}, {"no_repeat_ngram_size": 2}):
            given = {"max_length": 24, **options}
            wanted = case.theirs.generate(features, **given)
            assert case.ours.generate(features, **given).tolist() == wanted.tolist()


@torch.inference_mode()
def test_a_recording_has_the_same_bits_alone_and_in_any_batch(
    whisper_pair: Callable[[str], Pair], run_loop: Any
) -> None:
    for name in ("two-layers", "english"):
        ours = whisper_pair(name).ours
        features = whisper_pair(name).features(*range(5))
        alone = [ours.encode(*ours.pack_inputs(one[None], None))[0] for one in features]
        for order in ([0, 1, 2, 3, 4], [4, 1], [3, 2, 0]):
            packed = ours.pack_inputs(features[order], None)
            for run in (ours.encode, ours.get_encoder().run_packed):
                parts = run(*packed)[0].split(ours.config.max_source_positions)
                for index, part in zip(order, parts, strict=True):
                    assert torch.equal(part, alone[index])
        modes = ({}, {"num_beams": 3}, {"do_sample": True, "seed": 4}, {"no_repeat_ngram_size": 2}, {})
        requests = [
            Request(index, one.T, ours.resolve_options(max_length=20, **options))
            for index, (one, options) in enumerate(zip(features, modes, strict=True))
        ]
        together = run_loop(ours, requests)
        assert together.most_requests == 5
        for request in requests:
            single = run_loop(ours, [request])
            index = request.request_id
            assert single.completions[index].hypotheses == together.completions[index].hypotheses
            assert all(map(torch.equal, single.logits[index], together.logits[index]))


@pytest.mark.parametrize("form", [{}, {"safe_serialization": False}, {"max_shard_size": "20KB"}], ids=str)
def test_a_saved_model_is_the_same_in_both_libraries(
    form: dict[str, Any], whisper_pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    for name in ("two-layers", "distilled-untied"):
        case, folder = whisper_pair(name), tmp_path / name
        case.ours.save_pretrained(folder, **form)
        again = load(folder, "WhisperForConditionalGeneration", tritone.WhisperForConditionalGeneration)
        theirs = case.theirs.state_dict()
        assert theirs.keys() == again.ours.state_dict().keys() == case.ours.state_dict().keys()
        for key, tensor in theirs.items():
            assert torch.equal(again.ours.state_dict()[key], tensor)
            assert torch.equal(again.theirs.state_dict()[key], tensor)
        tied = again.ours.proj_out.weight is again.ours.get_input_embeddings().weight
        assert tied == again.ours.config.tie_word_embeddings
        assert again.theirs.config.to_diff_dict().items() >= case.theirs.config.to_diff_dict().items()


@torch.inference_mode()
def test_the_model_without_head_and_the_decoder_alone_read_a_whole_checkpoint(
    whisper_pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    case = whisper_pair("two-layers")
    features, tokens = case.features(1), case.tokens(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        base = tritone.WhisperModel.from_pretrained(case.folder)
        decoder = tritone.WhisperForCausalLM.from_pretrained(case.folder)
    wanted = case.theirs(features, decoder_input_ids=tokens)
    encoded = wanted.encoder_last_hidden_state
    assert_close(base(features, decoder_input_ids=tokens).encoder_last_hidden_state, encoded)
    their_decoder = transformers.WhisperForCausalLM.from_pretrained(case.folder).eval()
    for given in (encoded, (encoded,), None):
        found = decoder(tokens, encoder_outputs=given, labels=tokens)
        theirs = their_decoder(tokens, encoder_outputs=given, labels=tokens)
        assert_close(found.logits, theirs.logits)
        assert_close(found.loss, theirs.loss)
    base.save_pretrained(tmp_path / "base")
    assert_close(
        transformers.WhisperModel.from_pretrained(tmp_path / "base")
        .eval()(features, decoder_input_ids=tokens)
        .last_hidden_state,
        base(features, decoder_input_ids=tokens).last_hidden_state,
    )


@pytest.fixture(scope="module", params=[{"num_labels": 5}, WEIGHTED], ids=["last", "weighted"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("classifier")
    write(folder, "WhisperForAudioClassification", **request.param)
    return load(folder, "WhisperForAudioClassification", tritone.AutoModelForAudioClassification)


def test_a_classifiers_outputs_and_gradients_are_those_of_transformers(classifier: Pair) -> None:
    labels = torch.tensor([2, 0])
    outputs = []
    for model in (classifier.ours, classifier.theirs):
        model.zero_grad(set_to_none=True)
        output = model(classifier.features(1, 2), labels=labels, **STATES)
        output.loss.backward()
        outputs.append(output)
    assert_fields_close(*outputs)
    assert_gradients_close(classifier.ours, classifier.theirs)
    with torch.no_grad():
        plain = classifier.ours(classifier.features(1, 2))
        assert (plain.loss, plain.hidden_states, plain.attentions) == (None, None, None)
        assert_close(plain.logits, outputs[0].logits)
        encoded = classifier.ours.encoder(classifier.features(1, 2), output_hidden_states=True)
        assert_close(classifier.ours(encoder_outputs=encoded).logits, outputs[0].logits)


@torch.inference_mode()
def test_a_classifier_predicts_packed_recordings_as_it_does_one(classifier: Pair, tmp_path: Path) -> None:
    ours, features = classifier.ours, classifier.features(*range(4))
    logits, cu_rows = ours.predict(*ours.encoder.pack_inputs(features))["logits"]
    assert cu_rows.tolist() == [0, 1, 2, 3, 4]
    for row, one in zip(logits, features, strict=True):
        assert torch.equal(row, ours.predict(*ours.encoder.pack_inputs(one[None]))["logits"][0][0])
        assert_close(row, classifier.theirs(one[None]).logits[0])
    ours.save_pretrained(tmp_path)
    again = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path).eval()
    assert_close(again(features).logits, logits)


def test_a_classifier_gets_a_fresh_head_from_a_checkpoint_of_recognition(
    whisper_pair: Callable[[str], Pair],
) -> None:
    case = whisper_pair("two-layers")
    with pytest.warns(UserWarning, match="classifier.bias; classifier.weight; projector"):
        model = tritone.WhisperForAudioClassification.from_pretrained(case.folder, num_labels=4)
    with torch.no_grad():
        assert model(case.features(1)).logits.shape == (1, 4)
        encoded = model.encoder(case.features(1)).last_hidden_state
        assert torch.equal(encoded, case.ours.get_encoder()(case.features(1)).last_hidden_state)
