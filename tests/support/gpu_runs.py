"""Runs of loops on the second fake GPU, and the lines that wait for it, printed as JSON.

In a process of its own, since the fake GPU stays for good. Launches of kernels are left out, so that none is
compiled; the bookkeeping of decode steps is the references', and right, so that requests end.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import fake_gpu

TEXTS = ("bert", "gpt2", "xlnet", "bart-odd", "t5-odd")
# Options of generation, with and without kept scores, recorded steps and steps beside encoding.
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 4},
    "sampling": {"do_sample": True, "top_k": 5},
    "sampled beams": {"do_sample": True, "num_beams": 2},
    "rules": {"min_length": 3, "repetition_penalty": 1.2, "bad_words_ids": [[3, 4]], "suppress_tokens": [7]},
    "prompts": {"num_beams": 2},
}
# Fields of the options that `generate` does not take.
FIELDS: dict[str, dict[str, Any]] = {
    "prompts": {"prompt_tokens": (2, 4, 3), "choices": (5, 6), "no_speech_token": 7}
}
FEATURES = ("Whisper",)  # families whose requests bring features here
WAVEFORMS = ("Wav2Vec2", "Hubert", "UniSpeech", "UniSpeechSat", "SEW", "SEWD")


def main() -> None:
    """Print the waits, the errors and the devices of recorded events of each run, by its name."""
    fake_gpu.install()
    from tritone.kernels.runtime.launch import Case
    from tritone.kernels.sampling import append, beams, step_inputs
    from tritone.kernels.slots import admit, finished, gather

    of_sampling = append._append, beams._advance_beams, step_inputs._step_inputs
    for operation in (*of_sampling, admit._admit, gather._gather, finished._finished):
        operation.triton = None
    _replay_by_running()
    Case._launch = lambda self, grid, arguments: None  # type: ignore[method-assign]
    device, recorded, found = torch.device("cuda", 1), _record_events(), {}
    for name in (*OPTIONS, *FEATURES, *WAVEFORMS, *TEXTS):
        make = _generation if name in OPTIONS else _features if name in FEATURES else _encoder_only
        run, events = make(name, device)
        run()  # makes what is kept for good
        recorded.clear()
        with fake_gpu.watching_waits() as waits:
            run()
        errors = [repr(event.error) for event in events if getattr(event, "error", None) is not None]
        found[name] = {"waits": waits, "errors": errors, "devices": sorted(recorded)}
    print(json.dumps(found))


def _replay_by_running() -> None:
    """Run recorded steps again in place of replays, which leave the fake GPU's state as it is."""
    from tritone.scheduler import runner

    def record_on(device: torch.device, _real: Any = runner.record_on) -> Any:
        real = _real(device)

        def record(step: Callable[[], None]) -> Callable[[], None]:
            real(step)
            return step

        return record

    runner.record_on = record_on  # type: ignore[assignment]


def _record_events() -> set[int]:
    """Set that gains the device of each stream on which an event is recorded."""
    recorded: set[int] = set()
    ordinary = torch.cuda.Event.record

    def record(event: Any, stream: Any = None) -> None:
        recorded.add((torch.cuda.current_stream() if stream is None else stream).device_index)
        ordinary(event, stream)

    torch.cuda.Event.record = record  # type: ignore[method-assign]
    return recorded


def _generation(name: str, device: torch.device) -> tuple[Callable[[], None], list[Any]]:
    import factories

    import tritone
    from tritone.scheduler.request import Request

    model = tritone.Speech2TextForConditionalGeneration(factories.tiny_speech_to_text_config())
    model = model.to(device, torch.float16).eval()
    extractor = tritone.Speech2TextFeatureExtractor()
    events: list[Any] = []

    options = replace(model.resolve_options(max_length=8, **OPTIONS[name]), **FIELDS.get(name, {}))
    sizes = {"num_pages": 400, "num_rows": 40, "encode_budget": 40}
    loops = [
        model.generation_loop(extractor, **sizes, graphs=graphs, overlap=graphs) for graphs in (False, True)
    ]

    def run() -> None:
        for loop in loops:
            for index in range(6):
                inputs = torch.from_numpy(factories.waveform(index))
                loop.submit(Request(index, inputs, options, stream=index % 2 == 0, keep_scores=index == 3))
            _finish(loop, events)

    return run, events


def _features(name: str, device: torch.device) -> tuple[Callable[[], None], list[Any]]:
    import factories

    import tritone
    from tritone.kernels.sampling.timestamps import TimestampRule
    from tritone.scheduler.loop import GenerationLoop
    from tritone.scheduler.request import Request
    from tritone.scheduler.runner import ModelRunner

    config = factories.tiny_whisper_config()
    models = [
        getattr(tritone, f"{name}For{head}")(config).to(device, torch.float16).eval()
        for head in ("ConditionalGeneration", "AudioClassification")
    ]
    plain = models[0].resolve_options(max_length=12)
    times = TimestampRule(first=30, no_timestamps=29, end=2, max_initial=4)
    asking = replace(plain, prompt_tokens=(3, 5, 6, 7), choices=(5, 8), no_speech_token=28, timestamps=times)
    options = plain, asking, replace(asking, num_beams=3), replace(asking, do_sample=True)
    sizes = {"num_pages": 400, "num_rows": 40, "encode_budget": 40}
    loops: list[tuple[Any, Sequence[Any]]] = [
        (models[0].generation_loop(**sizes), options),
        (GenerationLoop(ModelRunner(models[1]), 100), (None,)),
    ]
    features = torch.randn(2 * config.max_source_positions, config.num_mel_bins)
    events: list[Any] = []

    def run() -> None:
        for loop, given in loops:
            for index in range(6):
                loop.submit(Request(index, features, given[index % len(given)]))
            _finish(loop, events)

    return run, events


def _encoder_only(name: str, device: torch.device) -> tuple[Callable[[], None], list[Any]]:
    import factories
    from text_classifiers import SPECS

    import tritone
    from tritone.scheduler.loop import GenerationLoop
    from tritone.scheduler.request import Request
    from tritone.scheduler.runner import ModelRunner

    extractor: Any = None
    if name in TEXTS:
        family, fields = SPECS[name]
        config = getattr(tritone, f"{family}Config")(**fields)
        models = [getattr(tritone, f"{family}ForSequenceClassification")(config)]
        inputs = [torch.full((length, 1), 5) for length in (3, 4, 9)]
    else:
        extractor = tritone.Wav2Vec2FeatureExtractor()
        classes = [getattr(tritone, f"{name}For{head}", None) for head in ("CTC", "SequenceClassification")]
        models = []
        for fields in ({}, {"feat_extract_norm": "layer", "do_stable_layer_norm": name == "Wav2Vec2"}):
            config = factories.tiny_wav2vec2_config(getattr(tritone, f"{name}Config"), **fields)
            models += [model_class(config) for model_class in classes if model_class]
        inputs = [torch.from_numpy(factories.waveform(seed)) for seed in range(5)]
    models = [model.to(device, torch.float16).eval() for model in models]
    loops = [GenerationLoop(ModelRunner(model, extractor), 100) for model in models]
    events: list[Any] = []

    def run() -> None:
        for loop in loops:
            for index, one in enumerate(inputs):
                loop.submit(Request(index, one))
            _finish(loop, events)

    return run, events


def _finish(loop: Any, events: list[Any]) -> None:
    while loop.has_work:
        events += loop.step()


if __name__ == "__main__":
    main()
