"""Speech encoders with text decoders against transformers: ten pairs, random weights, odd sizes."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import STATES, assert_close, assert_gradients_close, pad_rows, two_stacks
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import chi2_contingency
from torch import Tensor
from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextEncoder

import tritone

SAMPLES = (1700, 2901, 5003)
EIGHT = (900, 1231, 1700, 2048, 2901, 3333, 4096, 5003)

# Every 80th sample a token.
WAVE = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "conv_dim": (12, 20, 28),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 7, 3),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 20,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
SQUEEZED = {"squeeze_factor": 2, "num_hidden_layers": 3}
SPECTRUM = {
    "d_model": 36,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 50,
    "conv_channels": 24,
    "conv_kernel_sizes": (5, 3),
    "input_feat_per_channel": 13,
}
BERT = {
    "vocab_size": 83,
    "hidden_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 61,
    "max_position_embeddings": 60,
}
GPT2 = {"vocab_size": 71, "n_embd": 36, "n_layer": 3, "n_head": 2, "n_positions": 64, "bos_token_id": 1}
# As many encoder layers as decoder layers: transformers makes its cache for those.
BART = two_stacks(97, 28, layers=(2, 2), heads=(7, 7), feed_forward=(45, 45), max_position_embeddings=70)
START = {"decoder_start_token_id": 3, "eos_token_id": 4}


@dataclass(frozen=True)
class Spec:
    """A pair.

    Args:
        encoder, decoder: names of transformers' configurations, without "Config".
        encoder_fields, decoder_fields: their fields that are not the defaults.
        fields: of the whole.
        seed: of the weights, at which transcripts differ and some end.
    """

    encoder: str
    encoder_fields: dict[str, Any]
    decoder: str
    decoder_fields: dict[str, Any]
    fields: dict[str, Any] = field(default_factory=dict)
    seed: int = field(kw_only=True)


SPECS = {
    "wav2vec2-bert": Spec("Wav2Vec2", WAVE, "Bert", BERT, START, seed=10),
    "wav2vec2-stable-gpt2": Spec(
        "Wav2Vec2", WAVE | STABLE, "GPT2", GPT2, {"eos_token_id": 4, "pad_token_id": 0}, seed=18
    ),
    "wav2vec2-adapter-mbart": Spec(
        "Wav2Vec2",
        WAVE | STABLE | {"add_adapter": True, "num_adapter_layers": 2},
        "MBart",
        BART | {"scale_embedding": True},
        {"decoder_start_token_id": 5},
        seed=32,
    ),
    "hubert-bart": Spec("Hubert", WAVE, "Bart", BART, seed=5),
    "hubert-stable-roberta": Spec(
        "Hubert",
        WAVE | STABLE | {"feat_proj_layer_norm": False},
        "Roberta",
        BERT | {"pad_token_id": 1},
        START,
        seed=32,
    ),
    "unispeech-roberta": Spec(
        "UniSpeech", WAVE, "Roberta", BERT | {"tie_word_embeddings": False, "pad_token_id": 1}, START, seed=3
    ),
    "unispeech-sat-mbart": Spec(
        "UniSpeechSat", WAVE | STABLE, "MBart", BART, {"decoder_start_token_id": 5}, seed=6
    ),
    "sew-gpt2": Spec(
        "SEW",
        WAVE | SQUEEZED,
        "GPT2",
        GPT2 | {"scale_attn_by_inverse_layer_idx": True},
        {"eos_token_id": 4},
        seed=3,
    ),
    "sew-d-bert": Spec("SEWD", WAVE | SQUEEZED, "Bert", BERT | {"hidden_act": "relu"}, START, seed=9),
    "speech2text-bart": Spec(
        "Speech2Text", SPECTRUM, "Bart", BART | {"activation_function": "relu"}, seed=26
    ),
}
TOLERANCE = {"sew-d-bert": 2e-4}


@dataclass(frozen=True)
class Pair:
    """One checkpoint in both libraries."""

    name: str
    folder: Path
    theirs: Any
    ours: Any

    def recording(self, samples: int) -> Tensor:
        """A waveform [1, samples], or features of as many seconds; unlike the one of another length."""
        draw = torch.Generator().manual_seed(samples)
        if SPECS[self.name].encoder == "Speech2Text":
            frames, width = samples // 40, SPECTRUM["input_feat_per_channel"]
            timbre = torch.randn(width, generator=draw)
            return (torch.randn(frames, width, generator=draw) + timbre)[None]
        time = torch.arange(samples) / 16000
        pitch = 80 + 300 * torch.rand(3, 1, generator=draw)
        tones = torch.sin(2 * torch.pi * pitch * time * (1 + time)).sum(0)
        return (tones + 0.3 * torch.randn(samples, generator=draw))[None]

    def batch(self, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Recordings padded to one length, and their mask."""
        return pad_rows([self.recording(samples)[0] for samples in lengths], 0, "right")


def draw_weights(model: Any, seed: int) -> None:
    """Weights at which outputs vary with the input.

    Norms and biases are drawn too: at their usual ones and zeros, leaving one out would go unnoticed.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if name.endswith("weight.original0"):
                parameter.copy_(3 + 0.5 * noise)
            elif parameter.dim() == 1 and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(1.5 * noise / parameter[0].numel() ** 0.5)
        head = model.decoder.get_output_embeddings().weight
        head[model.generation_config.eos_token_id] *= 2.0


def make_pair(name: str, folder: Path) -> Pair:
    spec = SPECS[name]
    encoder = getattr(transformers, f"{spec.encoder}Config")(**spec.encoder_fields)
    decoder = getattr(transformers, f"{spec.decoder}Config")(**spec.decoder_fields)
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder, decoder, **spec.fields
    )
    # As a whole model Speech2Text has a decoder of its own.
    parts = {"encoder": Speech2TextEncoder(encoder)} if spec.encoder == "Speech2Text" else {}
    theirs = transformers.SpeechEncoderDecoderModel(config, **parts).eval()
    draw_weights(theirs, spec.seed)
    theirs.set_attn_implementation("eager")  # which returns attention weights
    theirs.save_pretrained(folder)
    return Pair(name, folder, theirs, tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder))


@pytest.fixture(scope="module")
def pair_named(tmp_path_factory: pytest.TempPathFactory, _quiet: None) -> Callable[[str], Pair]:
    """Both libraries' model of a pair, made when first asked for. Leave them as they are."""
    return cache(lambda name: make_pair(name, tmp_path_factory.mktemp(name)))


@pytest.fixture
def pair(request: pytest.FixtureRequest, pair_named: Callable[[str], Pair]) -> Pair:
    """Each pair in turn, or those that a test names."""
    return pair_named(request.param)


every_pair = pytest.mark.parametrize("pair", SPECS, indirect=True)


@every_pair
def test_logits_hidden_states_and_attentions_agree(pair: Pair) -> None:
    for samples in SAMPLES:
        inputs = pair.recording(samples)
        tokens = torch.randint(6, 70, (1, 9), generator=torch.Generator().manual_seed(samples))
        with torch.no_grad():
            theirs = pair.theirs(inputs, decoder_input_ids=tokens, **STATES)
            ours = pair.ours(inputs, decoder_input_ids=tokens, **STATES)
        for name in set(theirs) - {"encoder_attentions"}:
            assert_close(ours[name], theirs[name], TOLERANCE.get(pair.name, 1e-4))


@every_pair
@pytest.mark.parametrize("beams", [1, 4])
def test_the_same_tokens_are_decoded(pair: Pair, beams: int) -> None:
    sequences = []
    for samples in SAMPLES:
        inputs = pair.recording(samples)
        theirs = pair.theirs.generate(inputs, num_beams=beams, max_length=30)
        ours = pair.ours.generate(inputs, num_beams=beams, max_length=30)
        assert ours.tolist() == theirs.tolist(), samples
        sequences.append(tuple(ours[0].tolist()))
    assert len(set(sequences)) == len(SAMPLES)


@every_pair
def test_the_same_tokens_are_decoded_behind_a_prompt(pair: Pair) -> None:
    inputs = pair.recording(SAMPLES[0])
    prompt = torch.randint(6, 70, (1, 18), generator=torch.Generator().manual_seed(5))
    for options in ({}, {"num_beams": 3, "length_penalty": 2.0}):
        options = {"max_new_tokens": 9, "decoder_input_ids": prompt, **options}
        theirs, ours = (model.generate(inputs, **options) for model in (pair.theirs, pair.ours))
        assert ours.tolist() == theirs.tolist()
        assert ours[0, 1:19].tolist() == prompt[0].tolist()


@pytest.mark.parametrize("pair", ["hubert-bart", "unispeech-sat-mbart"], indirect=True)
def test_the_token_that_bart_forces_at_the_end_comes(pair: Pair) -> None:
    end = pair.theirs.config.decoder.forced_eos_token_id
    for beams in (1, 4):
        for length in (2, 3, 7):
            ours = pair.ours.generate(pair.recording(2901), num_beams=beams, max_length=length)
            assert (
                ours.tolist()
                == pair.theirs.generate(pair.recording(2901), num_beams=beams, max_length=length).tolist()
            )
            assert ours[0, -1] == end


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "length_penalty": 0.4, "early_stopping": True},
        {"num_beams": 4, "num_return_sequences": 3, "no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.7, "min_length": 12},
        {"forced_bos_token_id": 11, "suppress_tokens": [7, 8], "max_new_tokens": 15},
        {"eos_token_id": [4, 9, 20]},
    ],
    ids=str,
)
@pytest.mark.parametrize("pair", ["wav2vec2-bert", "wav2vec2-adapter-mbart"], indirect=True)
def test_options_of_generate_do_the_same(pair: Pair, options: dict[str, Any]) -> None:
    for samples in SAMPLES:
        inputs = pair.recording(samples)
        options = {"max_length": 25, **options} if "max_new_tokens" not in options else options
        assert (
            pair.ours.generate(inputs, **options).tolist() == pair.theirs.generate(inputs, **options).tolist()
        )


@pytest.mark.parametrize("where", ["decoder", "whole", "both"])
def test_an_old_repository_keeps_its_options_in_config_json(
    where: str, pair_named: Callable[[str], Pair], tmp_path: Path, edit_json: Callable[..., None]
) -> None:
    pair = pair_named("wav2vec2-adapter-mbart")
    folder = tmp_path / "old"
    pair.theirs.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    options = {"num_beams": 3, "max_length": 12, "no_repeat_ngram_size": 2}
    if where != "whole":
        nested = json.loads((folder / "config.json").read_text())["decoder"]
        edit_json(folder / "config.json", decoder={**nested, **options, "max_length": 9})
    if where != "decoder":
        edit_json(folder / "config.json", **options)
    ours = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder)
    theirs = transformers.SpeechEncoderDecoderModel.from_pretrained(folder)
    inputs = pair.recording(5003)
    decoded = ours.generate(inputs).tolist()
    assert decoded == theirs.generate(inputs).tolist()
    assert (
        decoded
        == ours.generate(inputs, **{**options, "max_length": 9 if where == "decoder" else 12}).tolist()
    )
    assert decoded != ours.generate(inputs, num_beams=1, no_repeat_ngram_size=0, max_length=12).tolist()


@every_pair
def test_what_is_saved_here_loads_in_transformers(pair: Pair, tmp_path: Path) -> None:
    pair.ours.save_pretrained(tmp_path)
    inputs, tokens = pair.recording(1700), torch.tensor([[6, 17, 30, 8]])
    if pair.name != "speech2text-bart":  # transformers would load all of Speech2Text as the encoder
        theirs, report = transformers.SpeechEncoderDecoderModel.from_pretrained(
            tmp_path, output_loading_info=True
        )
        assert not any(report.values()), report
        logits = theirs.eval()(inputs, decoder_input_ids=tokens).logits
        wanted = pair.theirs(inputs, decoder_input_ids=tokens).logits
        torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)
        for part in ("encoder", "decoder"):
            fields, before = (getattr(one.config, part).to_dict() for one in (theirs, pair.theirs))
            assert {**fields, "dtype": None} == {**before, "dtype": None}
    again = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)
    assert again.config.to_dict() == pair.ours.config.to_dict()
    assert torch.equal(
        again(inputs, decoder_input_ids=tokens).logits, pair.ours(inputs, decoder_input_ids=tokens).logits
    )


@pytest.mark.parametrize("pair", ["wav2vec2-bert", "sew-gpt2", "speech2text-bart"], indirect=True)
def test_labels_give_the_same_loss_and_gradients(pair: Pair) -> None:
    labels = torch.tensor([[8, 20, 31, 4, -100]])
    special = {"decoder_start_token_id": 3, "pad_token_id": 1}
    losses = []
    for model in (pair.theirs, pair.ours):
        before = {name: getattr(model.config, name, None) for name in special}
        for name, token in special.items():
            setattr(model.config, name, token)
        model.zero_grad()
        loss = model(pair.recording(1700), labels=labels).loss
        loss.backward()
        losses.append(loss.item())
        for name, token in before.items():
            setattr(model.config, name, token)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert_gradients_close(pair.ours, pair.theirs, atol=2e-4)
    for model in (pair.ours, pair.theirs):
        model.zero_grad()


def test_sampling_agrees_in_distribution(pair_named: Callable[[str], Pair]) -> None:
    pair = pair_named("wav2vec2-stable-gpt2")
    inputs, draws = pair.recording(1700), 2000
    options = {"do_sample": True, "max_length": 3, "top_k": 12, "temperature": 0.8}
    torch.manual_seed(20)
    rows = pair.theirs.generate(inputs, num_return_sequences=draws, **options).tolist()
    theirs = Counter(tuple(row) for row in rows)
    ours: Counter[tuple[int, ...]] = Counter()
    for seed in range(draws // 100):
        rows = pair.ours.generate(inputs, num_return_sequences=100, seed=seed, **options).tolist()
        ours.update(tuple(row) for row in rows)
    frequent = [sequence for sequence, count in (ours + theirs).items() if count >= 20]
    assert len(frequent) > 4
    table = [[counts[sequence] for sequence in frequent] for counts in (ours, theirs)]
    table = [[*row, draws - sum(row)] for row in table]
    assert chi2_contingency(table).pvalue > 1e-4


@every_pair
def test_a_row_of_a_padded_batch_equals_the_row_alone(pair: Pair) -> None:
    values, mask = pair.batch(EIGHT)
    tokens = torch.randint(6, 70, (8, 5), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        batch = pair.ours(values, attention_mask=mask, decoder_input_ids=tokens).logits
        for row, samples in enumerate(EIGHT):
            alone = pair.ours(pair.recording(samples), decoder_input_ids=tokens[row : row + 1]).logits
            assert torch.equal(batch[row], alone[0]), samples


@every_pair
@pytest.mark.parametrize("beams", [1, 4])
def test_what_generate_returns_for_a_recording_does_not_depend_on_the_batch(pair: Pair, beams: int) -> None:
    options = {
        "num_beams": beams,
        "max_length": 14,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    alone = [pair.ours.generate(pair.recording(samples), **options) for samples in EIGHT]
    for order in (range(8), (5, 0, 7, 2, 1, 6, 3, 4)):
        values, mask = pair.batch(tuple(EIGHT[index] for index in order))
        batch = pair.ours.generate(values, attention_mask=mask, **options)
        for row, index in enumerate(order):
            own = alone[index]
            steps = len(own.scores)
            assert torch.equal(batch.sequences[row, : own.sequences.shape[1]], own.sequences[0])
            rows = slice(row * beams, (row + 1) * beams)
            for step in range(steps):
                assert torch.equal(batch.scores[step][rows], own.scores[step]), (index, step)
            if beams > 1:
                assert batch.sequences_scores[row] == own.sequences_scores[0]


def test_a_checkpoint_with_speech2text2_says_what_it_said_in_transformers_4(tmp_path: Path) -> None:
    """`golden/make_wav2vec2_to_speech_to_text_2.py` made what is compared here, and says how."""
    path = Path(__file__).with_name("golden") / "wav2vec2_to_speech_to_text_2.safetensors"
    golden = load_file(path)
    weights = {name.removeprefix("weights."): golden[name] for name in golden if name.startswith("weights.")}
    for index, suffix in enumerate(("weight_g", "weight_v")):  # as on the Hub
        new = f"encoder.encoder.pos_conv_embed.conv.parametrizations.weight.original{index}"
        weights[f"encoder.encoder.pos_conv_embed.conv.{suffix}"] = weights.pop(new)
    save_file(weights, tmp_path / "model.safetensors")
    with safe_open(path, "pt") as file:
        (tmp_path / "config.json").write_text(file.metadata()["config.json"])
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)
    lengths = sorted(int(name.removeprefix("inputs.")) for name in golden if name.startswith("inputs."))
    assert len({str(golden[f"{how}.{samples}"]) for how in ("greedy", "beams") for samples in lengths}) > 4
    for samples in lengths:
        inputs = golden[f"inputs.{samples}"]
        logits = model(inputs, decoder_input_ids=torch.tensor([[2, 7, 1, 19, 30]])).logits
        torch.testing.assert_close(logits, golden[f"logits.{samples}"], atol=1e-4, rtol=0)
        assert torch.equal(model.generate(inputs, num_beams=1), golden[f"greedy.{samples}"])
        # Beams and length are the decoder's own in config.json.
        assert torch.equal(model.generate(inputs), golden[f"beams.{samples}"])
    model.save_pretrained(tmp_path / "again")
    again = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "again")
    assert torch.equal(again.generate(inputs), golden[f"beams.{samples}"])
