"""Folders of results: names that no two recordings share, runs that were killed, files of other programs."""

import errno
import json
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.engine.cli.outputs import append_file, results_folder
from tritone.engine.cli.outputs.file_names import plan_names
from tritone.engine.cli.outputs.formats import Format
from tritone.engine.cli.outputs.lines import Origin
from tritone.engine.cli.outputs.results_folder import INDEX, ResultsFolder
from tritone.engine.outputs import Transcription
from tritone.scheduler.request import FinishReason

ORIGIN = Origin("digits", {"dtype": "float32"})
SPLIT = Origin("digits", {"dtype": "float32", "channels": "split"})
SRT, VTT, TEXT, JSON = Format.SRT, Format.VTT, Format.TEXT, Format.JSON
A, B, C = PATHS = [Path("talks/a.wav"), Path("talks/sub/né €.flac"), Path(os.fsdecode(b"talks/\xe9.wav"))]
ROOTS = (Path("talks"),)


def result(text: str = "one two", channel: int | None = None) -> Transcription:
    return Transcription(text, (2, 7, 2), FinishReason.STOP, 1.5, -0.25, channel=channel)


def failure(channel: int | None = None) -> Transcription:
    return Transcription("", (), FinishReason.ERROR, 0.0, error=ValueError("is empty"), channel=channel)


def opened(folder: Path, formats: Iterable[Format] = (SRT, VTT), paths=PATHS, **options) -> ResultsFolder:
    return ResultsFolder(folder, tuple(formats), **{"origin": ORIGIN, "roots": ROOTS} | options, paths=paths)


def write(
    folder: Path, formats: Iterable[Format] = (SRT, VTT), paths=PATHS, texts=(), **options
) -> list[Path]:
    """Write what is not there yet, as the command does; the recordings written."""
    with opened(folder, formats, paths, **options) as results:
        left = [path for path in paths if not results.has(path)]
        results.begin(left)
        for path in left:
            results.write(path, result(dict(texts).get(path, f"text of {path.stem!a}")))
        results.finish()
    return left


def content(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Names.


def planned(*paths: str, roots: Iterable[str] = (), owned: dict[str, str] | None = None) -> list[str]:
    known = {Path(path): name for path, name in (owned or {}).items()}
    return list(plan_names(list(map(Path, paths)), list(map(Path, roots)), known).values())


@pytest.mark.parametrize(
    ("paths", "roots", "names"),
    [
        (["x/a.wav", "y/b.v2.flac", "/z/c"], [], ["a", "b.v2", "c"]),
        (["talks/a.wav", "talks/sub/a.wav", "b.wav"], ["talks"], ["a", "sub/a", "b"]),
        (["a.flac", "a.wav", "b.wav"], [], ["a.flac", "a.wav", "b"]),
        (["x/a.wav", "y/a.wav"], [], ["x/a", "y/a"]),
        (["/x/a.wav", "../x/a.wav"], [], ["a.wav.2", "a.wav.3"]),
        (["a.flac", "a.wav", "a.flac.wav"], [], ["a.flac", "a.wav", "a.flac.wav"]),
        (["../a.wav", "b.wav"], ["."], ["a", "b"]),
        ([".wav", "..wav"], [], [".wav", "..wav"]),
        (["..", "/", "x/..", "../.."], [], ["recording.2", "recording.3", "x", "recording.4"]),
    ],
    ids=str,
)
def test_a_name_is_the_recordings_own_as_far_as_it_is_free(paths, roots, names):
    assert planned(*paths, roots=roots) == names


def test_a_name_leaves_space_for_suffixes_and_is_not_shared_where_case_does_not_count():
    (name,) = planned("x/" + "é" * 126 + ".wav")
    assert os.fsencode(name) == os.fsencode("é" * 126)[:231]
    assert len({name.casefold() for name in planned("A.wav", "a.wav", "b/É", "b/E\u0301")}) == 4


def test_names_of_earlier_runs_stay_and_are_not_given_again():
    assert planned("x/a.wav", "y/a.wav", owned={"x/a.wav": "a"}) == ["a", "y/a"]
    assert planned("a.flac", owned={"a.wav": "a"}) == ["a.flac"]
    assert planned("a.flac", owned={"x": "a", "y": "a.flac"}) == ["a.flac.2"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("aA./é", min_size=1, max_size=6).map(Path).filter(lambda path: path.name), unique=True),
    st.lists(st.sampled_from(["", "a", "A", "a/a"]).map(Path), max_size=2),
    st.integers(0, 4),
)
def test_no_two_recordings_share_a_name_and_a_continued_run_gives_the_same(paths, roots, done):
    plan = plan_names(paths, roots, {})
    keys = {f"{name}{suffix}".casefold() for name in plan.values() for suffix in (".srt", ".txt")}
    assert len(keys) == 2 * len(paths)
    for name in plan.values():
        assert not os.path.isabs(name)
        assert ".." not in Path(name).parts
    owned = {path: plan[path] for path in paths[:done]}
    assert plan_names(paths, roots, owned) == plan
    others = plan_names(paths[done:], roots, owned)
    assert not {name.casefold() for name in others.values()} & {name.casefold() for name in owned.values()}


# Files, and runs that complete them.


def test_each_recording_has_a_file_of_each_format_below_the_folders_it_was_in(tmp_path):
    write(tmp_path / "new" / "out")
    found = content(tmp_path / "new" / "out")
    names = ["a", "sub/né €", os.fsdecode(b"\xe9")]
    assert set(found) == {INDEX} | {f"{name}{suffix}" for name in names for suffix in (".srt", ".vtt")}
    assert found["a.srt"] == b"1\n00:00:00,000 --> 00:00:01,500\ntext of 'a'\n\n"
    assert found["a.vtt"].startswith(b"WEBVTT\n\n")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new" / "out" / "a.srt").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_later_run_writes_only_the_files_that_are_missing(tmp_path):
    write(tmp_path)
    before = content(tmp_path)
    assert write(tmp_path) == []
    assert content(tmp_path) == before
    (tmp_path / "a.srt").write_text("edited")
    (tmp_path / "a.vtt").unlink()
    (tmp_path / "sub" / "né €.srt").write_bytes(b"")  # as after a power failure
    assert write(tmp_path) == [A, B]
    assert content(tmp_path) == before | {"a.srt": b"edited"}
    assert write(tmp_path, (TEXT, SRT)) == PATHS
    assert content(tmp_path)["a.srt"] == b"edited"
    assert content(tmp_path)["a.txt"] == b"text of 'a'\n"
    assert write(tmp_path, (TEXT, VTT, SRT)) == []
    assert write(tmp_path, overwrite=True) == PATHS
    assert content(tmp_path)["a.srt"] == before["a.srt"]


def test_a_run_that_is_killed_anywhere_is_completed_to_the_files_of_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole)
    for kill_at in range(20):
        calls = 0

        def dying(real, kill_at=kill_at):
            def call(*given):
                nonlocal calls
                calls += 1
                if calls > kill_at:
                    raise KeyboardInterrupt
                return real(*given)

            return call

        with monkeypatch.context() as patched:
            patched.setattr(append_file, "_write", dying(append_file._write))
            patched.setattr(append_file.os, "replace", dying(os.replace))
            try:
                write(cut)
            except KeyboardInterrupt:
                pass
            else:
                break
        for name, data in content(cut).items():
            assert name == INDEX or data == content(whole)[name]
        write(cut)
        assert content(cut) == content(whole), kill_at
        for path in sorted(cut.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert kill_at == 16  # a header; a line, two files and their two names for each recording


def test_an_index_cut_at_any_byte_is_refused_or_completed(tmp_path):
    write(tmp_path)
    before = content(tmp_path)
    for length in range(len(before[INDEX]) + 1):
        (tmp_path / INDEX).write_bytes(before[INDEX][:length])
        known = before[INDEX][:length].count(b"\n") - 1
        if known == len(PATHS):
            assert write(tmp_path) == []
            continue
        with pytest.raises(ValueError, match="is there already and no result"):
            write(tmp_path)
        assert content(tmp_path)[INDEX] == before[INDEX][:length]


def test_results_of_another_model_or_other_options_are_never_mixed(tmp_path):
    write(tmp_path)
    before = content(tmp_path)
    other = Origin("/another", ORIGIN.options)
    with pytest.raises(
        ValueError, match=r"made with model digits, dtype float32, but this call has"
    ) as raised:
        write(tmp_path, origin=other)
    assert str(other) in str(raised.value)
    assert content(tmp_path) == before
    write(tmp_path, origin=other, overwrite=True)
    assert write(tmp_path, origin=other) == []


@pytest.mark.parametrize(
    "index",
    [
        b"a note\n",
        b"# tritone {}\n",
        b'# tritone {"model": "digits", "options": {"dtype": "float32"}}\n[]\n',
        b'# tritone {"model": "digits", "options": {"dtype": "float32"}}\n'
        b'{"path": "a", "name": "../../b", "formats": [], "channels": null}\n',
        b'# tritone {"model": "digits", "options": {"dtype": "float32"}}\n'
        b'{"path": "a", "name": "b", "formats": ["exe"], "channels": null}\n',
    ],
)
def test_an_index_of_something_else_is_refused_and_left_alone(tmp_path, index):
    (tmp_path / INDEX).write_bytes(index)
    with pytest.raises(ValueError, match=r"line \d is not one that tritone writes|made with"):
        write(tmp_path)
    assert content(tmp_path) == {INDEX: index}


def test_files_that_are_no_results_are_never_written_over(tmp_path):
    (tmp_path / "a.vtt").write_text("a script")
    with pytest.raises(ValueError, match=r"a\.vtt: is there already and no result of tritone; name another"):
        write(tmp_path)
    assert content(tmp_path) == {INDEX: b"", "a.vtt": b"a script"}
    write(tmp_path, (SRT,))
    with pytest.raises(ValueError, match=r"a\.vtt: is there already"):
        write(tmp_path)
    (tmp_path / "a.vtt").unlink()
    with opened(tmp_path) as results:
        results.begin(PATHS)
        (tmp_path / "a.vtt").write_text("late")
        with pytest.raises(FileExistsError, match=r"a\.vtt: is there already"):
            results.write(A, result())
    assert (tmp_path / "a.vtt").read_text() == "late"


def test_a_recording_is_never_written_over_even_with_overwrite(tmp_path):
    recording = tmp_path / "a.txt"
    recording.write_bytes(b"RIFF")
    (tmp_path / "link").symlink_to(recording)
    for paths in ([recording], [tmp_path / "x" / "a.wav", tmp_path / "link"]):
        with pytest.raises(ValueError, match=r"a\.txt: is one of the recordings; name another folder"):
            write(tmp_path, (TEXT,), paths, roots=(), overwrite=True)
    assert recording.read_bytes() == b"RIFF"


def test_recordings_of_one_name_in_two_runs_have_files_each(tmp_path):
    write(tmp_path, (TEXT,), [Path("x/a.wav")], roots=(), texts={Path("x/a.wav"): "first"})
    write(tmp_path, (TEXT,), [Path("y/a.wav")], roots=(), texts={Path("y/a.wav"): "second"})
    assert (tmp_path / "a.txt").read_text() == "first\n"
    assert (tmp_path / "a.wav.txt").read_text() == "second\n"


def test_channels_have_files_each_and_are_done_when_all_are_there(tmp_path):
    with opened(tmp_path, (TEXT,), [A, B], origin=SPLIT) as results:
        results.begin([A, B])
        results.write(A, result("left", 0), failure(1))
        results.write(B, failure())
    assert set(content(tmp_path)) == {INDEX, "a.channel0.txt"}
    with opened(tmp_path, (TEXT,), [A, B], origin=SPLIT) as results:
        assert (results.has(A), results.has(B), results.count) == (False, False, 0)
        results.begin([A, B])
        results.write(A, result("left", 0), result("right", 1))
        results.write(B, result("mono", 0))
    with opened(tmp_path, (TEXT,), [A, B], origin=SPLIT) as results:
        assert (results.has(A), results.has(B), results.count) == (True, True, 2)
    assert set(content(tmp_path)) == {INDEX, "a.channel0.txt", "a.channel1.txt", "sub/né €.channel0.txt"}


def test_a_full_disk_leaves_whole_files_alone(tmp_path, monkeypatch):
    with opened(tmp_path) as results:
        results.begin(PATHS)
        results.write(A, result())
        before = content(tmp_path)
        sizes = []

        def half_written(file: FileIO, data: bytes) -> None:
            if not sizes:  # the line of the index is written
                file.write(data)
                sizes.append(len(data))
                return
            file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(append_file, "_write", half_written)
        with pytest.raises(OSError, match="No space left"):
            results.write(B, result())
        after = content(tmp_path)
    assert {name: data for name, data in after.items() if name != INDEX} == {
        name: data for name, data in before.items() if name != INDEX
    }
    monkeypatch.undo()
    assert write(tmp_path) == [B, C]


@pytest.mark.skipif(append_file.fcntl is None, reason="no such locks")
def test_two_runs_never_write_one_folder(tmp_path):
    with opened(tmp_path), pytest.raises(ValueError, match="another run is writing it"):
        opened(tmp_path)


def test_an_index_that_is_lost_during_a_run_is_noticed(tmp_path):
    with opened(tmp_path) as results:
        results.begin(PATHS)
        results.write(A, result())
        (tmp_path / INDEX).unlink()
        with pytest.raises(OSError, match="deleted, moved or replaced"):
            results.write(B, result())
        with pytest.raises(OSError, match="deleted, moved or replaced"):
            results.finish()


def test_the_index_is_read_by_any_reader_of_json(tmp_path):
    write(tmp_path, (JSON,))
    header, *lines = (tmp_path / INDEX).read_text().splitlines()
    assert json.loads(header.removeprefix("# tritone "))["model"] == "digits"
    assert [os.fsencode(json.loads(line)["path"]) for line in lines] == list(map(os.fsencode, PATHS))
    assert results_folder.INDEX not in {f"x{one.suffix}" for one in Format}
