"""Speech2Text2 (arXiv 2104.06678): a text decoder with cross-attention, for speech encoders."""

from ..family import Family

FAMILY = Family(
    "speech_to_text_2",
    "config.Speech2Text2Config",
    text_decoder="model.Speech2Text2ForCausalLM",
    tokenizer="tokenizer.Speech2Text2Tokenizer",
    processor="processor.Speech2Text2Processor",
)
