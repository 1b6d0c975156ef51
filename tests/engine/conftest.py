"""Small checkpoints with random weights, written to disk, and engines on them."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

import tritone

WORDS = "zero one two three four five six seven eight nine the quick brown fox jumps over lazy dogs and cats"
LANGUAGES = ["pt", "fr", "ru", "nl", "ro", "it", "es", "de"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A monolingual checkpoint whose greedy results differ from recording to recording."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def multilingual(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("multilingual"), lang_codes="mustc")


@pytest.fixture(scope="session")
def ctc_checkpoint(tmp_path_factory) -> Path:
    """A CTC checkpoint of 20 ms a frame that says other things of other recordings."""
    return write_ctc_checkpoint(tmp_path_factory.mktemp("ctc"))


@pytest.fixture(scope="session")
def lower_case_ctc_checkpoint(tmp_path_factory) -> Path:
    return write_ctc_checkpoint(tmp_path_factory.mktemp("lower"), do_lower_case=True)


@pytest.fixture(scope="session")
def audio_classifier(tmp_path_factory) -> Path:
    """A classifier of recordings, 20 ms a frame, that says other things of other ones."""
    return write_audio_classifier(tmp_path_factory.mktemp("audio-classifier"))


@pytest.fixture(scope="session")
def text_classifier(tmp_path_factory) -> Path:
    """A classifier of texts of at most 24 tokens, for which it matters what is the second text of a pair."""
    return write_text_classifier(tmp_path_factory.mktemp("text-classifier"))


@pytest.fixture
def engine(checkpoint):
    with tritone.Engine(checkpoint, device="cpu", num_rows=8) as engine:
        yield engine


@pytest.fixture
def audio(audio_classifier):
    """An engine on the classifier of recordings."""
    with tritone.Engine(audio_classifier, device="cpu") as engine:
        yield engine


@pytest.fixture
def texts(text_classifier):
    """An engine on the classifier of texts."""
    with tritone.Engine(text_classifier, device="cpu") as engine:
        yield engine


@pytest.fixture(scope="session")
def waveforms() -> list[np.ndarray]:
    """Twenty recordings of 0.3 to 2.5 s: sums of a few tones that come and go, in noise."""
    return [waveform(seed) for seed in range(20)]


def waveform(seed: int, rate: int = 16_000) -> np.ndarray:
    generator = np.random.default_rng(seed)
    time = np.arange(int(generator.uniform(0.3, 2.5) * rate)) / rate
    tones = [
        np.sin(2 * np.pi * generator.uniform(100, 3500) * time)
        * (np.sin(2 * np.pi * generator.uniform(0.5, 4) * time + generator.uniform(0, 6)) > 0)
        for _ in range(4)
    ]
    return (0.1 * np.sum(tones, axis=0) + 0.01 * generator.standard_normal(len(time))).astype(np.float32)


def write_checkpoint(folder: Path, lang_codes: str | None = None) -> Path:
    """A folder with model, feature extractor and tokenizer, as tritone's own save_pretrained writes them."""
    vocabulary = write_vocabulary(folder, LANGUAGES if lang_codes else [])
    options = {"lang_codes": lang_codes} if lang_codes else {}
    tokenizer = tritone.Speech2TextTokenizer(
        folder / "vocab.json", folder / "sentencepiece.bpe.model", **options
    )
    tritone.Speech2TextProcessor(tritone.Speech2TextFeatureExtractor(), tokenizer).save_pretrained(folder)
    config = tritone.Speech2TextConfig(
        vocab_size=vocabulary,
        d_model=24,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        conv_channels=32,
        max_source_positions=200,
        max_target_positions=64,
    )
    torch.manual_seed(0)
    model = tritone.Speech2TextForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.xavier_normal_(parameter, gain=2.0)
    model.save_pretrained(folder)
    return folder


def write_vocabulary(folder: Path, languages: list[str]) -> int:
    """sentencepiece.bpe.model and vocab.json; returns how many tokens there are."""
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


def write_ctc_checkpoint(folder: Path, **options: bool) -> Path:
    """A folder with model, feature extractor and tokenizer; `options` are the tokenizer's."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    (folder / "letters.json").write_text(json.dumps({letter: index for index, letter in enumerate(letters)}))
    tokenizer = tritone.Wav2Vec2CTCTokenizer(folder / "letters.json", **options)
    tritone.Wav2Vec2Processor(tritone.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    config = tritone.Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        conv_dim=(12, 16, 20),
        conv_kernel=(12, 9, 4),
        conv_stride=(10, 8, 4),
        num_conv_pos_embeddings=9,
        num_conv_pos_embedding_groups=3,
    )
    torch.manual_seed(0)
    model = tritone.Wav2Vec2ForCTC(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.xavier_normal_(parameter, gain=1.5)
        model.lm_head.weight.normal_(std=0.5)
        model.lm_head.bias[:5] = torch.tensor([3.0, -99.0, -99.0, -99.0, 3.0])  # blanks, words, no <s>
    model.save_pretrained(folder)
    return folder


def write_audio_classifier(folder: Path) -> Path:
    """A folder with model and feature extractor; there is no tokenizer."""
    config = tritone.HubertConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        conv_dim=(12, 16, 20),
        conv_kernel=(12, 9, 4),
        conv_stride=(10, 8, 4),
        num_conv_pos_embeddings=9,
        num_conv_pos_embedding_groups=3,
        use_weighted_layer_sum=True,
        classifier_proj_size=12,
        id2label=dict(enumerate(["calm", "happy", "sad", "angry", "tab\there", "other"])),
    )
    torch.manual_seed(0)
    model = tritone.HubertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.xavier_normal_(parameter, gain=1.5)
        model.classifier.weight.normal_(std=3)
    model.save_pretrained(folder)
    tritone.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def write_text_classifier(folder: Path) -> Path:
    """A folder with a BERT and its tokenizer."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), ",", ".", "##s", "##er"]
    words += list("abcdefghijklmnopqrstuvwxyz")
    (folder / "vocab.txt").write_text("\n".join(words))
    tritone.BertTokenizer(folder / "vocab.txt").save_pretrained(folder)
    config = tritone.BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=36,
        max_position_embeddings=24,
        id2label={0: "no", 1: "yes", 2: "maybe"},
    )
    torch.manual_seed(0)
    model = tritone.BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    model.save_pretrained(folder)
    return folder
