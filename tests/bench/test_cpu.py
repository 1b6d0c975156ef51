"""The CPU's benchmark: a smoke run of each model, and the arithmetic of its rounds and its report."""

import json
import sys
from types import ModuleType

import pytest
from cpu_bench import smoke

pytest.importorskip("transformers")


@pytest.fixture
def cpu(bench) -> ModuleType:
    """The entry point of `python -m bench.cpu`."""
    return bench["cpu"]


MODELS = [
    "speech2text",
    "wav2vec2-ctc",
    "speech-encoder-decoder",
    "audio-classification",
    "text-classification",
]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_timed_beside_transformers_and_gives_the_same_answers(model, tmp_path):
    printed = smoke(model, "--json", str(tmp_path / "cpu.json"), "--cost-of-invariance")
    saved = json.loads((tmp_path / "cpu.json").read_text())
    assert saved["about"]["command"].startswith("python -m bench.cpu --smoke")
    ours = ["tritone, float32", "tritone, float32, without invariance"]
    peers = ["transformers, batch 1, unpadded", "transformers, batch 4"]
    found = saved["results"]["1 beams"]
    assert list(found) == [*ours, *peers]
    times = found[ours[0]] / max(found[name] for name in peers)
    best = max(peers, key=found.get).removeprefix("transformers, ")
    assert f"tritone, float32 is {times:.2f} times transformers' best ({best})" in printed
    lines = {line[2:50].strip(): line for line in printed.splitlines() if line.endswith(" of 4")}
    assert lines[ours[0]].endswith(" 4 of 4")
    assert saved["cpu_seconds"]["1 beams"].keys() == found.keys()
    assert saved["phases"]["1 beams"][ours[0]]["encode"]["products"] > 0
    assert "| encode " in printed


def test_beams_of_a_model_that_has_none_are_refused(cpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--model", "wav2vec2-ctc", "--beams", "5"])
    with pytest.raises(SystemExit):
        cpu.parse_arguments()
    assert "has no beams; leave --beams out" in capsys.readouterr().err


def test_no_round_begins_that_would_not_end_in_time(cpu, monkeypatch, capsys):
    now = 0.0
    ran = []

    def run(recordings):
        nonlocal now
        now += len(recordings)
        ran.append(len(recordings))
        return ["text"] * len(recordings)

    monkeypatch.setattr(cpu.time, "perf_counter", lambda: now)
    scale = cpu.Scale(0.5, 1.5, 10, (4, 8), 1, ("float32",), 3, 4, 30)
    recordings = cpu.Wav2Vec2CTC(tiny=True).items(scale)
    (timed,) = cpu.alternate({"one": run}, recordings, scale, 3).values()
    assert ran == [4, 10, 10]  # 34 seconds would have been the third
    assert timed.seconds == [10, 10]
    assert "2 of 3 rounds" in capsys.readouterr().out


def test_batches_as_they_come_and_other_types_of_the_peer_are_told_apart():
    options = ("--as-they-come", "--peer-dtype", "float32", "bfloat16", "--dtype", "bfloat16")
    printed = smoke("text-classification", *options)
    rows = [line[2:50].strip() for line in printed.splitlines() if line.endswith(" of 4")]
    assert rows == [
        "tritone, bfloat16",
        "transformers, batch 1, unpadded",
        "transformers, batch 4",
        "transformers, batch 4, as they come",
        "transformers, bfloat16, batch 1, unpadded",
        "transformers, bfloat16, batch 4",
        "transformers, bfloat16, batch 4, as they come",
    ]
    assert "where nothing is sorted" in printed
    assert "best in bfloat16 (batch" in printed


def test_the_best_of_each_type_is_what_a_speed_is_compared_with(cpu):
    peers = {
        "transformers, batch 1, unpadded": 2.0,
        "transformers, batch 4": 4.0,
        "transformers, bfloat16, batch 1, unpadded": 5.0,
        "transformers, bfloat16, batch 4": 1.0,
    }
    assert cpu.compared(10.0, peers) == (
        "2.50 times transformers' best (batch 4), "
        "2.00 times transformers' best in bfloat16 (batch 1, unpadded)"
    )


def test_a_peer_without_float32_is_refused(cpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--peer-dtype", "bfloat16"])
    with pytest.raises(SystemExit):
        cpu.parse_arguments()
    assert "--peer-dtype needs float32" in capsys.readouterr().err


def test_a_batch_is_one_of_neighbors_in_length_or_in_the_order_given(cpu):
    class Echo(cpu.TextClassification):
        def batch_answers(self, model, processor, batch, beams):
            batches.append([item.tokens for item in batch])
            return [item.text for item in batch]

    batches: list[list[int]] = []
    model = Echo(tiny=True)
    items = model.items(cpu.SMOKE)
    tokens = [item.tokens for item in items]
    for by_length in (True, False):
        batches.clear()
        found = model.peer_answers(None, None, items, 1, 2, by_length)
        assert found == [item.text for item in items]
        wanted = sorted(tokens) if by_length else tokens
        assert batches == [wanted[:2], wanted[2:]]
    assert tokens != sorted(tokens)


def test_recordings_of_even_lengths_come_in_no_order(cpu):
    found = [recording.seconds for recording in cpu.Wav2Vec2CTC(tiny=True).items(cpu.QUICK)]
    assert sorted(found) == pytest.approx([2 + 13 * index / 11 for index in range(12)], abs=1e-4)
    assert found != sorted(found)


def test_texts_have_their_declared_number_of_tokens(cpu, tmp_path):
    model = cpu.TextClassification(tiny=True)
    model.write(tmp_path)
    tokenizer = cpu.transformers.AutoTokenizer.from_pretrained(tmp_path)
    items = model.items(cpu.QUICK)
    assert [len(tokenizer(item.text).input_ids) for item in items] == [item.tokens for item in items]
    assert sorted(item.tokens for item in items)[::47] == [8, 256]


def test_the_picture_of_the_readme_has_the_numbers_of_the_results(bench, tmp_path):
    pytest.importorskip("matplotlib")
    picture = bench["picture"]
    assert picture.main(["--output", str(tmp_path)]) == 0
    for theme in ("light", "dark"):
        drawn = (tmp_path / f"speed-{theme}.svg").read_text()
        committed = (picture.RESULTS.parents[1] / "docs/images" / f"speed-{theme}.svg").read_text()
        for machine in picture.MACHINES:
            for model in picture.read(picture.RESULTS / machine).values():
                for speed in picture.speeds(model).values():
                    number = f">{speed:,.0f}<" if speed >= 100 else f">{speed:.1f}<"
                    assert number in drawn
                    assert number in committed
