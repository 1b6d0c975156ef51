"""The processor of Speech2Text."""

from ..processors.processor import SpeechProcessor
from .feature_extractor import Speech2TextFeatureExtractor
from .tokenizer import Speech2TextTokenizer


class Speech2TextProcessor(SpeechProcessor):
    """A feature extractor and a tokenizer in one: audio to features, text to labels, token ids to text."""

    feature_extractor_class = Speech2TextFeatureExtractor
    tokenizer_class = Speech2TextTokenizer
