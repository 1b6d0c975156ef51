"""The model families, by `model_type`, and how a configuration or checkpoint is known to be of one."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from .files import Checkpoint, read_json


@dataclass(frozen=True)
class Family:
    """The classes of one `model_type`, each as "module.Class" in this package and imported when it is used.

    Args:
        model_type: as in `config.json`.
        names: what a checkpoint's name holds where its configuration does not say the `model_type`.
        config: the configuration.
        speech_seq2seq: speech to text, with `generate`.
        speech_encoder: the model without a head, an encoder for `SpeechEncoderDecoderModel`.
        text_decoder: the causal language model, a decoder for `SpeechEncoderDecoderModel`.
        ctc: the encoder with a CTC head.
        audio_classification: recordings to labels.
        sequence_classification: texts to labels.
        feature_extractor, tokenizer, processor: what makes its inputs and reads its outputs.
        other_tokenizers: further classes that the tokenizer files of its checkpoints name.
    """

    model_type: str
    names: tuple[str, ...]
    config: str
    speech_seq2seq: str | None = None
    speech_encoder: str | None = None
    text_decoder: str | None = None
    ctc: str | None = None
    audio_classification: str | None = None
    sequence_classification: str | None = None
    feature_extractor: str | None = None
    tokenizer: str | None = None
    processor: str | None = None
    other_tokenizers: tuple[str, ...] = ()

    def load(self, kind: str) -> Any:
        """The class of one kind, a field of this table; None where the family has none."""
        path = getattr(self, kind)
        return None if path is None else _class(path)

    def class_name(self, kind: str) -> str:
        """The name of the class of one kind."""
        return str(getattr(self, kind)).rpartition(".")[2]

    def named(self, kind: str, name: str) -> Any:
        """Its class of this kind and name; None where it has none."""
        others = self.other_tokenizers if kind == "tokenizer" else ()
        paths = [path for path in (getattr(self, kind), *others) if path is not None]
        return next((_class(path) for path in paths if path.rpartition(".")[2] == name), None)


FAMILIES = (
    Family(
        "speech_to_text",
        ("speech_to_text", "speech-to-text", "s2t"),
        "speech_to_text_config.Speech2TextConfig",
        speech_seq2seq="speech_to_text.Speech2TextForConditionalGeneration",
        speech_encoder="speech_to_text_encoder.Speech2TextEncoder",
        feature_extractor="speech_to_text_processing.Speech2TextFeatureExtractor",
        tokenizer="speech_to_text_tokenization.Speech2TextTokenizer",
        processor="speech_to_text_processing.Speech2TextProcessor",
    ),
    Family(
        "speech_to_text_2",
        ("speech_to_text_2", "speech-to-text-2"),
        "speech_to_text_2_config.Speech2Text2Config",
        text_decoder="speech_to_text_2.Speech2Text2ForCausalLM",
        tokenizer="speech_to_text_2_tokenization.Speech2Text2Tokenizer",
        processor="wav2vec2_processing.Speech2Text2Processor",
    ),
    Family(
        "bart",
        ("bart",),
        "bart_config.BartConfig",
        text_decoder="bart.BartForCausalLM",
        sequence_classification="bart.BartForSequenceClassification",
        tokenizer="roberta_tokenization.BartTokenizer",
    ),
    Family(
        "mbart",
        ("mbart",),
        "mbart_config.MBartConfig",
        text_decoder="mbart.MBartForCausalLM",
        tokenizer="mbart_tokenization.MBartTokenizer",
        other_tokenizers=("mbart_tokenization.MBart50Tokenizer",),
    ),
    Family(
        "bert",
        ("bert",),
        "bert_config.BertConfig",
        text_decoder="bert.BertLMHeadModel",
        sequence_classification="bert.BertForSequenceClassification",
        tokenizer="bert_tokenization.BertTokenizer",
    ),
    Family(
        "roberta",
        ("roberta",),
        "roberta_config.RobertaConfig",
        text_decoder="roberta.RobertaForCausalLM",
        sequence_classification="roberta.RobertaForSequenceClassification",
        tokenizer="roberta_tokenization.RobertaTokenizer",
    ),
    Family(
        "distilbert",
        ("distilbert",),
        "distilbert_config.DistilBertConfig",
        sequence_classification="distilbert.DistilBertForSequenceClassification",
        tokenizer="distilbert_tokenization.DistilBertTokenizer",
    ),
    Family(
        "albert",
        ("albert",),
        "albert_config.AlbertConfig",
        sequence_classification="albert.AlbertForSequenceClassification",
        tokenizer="albert_tokenization.AlbertTokenizer",
    ),
    Family(
        "gpt2",
        ("gpt2",),
        "gpt2_config.GPT2Config",
        text_decoder="gpt2.GPT2LMHeadModel",
        sequence_classification="gpt2_classification.GPT2ForSequenceClassification",
        tokenizer="gpt2_tokenization.GPT2Tokenizer",
    ),
    Family(
        "gpt_neo",
        ("gpt_neo", "gpt-neo"),
        "gpt_neo_config.GPTNeoConfig",
        sequence_classification="gpt_neo.GPTNeoForSequenceClassification",
        tokenizer="gpt2_tokenization.GPT2Tokenizer",
    ),
    Family(
        "xlnet",
        ("xlnet",),
        "xlnet_config.XLNetConfig",
        sequence_classification="xlnet.XLNetForSequenceClassification",
        tokenizer="xlnet_tokenization.XLNetTokenizer",
    ),
    Family(
        "t5",
        ("t5",),
        "t5_config.T5Config",
        sequence_classification="t5.T5ForSequenceClassification",
        tokenizer="t5_tokenization.T5Tokenizer",
    ),
    Family(
        "speech-encoder-decoder",
        ("speech-encoder-decoder", "speech_encoder_decoder"),
        "speech_encoder_decoder_config.SpeechEncoderDecoderConfig",
        speech_seq2seq="speech_encoder_decoder.SpeechEncoderDecoderModel",
        processor="processing.SpeechProcessor",
    ),
    Family(
        "wav2vec2",
        ("wav2vec2",),
        "wav2vec2_config.Wav2Vec2Config",
        speech_encoder="wav2vec2.Wav2Vec2Model",
        ctc="ctc.Wav2Vec2ForCTC",
        audio_classification="audio_classification.Wav2Vec2ForSequenceClassification",
        feature_extractor="wav2vec2_processing.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2_tokenization.Wav2Vec2CTCTokenizer",
        processor="wav2vec2_processing.Wav2Vec2Processor",
    ),
    Family(
        "hubert",
        ("hubert",),
        "hubert.HubertConfig",
        speech_encoder="hubert.HubertModel",
        ctc="ctc.HubertForCTC",
        audio_classification="audio_classification.HubertForSequenceClassification",
        feature_extractor="wav2vec2_processing.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2_tokenization.Wav2Vec2CTCTokenizer",
        processor="wav2vec2_processing.Wav2Vec2Processor",
    ),
    Family(
        "unispeech",
        ("unispeech",),
        "unispeech.UniSpeechConfig",
        speech_encoder="unispeech.UniSpeechModel",
        ctc="ctc.UniSpeechForCTC",
        audio_classification="audio_classification.UniSpeechForSequenceClassification",
        feature_extractor="wav2vec2_processing.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2_tokenization.Wav2Vec2CTCTokenizer",
        processor="wav2vec2_processing.Wav2Vec2Processor",
    ),
    Family(
        "unispeech-sat",
        ("unispeech-sat", "unispeech_sat"),
        "unispeech_sat.UniSpeechSatConfig",
        speech_encoder="unispeech_sat.UniSpeechSatModel",
        ctc="ctc.UniSpeechSatForCTC",
        audio_classification="audio_classification.UniSpeechSatForSequenceClassification",
        feature_extractor="wav2vec2_processing.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2_tokenization.Wav2Vec2CTCTokenizer",
        processor="wav2vec2_processing.Wav2Vec2Processor",
    ),
    Family(
        "sew",
        ("sew",),
        "sew.SEWConfig",
        speech_encoder="sew.SEWModel",
        ctc="ctc.SEWForCTC",
        audio_classification="audio_classification.SEWForSequenceClassification",
        feature_extractor="wav2vec2_processing.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2_tokenization.Wav2Vec2CTCTokenizer",
        processor="wav2vec2_processing.Wav2Vec2Processor",
    ),
    Family(
        "sew-d",
        ("sew-d", "sew_d"),
        "sew_d.SEWDConfig",
        speech_encoder="sew_d.SEWDModel",
        ctc="ctc.SEWDForCTC",
        audio_classification="audio_classification.SEWDForSequenceClassification",
        feature_extractor="wav2vec2_processing.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2_tokenization.Wav2Vec2CTCTokenizer",
        processor="wav2vec2_processing.Wav2Vec2Processor",
    ),
)


def families_with(kind: str) -> tuple[Family, ...]:
    """The families that have a class of this kind."""
    return tuple(family for family in FAMILIES if getattr(family, kind) is not None)


def family_of_model_type(model_type: Any, families: Iterable[Family], where: str, note: str = "") -> Family:
    """The family of this name among some.

    Raises:
        ValueError: there is none; with `where` the name comes from, those that there are, and `note`.
    """
    known = {family.model_type: family for family in families}
    if not isinstance(model_type, str) or model_type not in known:
        raise ValueError(
            f"{where} has model_type {model_type!r}; supported here: {', '.join(sorted(known))}"
            f"{_other_way(model_type)}{note}"
        )
    return known[model_type]


def family_of_config(config: Any, families: Iterable[Family], who: str) -> Family:
    """The family of a configuration object, by its `model_type`.

    Raises:
        ValueError: `who` needs one of `families`, and it is of none.
    """
    given = getattr(config, "model_type", None)
    for family in families:
        if isinstance(given, str) and given == family.model_type:
            return family
    known = ", ".join(family.class_name("config") for family in families)
    raise ValueError(
        f"{who} has nothing for a {type(config).__name__} (model_type {given!r}); supported here: {known}"
    )


def family_of_fields(config: dict[str, Any], where: str, own_name: str, families: Iterable[Family]) -> Family:
    """The family that the fields of a `config.json` are of, or else the checkpoint's name says.

    Raises:
        ValueError: none of `families`.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str):
        note = "; its own code (auto_map) is not run" if "auto_map" in config else ""
        return family_of_model_type(model_type, families, where, note)
    # Among all families, also those that will not do: "hubert" holds "bert", and is none for texts.
    held = {name: family for family in FAMILIES for name in family.names if name in own_name.lower()}
    if held:
        family = held[max(held, key=len)]  # "speech_to_text_2" holds "speech_to_text" too
        return family_of_model_type(family.model_type, families, f"{where}, going by its name,")
    note = "; write one into its config.json, or call the class of its family"
    return family_of_model_type(model_type, families, where, note)


def family_of_checkpoint(checkpoint: Checkpoint, families: Iterable[Family]) -> Family:
    """The family of a checkpoint, by its configuration and else its name.

    Raises:
        OSError: no configuration.
        ValueError: none of `families`.
    """
    config = read_json(checkpoint.require("config.json"))
    return family_of_fields(config, checkpoint.name, checkpoint.own_name, families)


def _other_way(model_type: Any) -> str:
    """How models of a family can be loaded that has none of the kind that was asked for."""
    ways = {
        "speech_seq2seq": "AutoModelForSpeechSeq2Seq",
        "ctc": "AutoModelForCTC",
        "audio_classification": "AutoModelForAudioClassification",
        "sequence_classification": "AutoModelForSequenceClassification",
        "speech_encoder": "SpeechEncoderDecoderModel.from_encoder_decoder_pretrained, as encoder",
        "text_decoder": "SpeechEncoderDecoderModel.from_encoder_decoder_pretrained, as decoder",
    }
    for family in FAMILIES:
        if family.model_type == model_type:
            given = [way for kind, way in ways.items() if getattr(family, kind) is not None]
            return f" (for {model_type} there is {'; '.join(given)})"
    return ""


@cache
def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f".{module}", __package__), name)
