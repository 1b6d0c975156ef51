"""SpeechEncoderDecoder (arXiv 2104.06678): a speech encoder joined to a text decoder by cross-attention."""

from ..family import Family

FAMILY = Family(
    "speech-encoder-decoder",
    "config.SpeechEncoderDecoderConfig",
    speech_seq2seq="model.SpeechEncoderDecoderModel",
    processor="processors/processor.SpeechProcessor",
)
