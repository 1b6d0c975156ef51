"""A speech encoder joined to a text decoder (arXiv 2104.06678)."""

from ..family import Family

FAMILY = Family(
    "speech-encoder-decoder",
    "config.SpeechEncoderDecoderConfig",
    speech_seq2seq="model.SpeechEncoderDecoderModel",
    processor="processors/processor.SpeechProcessor",
)
