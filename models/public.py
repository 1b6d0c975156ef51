"""The public names of this package, and where each lies; no torch here, they are imported when first used."""

from typing import TYPE_CHECKING

HOMES = {
    "AlbertConfig": "albert.config",
    "AlbertForSequenceClassification": "albert.model",
    "AlbertModel": "albert.model",
    "AlbertTokenizer": "albert.tokenizer",
    "AutoConfig": "auto",
    "AutoFeatureExtractor": "auto",
    "AutoModelForAudioClassification": "auto",
    "AutoModelForCTC": "auto",
    "AutoModelForSequenceClassification": "auto",
    "AutoModelForSpeechSeq2Seq": "auto",
    "AutoProcessor": "auto",
    "AutoTokenizer": "auto",
    "BartConfig": "bart.config",
    "BartForCausalLM": "bart.model",
    "BartForSequenceClassification": "bart.model",
    "BartModel": "bart.model",
    "BartTokenizer": "bart.tokenizer",
    "BertConfig": "bert.config",
    "BertForSequenceClassification": "bert.model",
    "BertLMHeadModel": "bert.model",
    "BertModel": "bert.model",
    "BertTokenizer": "bert.tokenizer",
    "DistilBertConfig": "distilbert.config",
    "DistilBertForSequenceClassification": "distilbert.model",
    "DistilBertModel": "distilbert.model",
    "DistilBertTokenizer": "distilbert.tokenizer",
    "GPT2Config": "gpt2.config",
    "GPT2ForSequenceClassification": "gpt2.classification",
    "GPT2LMHeadModel": "gpt2.model",
    "GPT2Model": "gpt2.model",
    "GPT2Tokenizer": "gpt2.tokenizer",
    "GPTNeoConfig": "gpt_neo.config",
    "GPTNeoForSequenceClassification": "gpt_neo.model",
    "GPTNeoModel": "gpt_neo.model",
    "GenerationConfig": "core.generation_config",
    "HubertConfig": "hubert.config",
    "HubertForCTC": "hubert.model",
    "HubertForSequenceClassification": "hubert.model",
    "HubertModel": "hubert.model",
    "MBart50Tokenizer": "mbart.tokenizer",
    "MBartConfig": "mbart.config",
    "MBartForCausalLM": "mbart.model",
    "MBartTokenizer": "mbart.tokenizer",
    "PreTrainedTokenizerFast": "tokenizers.tokenizer_json",
    "RobertaConfig": "roberta.config",
    "RobertaForCausalLM": "roberta.model",
    "RobertaForSequenceClassification": "roberta.model",
    "RobertaModel": "roberta.model",
    "RobertaTokenizer": "roberta.tokenizer",
    "SEWConfig": "sew.config",
    "SEWDConfig": "sew_d.config",
    "SEWDForCTC": "sew_d.model",
    "SEWDForSequenceClassification": "sew_d.model",
    "SEWDModel": "sew_d.model",
    "SEWForCTC": "sew.model",
    "SEWForSequenceClassification": "sew.model",
    "SEWModel": "sew.model",
    "Speech2Text2Config": "speech_to_text_2.config",
    "Speech2Text2ForCausalLM": "speech_to_text_2.model",
    "Speech2Text2Processor": "speech_to_text_2.processor",
    "Speech2Text2Tokenizer": "speech_to_text_2.tokenizer",
    "Speech2TextConfig": "speech_to_text.model",
    "Speech2TextFeatureExtractor": "speech_to_text.feature_extractor",
    "Speech2TextForConditionalGeneration": "speech_to_text.model",
    "Speech2TextModel": "speech_to_text.model",
    "Speech2TextProcessor": "speech_to_text.processor",
    "Speech2TextTokenizer": "speech_to_text.tokenizer",
    "SpeechEncoderDecoderConfig": "speech_encoder_decoder.config",
    "SpeechEncoderDecoderModel": "speech_encoder_decoder.model",
    "SpeechProcessor": "processors.processor",
    "T5Config": "t5.config",
    "T5ForSequenceClassification": "t5.model",
    "T5Model": "t5.model",
    "T5Tokenizer": "t5.tokenizer",
    "UniSpeechConfig": "unispeech.config",
    "UniSpeechForCTC": "unispeech.model",
    "UniSpeechForSequenceClassification": "unispeech.model",
    "UniSpeechModel": "unispeech.model",
    "UniSpeechSatConfig": "unispeech_sat.config",
    "UniSpeechSatForCTC": "unispeech_sat.model",
    "UniSpeechSatForSequenceClassification": "unispeech_sat.model",
    "UniSpeechSatModel": "unispeech_sat.model",
    "Wav2Vec2CTCTokenizer": "wav2vec2.tokenizer",
    "Wav2Vec2Config": "wav2vec2.config",
    "Wav2Vec2FeatureExtractor": "wav2vec2.feature_extractor",
    "Wav2Vec2ForCTC": "wav2vec2.ctc",
    "Wav2Vec2ForSequenceClassification": "wav2vec2.audio_classification",
    "Wav2Vec2Model": "wav2vec2.model",
    "Wav2Vec2Processor": "wav2vec2.processor",
    "XLNetConfig": "xlnet.config",
    "XLNetForSequenceClassification": "xlnet.model",
    "XLNetModel": "xlnet.model",
    "XLNetTokenizer": "xlnet.tokenizer",
}

if TYPE_CHECKING:
    from .albert.config import AlbertConfig as AlbertConfig
    from .albert.model import AlbertForSequenceClassification as AlbertForSequenceClassification
    from .albert.model import AlbertModel as AlbertModel
    from .albert.tokenizer import AlbertTokenizer as AlbertTokenizer
    from .auto import AutoConfig as AutoConfig
    from .auto import AutoFeatureExtractor as AutoFeatureExtractor
    from .auto import AutoModelForAudioClassification as AutoModelForAudioClassification
    from .auto import AutoModelForCTC as AutoModelForCTC
    from .auto import AutoModelForSequenceClassification as AutoModelForSequenceClassification
    from .auto import AutoModelForSpeechSeq2Seq as AutoModelForSpeechSeq2Seq
    from .auto import AutoProcessor as AutoProcessor
    from .auto import AutoTokenizer as AutoTokenizer
    from .bart.config import BartConfig as BartConfig
    from .bart.model import BartForCausalLM as BartForCausalLM
    from .bart.model import BartForSequenceClassification as BartForSequenceClassification
    from .bart.model import BartModel as BartModel
    from .bart.tokenizer import BartTokenizer as BartTokenizer
    from .bert.config import BertConfig as BertConfig
    from .bert.model import BertForSequenceClassification as BertForSequenceClassification
    from .bert.model import BertLMHeadModel as BertLMHeadModel
    from .bert.model import BertModel as BertModel
    from .bert.tokenizer import BertTokenizer as BertTokenizer
    from .core.generation_config import GenerationConfig as GenerationConfig
    from .distilbert.config import DistilBertConfig as DistilBertConfig
    from .distilbert.model import DistilBertForSequenceClassification as DistilBertForSequenceClassification
    from .distilbert.model import DistilBertModel as DistilBertModel
    from .distilbert.tokenizer import DistilBertTokenizer as DistilBertTokenizer
    from .gpt2.classification import GPT2ForSequenceClassification as GPT2ForSequenceClassification
    from .gpt2.config import GPT2Config as GPT2Config
    from .gpt2.model import GPT2LMHeadModel as GPT2LMHeadModel
    from .gpt2.model import GPT2Model as GPT2Model
    from .gpt2.tokenizer import GPT2Tokenizer as GPT2Tokenizer
    from .gpt_neo.config import GPTNeoConfig as GPTNeoConfig
    from .gpt_neo.model import GPTNeoForSequenceClassification as GPTNeoForSequenceClassification
    from .gpt_neo.model import GPTNeoModel as GPTNeoModel
    from .hubert.config import HubertConfig as HubertConfig
    from .hubert.model import HubertForCTC as HubertForCTC
    from .hubert.model import (
        HubertForSequenceClassification as HubertForSequenceClassification,
    )
    from .hubert.model import HubertModel as HubertModel
    from .mbart.config import MBartConfig as MBartConfig
    from .mbart.model import MBartForCausalLM as MBartForCausalLM
    from .mbart.tokenizer import MBart50Tokenizer as MBart50Tokenizer
    from .mbart.tokenizer import MBartTokenizer as MBartTokenizer
    from .processors.processor import SpeechProcessor as SpeechProcessor
    from .roberta.config import RobertaConfig as RobertaConfig
    from .roberta.model import RobertaForCausalLM as RobertaForCausalLM
    from .roberta.model import RobertaForSequenceClassification as RobertaForSequenceClassification
    from .roberta.model import RobertaModel as RobertaModel
    from .roberta.tokenizer import RobertaTokenizer as RobertaTokenizer
    from .sew.config import SEWConfig as SEWConfig
    from .sew.model import SEWForCTC as SEWForCTC
    from .sew.model import SEWForSequenceClassification as SEWForSequenceClassification
    from .sew.model import SEWModel as SEWModel
    from .sew_d.config import SEWDConfig as SEWDConfig
    from .sew_d.model import SEWDForCTC as SEWDForCTC
    from .sew_d.model import SEWDForSequenceClassification as SEWDForSequenceClassification
    from .sew_d.model import SEWDModel as SEWDModel
    from .speech_encoder_decoder.config import SpeechEncoderDecoderConfig as SpeechEncoderDecoderConfig
    from .speech_encoder_decoder.model import SpeechEncoderDecoderModel as SpeechEncoderDecoderModel
    from .speech_to_text.feature_extractor import Speech2TextFeatureExtractor as Speech2TextFeatureExtractor
    from .speech_to_text.model import Speech2TextConfig as Speech2TextConfig
    from .speech_to_text.model import (
        Speech2TextForConditionalGeneration as Speech2TextForConditionalGeneration,
    )
    from .speech_to_text.model import Speech2TextModel as Speech2TextModel
    from .speech_to_text.processor import Speech2TextProcessor as Speech2TextProcessor
    from .speech_to_text.tokenizer import Speech2TextTokenizer as Speech2TextTokenizer
    from .speech_to_text_2.config import Speech2Text2Config as Speech2Text2Config
    from .speech_to_text_2.model import Speech2Text2ForCausalLM as Speech2Text2ForCausalLM
    from .speech_to_text_2.processor import Speech2Text2Processor as Speech2Text2Processor
    from .speech_to_text_2.tokenizer import Speech2Text2Tokenizer as Speech2Text2Tokenizer
    from .t5.config import T5Config as T5Config
    from .t5.model import T5ForSequenceClassification as T5ForSequenceClassification
    from .t5.model import T5Model as T5Model
    from .t5.tokenizer import T5Tokenizer as T5Tokenizer
    from .tokenizers.tokenizer_json import PreTrainedTokenizerFast as PreTrainedTokenizerFast
    from .unispeech.config import UniSpeechConfig as UniSpeechConfig
    from .unispeech.model import UniSpeechForCTC as UniSpeechForCTC
    from .unispeech.model import (
        UniSpeechForSequenceClassification as UniSpeechForSequenceClassification,
    )
    from .unispeech.model import UniSpeechModel as UniSpeechModel
    from .unispeech_sat.config import UniSpeechSatConfig as UniSpeechSatConfig
    from .unispeech_sat.model import UniSpeechSatForCTC as UniSpeechSatForCTC
    from .unispeech_sat.model import (
        UniSpeechSatForSequenceClassification as UniSpeechSatForSequenceClassification,
    )
    from .unispeech_sat.model import UniSpeechSatModel as UniSpeechSatModel
    from .wav2vec2.audio_classification import (
        Wav2Vec2ForSequenceClassification as Wav2Vec2ForSequenceClassification,
    )
    from .wav2vec2.config import Wav2Vec2Config as Wav2Vec2Config
    from .wav2vec2.ctc import Wav2Vec2ForCTC as Wav2Vec2ForCTC
    from .wav2vec2.feature_extractor import Wav2Vec2FeatureExtractor as Wav2Vec2FeatureExtractor
    from .wav2vec2.model import Wav2Vec2Model as Wav2Vec2Model
    from .wav2vec2.processor import Wav2Vec2Processor as Wav2Vec2Processor
    from .wav2vec2.tokenizer import Wav2Vec2CTCTokenizer as Wav2Vec2CTCTokenizer
    from .xlnet.config import XLNetConfig as XLNetConfig
    from .xlnet.model import XLNetForSequenceClassification as XLNetForSequenceClassification
    from .xlnet.model import XLNetModel as XLNetModel
    from .xlnet.tokenizer import XLNetTokenizer as XLNetTokenizer
