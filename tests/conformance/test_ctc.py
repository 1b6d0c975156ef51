"""CTC models against transformers: logits, loss, text, times of words, on checkpoints that it wrote."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from factories import tiny_wav2vec2_config
from parity import STATES, assert_close, assert_fields_close
from torch import Tensor

import tritone

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
LENGTHS = [700, 16_000, 4_321, 25_000, 9_999, 1_840, 12_345, 20_001]  # samples
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# What each checkpoint is: its family, and fields that are not the tiny configuration's.
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", {}),
    "wav2vec2-stable": ("Wav2Vec2", {**STABLE, "ctc_loss_reduction": "mean", "num_conv_pos_embeddings": 6}),
    "wav2vec2-adapter": (
        "Wav2Vec2",
        {"add_adapter": True, "num_adapter_layers": 1, "output_hidden_size": 18, "hidden_act": "gelu_new"},
    ),
    "hubert": ("Hubert", {"ctc_zero_infinity": True}),
    "hubert-stable": ("Hubert", {**STABLE, "feat_proj_layer_norm": False}),
    "unispeech": ("UniSpeech", {"ctc_loss_reduction": "none"}),
    "unispeech-sat": ("UniSpeechSat", STABLE),
    "sew": ("SEW", {"squeeze_factor": 2}),
    "sew-d": ("SEWD", {"max_position_embeddings": 40, "position_buckets": 6, "feature_layer_norm_eps": 1e-5}),
}


class Case:
    """A checkpoint with both models and both processors."""

    def __init__(self, folder: Path, family: str, fields: dict[str, Any]) -> None:
        self.folder = folder
        vocabulary = folder / "letters.json"
        vocabulary.write_text(json.dumps({letter: index for index, letter in enumerate(LETTERS)}))
        masks = fields.get("feat_extract_norm") == "layer"
        transformers.Wav2Vec2Processor(
            transformers.Wav2Vec2FeatureExtractor(return_attention_mask=masks),
            transformers.Wav2Vec2CTCTokenizer(str(vocabulary)),
        ).save_pretrained(folder)
        torch.manual_seed(0)
        config = tiny_wav2vec2_config(getattr(transformers, f"{family}Config"), **fields)
        config._attn_implementation = "eager"  # the only one that returns attention weights
        self.theirs = getattr(transformers, f"{family}ForCTC")(config).eval()
        with torch.no_grad():
            for parameter in self.theirs.parameters():
                if parameter.dim() > 1:
                    torch.nn.init.xavier_normal_(parameter, gain=1.5)
            self.theirs.lm_head.weight.normal_(std=0.5)
            self.theirs.lm_head.bias[:5] = torch.tensor([3.0, -3.0, -3.0, -3.0, 3.0])  # blanks and words
        self.theirs.save_pretrained(folder)
        self.ours = tritone.AutoModelForCTC.from_pretrained(folder)
        self.their_processor = transformers.Wav2Vec2Processor.from_pretrained(folder)
        self.processor = tritone.AutoProcessor.from_pretrained(folder)

    def inputs(self, waveform: np.ndarray) -> Tensor:
        """[1, samples] by transformers."""
        return self.their_processor(waveform, sampling_rate=16_000, return_tensors="pt").input_values

    def own_inputs(self, waveform: np.ndarray) -> Tensor:
        """[1, samples] by Tritone."""
        return self.processor(waveform, sampling_rate=16_000, return_tensors="pt").input_values


@pytest.fixture(scope="module", params=SPECS)
def case(request, tmp_path_factory) -> Case:
    family, fields = SPECS[request.param]
    return Case(tmp_path_factory.mktemp(request.param), family, fields)


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    found = []
    for seed, samples in enumerate(LENGTHS):
        generator = np.random.default_rng(seed)
        time = np.arange(samples) / 16_000
        tone = np.sin(2 * np.pi * generator.uniform(100, 3000) * time) * (np.sin(40 * time + seed) > 0)
        found.append((0.3 * tone + 0.05 * generator.standard_normal(samples)).astype(np.float32))
    return found


def test_logits_text_and_times_are_transformers(case, waveforms):
    texts = set()
    for waveform in waveforms:
        inputs = case.inputs(waveform)
        with torch.no_grad():
            wanted = case.theirs(inputs).logits
            found = case.ours(case.own_inputs(waveform))
        assert_close(found.logits, wanted)
        options = {"output_word_offsets": True, "output_char_offsets": True}
        theirs = case.their_processor.decode(wanted[0].argmax(-1), **options)
        ours = case.processor.decode(found.logits[0].argmax(-1), **options)
        assert ours.text == theirs.text
        assert ours.word_offsets == theirs.word_offsets
        assert ours.char_offsets == theirs.char_offsets
        texts.add(theirs.text)
    assert len(texts) > 4
    assert any(" " in text for text in texts)


def test_the_loss_is_transformers_whatever_is_masked(case, waveforms):
    generator = torch.Generator().manual_seed(1)
    for waveform in waveforms[1:4]:
        labels = torch.randint(1, len(LETTERS), (1, 12), generator=generator)
        labels[0, 7:] = torch.tensor([-100, 3, 0, -100, -100])  # 0 is the blank
        with torch.no_grad():
            wanted = case.theirs(case.inputs(waveform), labels=labels)
            found = case.ours(case.inputs(waveform), labels=labels)
        assert_close(found.loss, wanted.loss, 1e-3, 1e-5)
        assert float(found.loss.sum()) > 0


def test_the_loss_of_a_padded_batch_is_that_of_its_rows(case, waveforms):
    batch = case.processor(waveforms[:4], sampling_rate=16_000, return_tensors="pt", padding=True)
    labels = torch.tensor([[7, -100], [5, 9], [4, 4], [30, 6]])
    with torch.no_grad():
        found = case.ours(batch.input_values, attention_mask=batch.attention_mask, labels=labels).loss
        rows = torch.stack(
            [
                case.theirs(case.inputs(waveform), labels=row[None]).loss.reshape(())
                for waveform, row in zip(waveforms[:4], labels, strict=True)
            ]
        )
    reduction = case.ours.config.ctc_loss_reduction
    wanted = {"sum": rows.sum(), "mean": rows.mean(), "none": rows}[reduction]
    assert_close(found, wanted, 1e-3, 1e-5)


def test_hidden_states_and_attentions_come_with_the_logits(case, waveforms):
    inputs = case.inputs(waveforms[0])
    with torch.no_grad():
        found = case.ours(inputs, **STATES)
        wanted = case.theirs(inputs, **STATES)
        plain = case.ours(inputs, return_dict=False, labels=torch.tensor([[5]]))
    assert found.keys() == ["logits", "hidden_states", "attentions"]
    assert_fields_close(found, wanted)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[1], found.logits)


def test_a_row_of_a_padded_batch_equals_the_row_alone(case, waveforms):
    batch = case.processor(waveforms, sampling_rate=16_000, return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = case.ours(batch.input_values, attention_mask=batch.attention_mask).logits
        for row, waveform in zip(logits, waveforms, strict=True):
            alone = case.ours(case.own_inputs(waveform)).logits[0]
            assert torch.equal(row[: len(alone)], alone)


def test_the_engine_says_what_transformers_says_of_each_recording_alone(case, waveforms):
    ratio = case.theirs.config.inputs_to_logits_ratio * (
        2 if case.folder.name.startswith("wav2vec2-a") else 1
    )
    with tritone.Engine(case.folder, device="cpu") as engine:
        for result, waveform in zip(engine.transcribe(waveforms), waveforms, strict=True):
            with torch.no_grad():
                logits = case.theirs(case.inputs(waveform)).logits[0]
            read = case.their_processor.decode(logits.argmax(-1), output_word_offsets=True)
            assert result.text == read.text
            assert [(word.text, word.start, word.end) for word in result.words] == [
                (one["word"], one["start_offset"] * ratio / 16_000, one["end_offset"] * ratio / 16_000)
                for one in read.word_offsets
            ]
            assert result.score == pytest.approx(logits.log_softmax(-1).amax(-1).mean().item(), abs=1e-4)


def test_what_tritone_saves_transformers_loads(case, waveforms, tmp_path):
    case.ours.save_pretrained(tmp_path)
    case.processor.save_pretrained(tmp_path)
    model, report = transformers.AutoModelForCTC.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = transformers.Wav2Vec2Processor.from_pretrained(tmp_path)
    inputs = processor(waveforms[0], sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        found, wanted = model.eval()(inputs).logits, case.theirs(inputs).logits
    assert_close(found, wanted, 1e-5)
