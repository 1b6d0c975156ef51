"""The model families, by `model_type`, and how a configuration or checkpoint is known to be of one."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from .checkpoints.files import Checkpoint, read_json


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
        "speech_to_text.config.Speech2TextConfig",
        speech_seq2seq="speech_to_text.model.Speech2TextForConditionalGeneration",
        speech_encoder="speech_to_text.encoder.Speech2TextEncoder",
        feature_extractor="speech_to_text.feature_extractor.Speech2TextFeatureExtractor",
        tokenizer="speech_to_text.tokenizer.Speech2TextTokenizer",
        processor="speech_to_text.processor.Speech2TextProcessor",
    ),
    Family(
        "speech_to_text_2",
        ("speech_to_text_2", "speech-to-text-2"),
        "speech_to_text_2.config.Speech2Text2Config",
        text_decoder="speech_to_text_2.model.Speech2Text2ForCausalLM",
        tokenizer="speech_to_text_2.tokenizer.Speech2Text2Tokenizer",
        processor="speech_to_text_2.processor.Speech2Text2Processor",
    ),
    Family(
        "bart",
        ("bart",),
        "bart.config.BartConfig",
        text_decoder="bart.model.BartForCausalLM",
        sequence_classification="bart.model.BartForSequenceClassification",
        tokenizer="bart.tokenizer.BartTokenizer",
    ),
    Family(
        "mbart",
        ("mbart",),
        "mbart.config.MBartConfig",
        text_decoder="mbart.model.MBartForCausalLM",
        tokenizer="mbart.tokenizer.MBartTokenizer",
        other_tokenizers=("mbart.tokenizer.MBart50Tokenizer",),
    ),
    Family(
        "bert",
        ("bert",),
        "bert.config.BertConfig",
        text_decoder="bert.model.BertLMHeadModel",
        sequence_classification="bert.model.BertForSequenceClassification",
        tokenizer="bert.tokenizer.BertTokenizer",
    ),
    Family(
        "roberta",
        ("roberta",),
        "roberta.config.RobertaConfig",
        text_decoder="roberta.model.RobertaForCausalLM",
        sequence_classification="roberta.model.RobertaForSequenceClassification",
        tokenizer="roberta.tokenizer.RobertaTokenizer",
    ),
    Family(
        "distilbert",
        ("distilbert",),
        "distilbert.config.DistilBertConfig",
        sequence_classification="distilbert.model.DistilBertForSequenceClassification",
        tokenizer="distilbert.tokenizer.DistilBertTokenizer",
    ),
    Family(
        "albert",
        ("albert",),
        "albert.config.AlbertConfig",
        sequence_classification="albert.model.AlbertForSequenceClassification",
        tokenizer="albert.tokenizer.AlbertTokenizer",
    ),
    Family(
        "gpt2",
        ("gpt2",),
        "gpt2.config.GPT2Config",
        text_decoder="gpt2.model.GPT2LMHeadModel",
        sequence_classification="gpt2.classification.GPT2ForSequenceClassification",
        tokenizer="gpt2.tokenizer.GPT2Tokenizer",
    ),
    Family(
        "gpt_neo",
        ("gpt_neo", "gpt-neo"),
        "gpt_neo.config.GPTNeoConfig",
        sequence_classification="gpt_neo.model.GPTNeoForSequenceClassification",
        tokenizer="gpt2.tokenizer.GPT2Tokenizer",
    ),
    Family(
        "xlnet",
        ("xlnet",),
        "xlnet.config.XLNetConfig",
        sequence_classification="xlnet.model.XLNetForSequenceClassification",
        tokenizer="xlnet.tokenizer.XLNetTokenizer",
    ),
    Family(
        "t5",
        ("t5",),
        "t5.config.T5Config",
        sequence_classification="t5.model.T5ForSequenceClassification",
        tokenizer="t5.tokenizer.T5Tokenizer",
    ),
    Family(
        "speech-encoder-decoder",
        ("speech-encoder-decoder", "speech_encoder_decoder"),
        "speech_encoder_decoder.config.SpeechEncoderDecoderConfig",
        speech_seq2seq="speech_encoder_decoder.model.SpeechEncoderDecoderModel",
        processor="processors.processor.SpeechProcessor",
    ),
    Family(
        "wav2vec2",
        ("wav2vec2",),
        "wav2vec2.config.Wav2Vec2Config",
        speech_encoder="wav2vec2.model.Wav2Vec2Model",
        ctc="wav2vec2.ctc.Wav2Vec2ForCTC",
        audio_classification="wav2vec2.audio_classification.Wav2Vec2ForSequenceClassification",
        feature_extractor="wav2vec2.feature_extractor.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2.tokenizer.Wav2Vec2CTCTokenizer",
        processor="wav2vec2.processor.Wav2Vec2Processor",
    ),
    Family(
        "hubert",
        ("hubert",),
        "hubert.config.HubertConfig",
        speech_encoder="hubert.model.HubertModel",
        ctc="hubert.model.HubertForCTC",
        audio_classification="hubert.model.HubertForSequenceClassification",
        feature_extractor="wav2vec2.feature_extractor.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2.tokenizer.Wav2Vec2CTCTokenizer",
        processor="wav2vec2.processor.Wav2Vec2Processor",
    ),
    Family(
        "unispeech",
        ("unispeech",),
        "unispeech.config.UniSpeechConfig",
        speech_encoder="unispeech.model.UniSpeechModel",
        ctc="unispeech.model.UniSpeechForCTC",
        audio_classification="unispeech.model.UniSpeechForSequenceClassification",
        feature_extractor="wav2vec2.feature_extractor.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2.tokenizer.Wav2Vec2CTCTokenizer",
        processor="wav2vec2.processor.Wav2Vec2Processor",
    ),
    Family(
        "unispeech-sat",
        ("unispeech-sat", "unispeech_sat"),
        "unispeech_sat.config.UniSpeechSatConfig",
        speech_encoder="unispeech_sat.model.UniSpeechSatModel",
        ctc="unispeech_sat.model.UniSpeechSatForCTC",
        audio_classification="unispeech_sat.model.UniSpeechSatForSequenceClassification",
        feature_extractor="wav2vec2.feature_extractor.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2.tokenizer.Wav2Vec2CTCTokenizer",
        processor="wav2vec2.processor.Wav2Vec2Processor",
    ),
    Family(
        "sew",
        ("sew",),
        "sew.config.SEWConfig",
        speech_encoder="sew.model.SEWModel",
        ctc="sew.model.SEWForCTC",
        audio_classification="sew.model.SEWForSequenceClassification",
        feature_extractor="wav2vec2.feature_extractor.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2.tokenizer.Wav2Vec2CTCTokenizer",
        processor="wav2vec2.processor.Wav2Vec2Processor",
    ),
    Family(
        "sew-d",
        ("sew-d", "sew_d"),
        "sew_d.config.SEWDConfig",
        speech_encoder="sew_d.model.SEWDModel",
        ctc="sew_d.model.SEWDForCTC",
        audio_classification="sew_d.model.SEWDForSequenceClassification",
        feature_extractor="wav2vec2.feature_extractor.Wav2Vec2FeatureExtractor",
        tokenizer="wav2vec2.tokenizer.Wav2Vec2CTCTokenizer",
        processor="wav2vec2.processor.Wav2Vec2Processor",
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
