"""Public names of the package and their modules; those of a model family come from its `Family` entry."""

from .models.registry import FAMILIES

_OTHERS = {  # by module, its public names that belong to no model family
    "engine.async_engine": ("AsyncEngine",),
    "engine.audio.errors": ("AudioError",),
    "engine.bounds": ("DeadlineError", "QueueFullError"),
    "engine.config": ("EngineConfig",),
    "engine.engine": ("Engine",),
    "engine.handle": ("Handle",),
    "engine.outputs": ("Classification", "Label", "Segment", "Span", "Transcription"),
    "engine.pool": ("EnginePool",),
    "engine.speakers": ("Turn", "read_rttm", "with_speakers"),
    "engine.stats": ("EngineHealth", "EngineStats"),
    "engine.tasks.inputs": ("TextError",),
    "engine.timings": ("Timings",),
    "models.auto": (
        *("AutoConfig", "AutoFeatureExtractor", "AutoProcessor", "AutoTokenizer"),
        *("AutoModelForAudioClassification", "AutoModelForCTC"),
        *("AutoModelForSequenceClassification", "AutoModelForSpeechSeq2Seq"),
    ),
    "models.core.generation_config": ("GenerationConfig",),
    "models.processors.processor": ("SpeechProcessor",),
    "models.tokenizers.tokenizer_json": ("PreTrainedTokenizerFast",),
    "scheduler.config": ("RunnerConfig",),
    "scheduler.scheduler": ("CapacityError",),
}
HOMES = {name: module for module, names in _OTHERS.items() for name in names} | {
    name: f"models.{module}" for family in FAMILIES for name, module in family.public_names()
}
