"""The processor of wav2vec 2.0 and its relatives."""

from ..processors.processor import SpeechProcessor
from .feature_extractor import Wav2Vec2FeatureExtractor


class Wav2Vec2Processor(SpeechProcessor):
    """Feature extractor of wav2vec 2.0 and the tokenizer of a checkpoint, `Wav2Vec2CTCTokenizer` for CTC."""

    feature_extractor_class = Wav2Vec2FeatureExtractor
