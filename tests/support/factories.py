"""Configurations of tiny models, and checkpoints of them with random weights, written to disk.

Tests import this as `factories`: pyproject.toml puts tests/support on their path.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from torch.nn.init import normal_, xavier_normal_

import tritone

# Arguments of transformers' from_pretrained that change nothing for a folder.
OF_TRANSFORMERS = {
    "state_dict": None,
    "from_tf": False,
    "from_flax": False,
    "force_download": True,
    "resume_download": True,
    "proxies": {"http": "foo.bar:3128"},
    "local_files_only": True,
    "revision": "v1.0",
    "trust_remote_code": False,
}

WORDS = "zero one two three four five six seven eight nine the quick brown fox jumps over lazy dogs and cats"
LANGUAGES = ["pt", "fr", "ru", "nl", "ro", "it", "es", "de"]
SPEECH_TO_TEXT: dict[str, Any] = {
    "vocab_size": 40,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "conv_channels": 32,
    "max_source_positions": 200,
    "max_target_positions": 64,
}
WHISPER: dict[str, Any] = {
    "vocab_size": 40,
    "num_mel_bins": 8,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_source_positions": 20,
    "max_target_positions": 32,
    "classifier_proj_size": 10,
    "pad_token_id": 2,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
    "begin_suppress_tokens": None,
}
BERT: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "max_position_embeddings": 24,
}
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
SMALLEST_SPEECH_TO_TEXT = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "conv_channels"), 8)
SMALLEST_SPEECH_TO_TEXT |= {"encoder_layers": 1, "decoder_layers": 1}
SMALLEST_SPEECH_TO_TEXT |= {"max_source_positions": 20, "max_target_positions": 20}


def waveform(seed: int, rate: int = 16_000) -> np.ndarray:
    """A recording of 0.3 to 2.5 s, float32 [samples]: a few tones that come and go, in noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(generator.uniform(0.3, 2.5) * rate)) / rate
    tones = [
        np.sin(2 * np.pi * generator.uniform(100, 3500) * time)
        * (np.sin(2 * np.pi * generator.uniform(0.5, 4) * time + generator.uniform(0, 6)) > 0)
        for _ in range(4)
    ]
    return (0.1 * np.sum(tones, axis=0) + 0.01 * generator.standard_normal(len(time))).astype(np.float32)


def tiny_speech_to_text_config(**changes: Any) -> tritone.Speech2TextConfig:
    """Two layers of width 24 on each half, 200 encoder and 64 decoder positions."""
    return tritone.Speech2TextConfig(**{**SPEECH_TO_TEXT, **changes})


def smallest_speech_to_text_config(**changes: Any) -> tritone.Speech2TextConfig:
    """One layer of width 8 on each half, 20 positions: for tests of files."""
    return tiny_speech_to_text_config(**{**SMALLEST_SPEECH_TO_TEXT, **changes})


def tiny_wav2vec2_config(config_class: Any = None, **changes: Any) -> Any:
    """Two layers of width 24, 20 ms a frame; `config_class` may be HuBERT's or another relative's."""
    sizes = {
        "vocab_size": len(LETTERS),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "conv_dim": (12, 16, 20),
        "conv_kernel": (12, 9, 4),
        "conv_stride": (10, 8, 4),
        "num_conv_pos_embeddings": 9,
        "num_conv_pos_embedding_groups": 3,
    }
    return (config_class or tritone.Wav2Vec2Config)(**{**sizes, **changes})


def tiny_whisper_config(config_class: Any = None, **changes: Any) -> Any:
    """Two layers of width 24 on each half, 40 frames and 32 decoder positions; any library's class."""
    return (config_class or tritone.WhisperConfig)(**{**WHISPER, **changes})


def tiny_bert_config(**changes: Any) -> tritone.BertConfig:
    """Two layers of width 24 with three heads, 24 positions."""
    return tritone.BertConfig(**{**BERT, **changes})


def seeded(model_class: Any, *args: Any, seed: int = 0, init: Callable[[Any], Any] | None = None) -> Any:
    """A model in evaluation mode whose weights depend on the seed alone.

    Args:
        model_class: the class, or any function that makes the model.
        args: its arguments, a configuration.
        init: fills each matrix anew; Xavier's distribution with twice its deviation by default, with which
            results differ from input to input.
    """
    torch.manual_seed(seed)
    model = model_class(*args)
    init = init or partial(xavier_normal_, gain=2.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                init(parameter)
    return model.eval()


def add_noise(model: Any, deviation: float) -> Any:
    """Add noise to every parameter, so that each matters; returns the model in evaluation mode."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(deviation * torch.randn_like(parameter))
    return model.eval()


def write_vocabulary(folder: Path, languages: list[str]) -> int:
    """Write sentencepiece.bpe.model and vocab.json; returns the number of tokens."""
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(WORDS.split() * 20 + [WORDS] * 20))
    prefix = folder / "sentencepiece.bpe"
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(prefix), vocab_size=90, model_type="bpe", minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens += [piece for i in range(len(pieces)) if (piece := pieces.id_to_piece(i)) not in tokens]
    tokens += [f"<lang:{language}>" for language in languages]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    return len(tokens)


def write_checkpoint(folder: Path, lang_codes: str | None = None, **changes: Any) -> Path:
    """A Speech2Text model, its feature extractor and tokenizer; greedy results differ between recordings.

    `changes` are fields of the configuration.
    """
    vocabulary = write_vocabulary(folder, LANGUAGES if lang_codes else [])
    options = {"lang_codes": lang_codes} if lang_codes else {}
    tokenizer = tritone.Speech2TextTokenizer(
        folder / "vocab.json", folder / "sentencepiece.bpe.model", **options
    )
    tritone.Speech2TextProcessor(tritone.Speech2TextFeatureExtractor(), tokenizer).save_pretrained(folder)
    config = tiny_speech_to_text_config(vocab_size=vocabulary, **changes)
    seeded(tritone.Speech2TextForConditionalGeneration, config).save_pretrained(folder)
    return folder


def write_ctc_checkpoint(folder: Path, **tokenizer_options: bool) -> Path:
    """A wav2vec 2.0 CTC model, its feature extractor and tokenizer; results differ between recordings."""
    (folder / "letters.json").write_text(json.dumps({letter: index for index, letter in enumerate(LETTERS)}))
    tokenizer = tritone.Wav2Vec2CTCTokenizer(folder / "letters.json", **tokenizer_options)
    tritone.Wav2Vec2Processor(tritone.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    model = seeded(tritone.Wav2Vec2ForCTC, tiny_wav2vec2_config(), init=partial(xavier_normal_, gain=1.5))
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5)
        model.lm_head.bias[:5] = torch.tensor([3.0, -99.0, -99.0, -99.0, 3.0])  # blanks, words, no <s>
    model.save_pretrained(folder)
    return folder


def write_audio_classifier(folder: Path) -> Path:
    """A HuBERT classifier of six labels and its feature extractor; there is no tokenizer."""
    config = tiny_wav2vec2_config(
        tritone.HubertConfig,
        vocab_size=32,
        use_weighted_layer_sum=True,
        classifier_proj_size=12,
        id2label=dict(enumerate(["calm", "happy", "sad", "angry", "tab\there", "other"])),
    )
    model = seeded(tritone.HubertForSequenceClassification, config, init=partial(xavier_normal_, gain=1.5))
    with torch.no_grad():
        model.classifier.weight.normal_(std=3)
    model.save_pretrained(folder)
    tritone.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def write_text_classifier(folder: Path) -> Path:
    """A BERT classifier of texts of at most 24 tokens, and its tokenizer; a pair's order matters to it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), ",", ".", "##s", "##er"]
    words += list("abcdefghijklmnopqrstuvwxyz")
    (folder / "vocab.txt").write_text("\n".join(words))
    tritone.BertTokenizer(folder / "vocab.txt").save_pretrained(folder)
    config = tiny_bert_config(vocab_size=len(words), id2label={0: "no", 1: "yes", 2: "maybe"})
    model = seeded(tritone.BertForSequenceClassification, config, init=partial(normal_, std=0.4))
    model.save_pretrained(folder)
    return folder


def edit_json(path: Path, **fields: object) -> None:
    """Set fields of a JSON file, and drop those given as None."""
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
