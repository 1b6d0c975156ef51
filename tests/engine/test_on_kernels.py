"""The whole engine on the Triton kernels, in the interpreter or on a GPU, and what it launches."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest
import torch

import tritone
from tritone.kernels.runtime.compilation import declared_cases
from tritone.kernels.runtime.launch import ARCHITECTURES, recorded

SAMPLES = Path(__file__).parents[2] / "samples" / "digits"
WANTED = json.loads((SAMPLES / "transcripts.json").read_text())


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of every implementation that an operation's dispatch takes during the test."""
    names: list[str] = []
    package = importlib.import_module("tritone.kernels")
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        original = getattr(module, "choose", None)
        if original is None:
            continue

        def spy(*tensors, original=original, **implementations):
            run = original(*tensors, **implementations)
            names.append(run.__name__)
            return run

        monkeypatch.setattr(module, "choose", spy)
    return names


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"do_sample": True, "temperature": 0.2, "seed": 3}]
)
def test_a_sample_is_transcribed_on_kernels_alone_with_the_same_text(options, kernels_on, chosen):
    name = "two_digits_16k.wav"
    with recorded() as cases, tritone.Engine("digits", device=kernels_on) as engine:
        [result] = engine.transcribe([SAMPLES / name], **options)
    assert result.text == WANTED[name]
    assert chosen
    assert [name for name in chosen if not name.endswith("_triton")] == []
    assert set(cases) <= set(declared_cases())


def test_a_recording_is_classified_on_kernels_alone_with_the_same_labels(
    audio_classifier, waveforms, kernels_on, chosen, monkeypatch
):
    given = [waveform[:6000] for waveform in waveforms[:2]] + [waveforms[2][:3000]]
    with recorded() as cases, tritone.Engine(audio_classifier, device=kernels_on) as engine:
        results = list(engine.classify(given))
    assert "mean_pool_triton" in chosen
    assert [name for name in chosen if not name.endswith("_triton")] == []
    assert set(cases) <= set(declared_cases())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with tritone.Engine(audio_classifier, device="cpu") as engine:
        wanted = list(engine.classify(given))
    for result, other in zip(results, wanted, strict=True):
        scores = {label.label: label.score for label in result.labels}
        assert scores == pytest.approx({label.label: label.score for label in other.labels}, abs=1e-4)


@pytest.mark.slow
def test_recordings_together_and_alone_give_the_same_tokens_and_scores(kernels_on):
    files = [SAMPLES / name for name in ("two_digits_16k.wav", "three_digits_22k.flac")]
    with tritone.Engine("digits", device=kernels_on) as engine:
        together = list(engine.transcribe(files, num_beams=2))
        alone = [next(iter(engine.transcribe([file], num_beams=2))) for file in files]
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]
    assert [result.score for result in together] == [result.score for result in alone]
    assert [result.text for result in together] == [WANTED[file.name] for file in files]


# d_model, heads and feed-forward width of Speech2Text's published sizes.
SIZES = {"small": (256, 4, 2048), "medium": (512, 8, 2048), "large": (1024, 16, 4096)}


@pytest.mark.parametrize("size", SIZES)
def test_what_a_published_size_launches_is_declared_in_every_dtype_and_for_every_target(
    size, kernels_on, monkeypatch
):
    width, heads, ffn = SIZES[size]
    config = tritone.Speech2TextConfig(
        d_model=width,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        encoder_layers=1,  # a layer launches what the next one does
        decoder_layers=1,
    )
    model = tritone.Speech2TextForConditionalGeneration(config).half().to(kernels_on).eval()

    def without_launching(method):
        """The interpreter would take minutes over products this wide; noise will do to choose tokens from."""

        def run(*inputs):
            with recorded(dry=True):
                outputs = method(*inputs)
            whole = outputs if isinstance(outputs, tuple | list) else [outputs]
            for tensor in (part for item in whole for part in (item if isinstance(item, tuple) else [item])):
                if tensor.is_floating_point():
                    tensor.normal_()
            return outputs

        return run

    for name in ("encode", "cross_key_values", "decode"):
        monkeypatch.setattr(model, name, without_launching(getattr(model, name)))
    extractor = tritone.Speech2TextFeatureExtractor()
    with recorded() as cases:
        waveform = torch.randn(5000, generator=torch.Generator().manual_seed(0), device="cpu").to(kernels_on)
        cu_samples = torch.tensor([0, 5000], dtype=torch.int32, device=kernels_on)
        features, _ = extractor.extract_packed(waveform, cu_samples)
        for options in ({}, {"num_beams": 5}, {"do_sample": True, "top_k": 50, "top_p": 0.9}):
            model.generate(features[None], max_new_tokens=2, **options)
    declared = set(declared_cases())
    launched = set(cases)
    assert {case.kernel.name for case in launched} >= {"fbank_kernel", "linear_kernel", "store_kernel"}
    assert launched <= declared
    for case in launched:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            key = tuple(dtype if part == torch.float16 else part for part in case.key)
            for architecture in ARCHITECTURES:
                assert (architecture, key) in case.kernel.cases, f"{case.label} in {dtype} for {architecture}"
