"""Lines of results and the files that hold them: cut anywhere, continued, refused, never mixed."""

import errno
import json
import os
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tritone.engine.cli.outputs.lines import LineFormat, Origin, json_line, text_line
from tritone.engine.cli.outputs.results_file import ResultsFile
from tritone.engine.outputs import Span, Transcription
from tritone.scheduler.request import FinishReason

ORIGIN = Origin("digits", {"dtype": "float32"})
TEXT, JSONL = LineFormat.TEXT, LineFormat.JSONL
PATHS = [
    Path("a.wav"),
    Path("sub/né €.flac"),
    Path("tab\tand\nline\\end.wav"),
    Path(os.fsdecode(b"\xe9.wav")),
]


def result(text: str = "") -> Transcription:
    return Transcription(text, (2, 7, 2), FinishReason.STOP, 1.5, -0.25)


def failure(message: str = "a.wav: is empty") -> Transcription:
    return Transcription("", (), FinishReason.ERROR, 0.0, error=ValueError(message))


def write(path: Path, line_format: LineFormat = JSONL, results=None, **options) -> ResultsFile:
    """Writes what is not there yet, as the command does."""
    results = results or {name: result(f"text of {number}\n€") for number, name in enumerate(PATHS)}
    with ResultsFile(path, line_format, **{"origin": ORIGIN} | options) as file:
        left = {name: value for name, value in results.items() if not file.has(name)}
        file.begin(left)
        for name, value in left.items():
            file.write(name, value)
    return file


def lines(path: Path) -> list[str]:
    return path.read_bytes().decode().split("\n")[:-1]


def test_words_are_in_a_json_line_where_the_model_knows_their_times():
    words = (Span("ONE", 0.1, 0.30000000000000004), Span("TWO", 0.5, 1.0))
    found = json.loads(json_line(PATHS[0], replace(result("ONE TWO"), words=words), ORIGIN))
    assert found["words"] == [
        {"word": "ONE", "start": 0.1, "end": 0.3},
        {"word": "TWO", "start": 0.5, "end": 1.0},
    ]
    assert json.loads(json_line(PATHS[0], replace(result(), words=()), ORIGIN))["words"] == []
    assert "words" not in json.loads(json_line(PATHS[0], result("no times"), ORIGIN))


@pytest.mark.parametrize("line_format", LineFormat)
def test_a_file_cut_at_any_byte_is_continued_to_the_bytes_of_an_uninterrupted_one(tmp_path, line_format):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write(whole, line_format)
    content = whole.read_bytes()
    assert content.count(b"\n") == len(PATHS) + (line_format is TEXT)
    for length in range(len(content) + 1):
        cut.write_bytes(content[:length])
        write(cut, line_format)
        assert cut.read_bytes() == content, length


def test_a_last_line_that_a_power_failure_filled_with_zeros_is_dropped(tmp_path):
    path = tmp_path / "out"
    write(path)
    content = path.read_bytes()
    for tail in (b"\0" * 100, b'{"path": "x' + b"\0" * 50):
        path.write_bytes(content + tail)
        write(path)
        assert path.read_bytes() == content


def test_failures_are_taken_out_and_tried_again_and_results_stay(tmp_path):
    path = tmp_path / "real"
    link = tmp_path / "link"
    link.symlink_to(path)
    a, b, c = PATHS[:3]
    write(link, results={a: result("1"), b: failure(), c: result("3")})
    path.chmod(0o640)
    before = lines(path)
    with ResultsFile(link, JSONL, ORIGIN) as file:
        assert file.count == 2
        assert [file.has(name) for name in PATHS] == [True, False, True, False]
        assert [file.failed(name) for name in PATHS] == [False, True, False, False]
        assert lines(path) == before
    write(link, results={a: failure("not asked"), b: result("2"), c: failure("not asked")})
    assert lines(path) == [before[0], before[2], json_line(b, result("2"), ORIGIN)]
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "real"]


def test_failures_that_a_run_does_not_try_again_stay(tmp_path):
    path = tmp_path / "out"
    a, b, c, d = [*PATHS[:3], Path("d.wav")]
    write(path, results={a: failure("1"), b: result("2"), c: failure("3")})
    before = lines(path)
    path.write_bytes(path.read_bytes() + b'{"path": "torn')
    write(path, results={a: result("1"), d: result("4")})
    assert lines(path) == [
        before[1],
        before[2],
        json_line(a, result("1"), ORIGIN),
        json_line(d, result("4"), ORIGIN),
    ]


def test_a_run_killed_while_failures_are_taken_out_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "out"
    a, b, c = PATHS[:3]
    write(path, results={a: result("1"), b: failure(), c: result("3")})
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write(path, results={a: result(), b: result("2"), c: result()})
    assert [json.loads(line)["text"] for line in lines(path)] == ["1", "3", "2"]


@pytest.mark.parametrize("line_format", LineFormat)
@pytest.mark.parametrize(
    "other", [Origin("/another", ORIGIN.options), Origin("digits", ORIGIN.options | {"num_beams": 5})]
)
def test_lines_of_another_model_or_other_options_are_never_mixed_in(tmp_path, line_format, other):
    path = tmp_path / "out"
    write(path, line_format)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"made with model digits, dtype float32 \(line 1\).*this call has "
    ) as raised:
        write(path, line_format, origin=other)
    assert str(other) in str(raised.value)
    assert path.read_bytes() == before
    write(path, line_format, origin=other, overwrite=True)
    write(path, line_format, origin=other)
    assert len(lines(path)) == len(before.decode().split("\n")) - 1
    assert other.model in lines(path)[0]


@pytest.mark.parametrize("line_format", LineFormat)
@pytest.mark.parametrize(
    "content",
    [
        b"no such thing\n",
        b"no line end",
        b"\x00\x01\xff" * 99,
        b"x" * (1 << 23),
        b'{"path": "a.wav", "text": "no model"}\n',
        b'{"path": 7, "error": null, "model": "m", "options": {}}\n',
        b'{"path": "a.wav", "error": null, "model": "m", "options": {}}\n[1]\n',
        b"[" * 100_000 + b"\n",
        b"7\n",
        b"# tritone {}\n",
        b"# tritone 7\na\tb\n",
        b'# tritone {"model": "digits", "options": {"dtype": "float32"}}\nno tab\n',
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_file_that_something_else_wrote_is_refused_and_left_alone(tmp_path, line_format, content):
    path = tmp_path / "thesis.tex"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"thesis\.tex: (line \d|made with).*name another file, or --overwrite it"
    ):
        write(path, line_format)
    assert path.read_bytes() == content
    write(path, line_format, overwrite=True)
    assert len(lines(path)) == len(PATHS) + (line_format is TEXT)


def test_opening_changes_nothing(tmp_path):
    path = tmp_path / "out"
    write(path, results={PATHS[0]: failure()})
    path.write_bytes(path.read_bytes() + b'{"pa')
    before = path.read_bytes()
    for overwrite in (False, True):
        with ResultsFile(path, JSONL, ORIGIN, overwrite=overwrite):
            pass
        assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_runs_never_write_one_file(tmp_path):
    path = tmp_path / "out"
    write(path, results={PATHS[0]: failure()})
    with ResultsFile(path, JSONL, ORIGIN) as first:
        for _ in range(2):
            with pytest.raises(ValueError, match="another run is writing it"):
                ResultsFile(path, JSONL, ORIGIN, overwrite=True)
            first.begin(PATHS)  # which replaces the file
        first.write(PATHS[0], result("1"))
    write(path, results={PATHS[0]: failure()})
    assert [json.loads(line)["text"] for line in lines(path)] == ["1"]


# Links, other programs and lost files.


def test_a_link_planted_for_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    path, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_text("precious")
    real = secrets.token_hex

    def foreseen(count):
        token = real(count)
        (tmp_path / f".tritone-{token}.part").symlink_to(victim)
        return token

    for name in (".part", "out.part", ".out.part"):
        (tmp_path / name).symlink_to(victim)
    write(path, results={PATHS[0]: failure()})
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(secrets, "token_hex", foreseen)
        with pytest.raises(FileExistsError):
            write(path)
    assert path.read_bytes() == before
    write(path)
    assert victim.read_text() == "precious"
    assert len(lines(path)) == len(PATHS)


def test_the_temporary_file_is_private_and_the_new_one_has_the_owner_and_rights_of_the_old(
    tmp_path, monkeypatch
):
    path = tmp_path / ("o" * 255)  # as long as names can be
    write(path, results={PATHS[0]: failure()})
    path.chmod(0o604)
    if os.getuid() == 0:
        os.chown(path, 1234, 1235)
    owner = (path.stat().st_uid, path.stat().st_gid)
    modes = []
    real = os.fchown
    monkeypatch.setattr(
        os, "fchown", lambda file, *ids: [modes.append(os.fstat(file).st_mode), real(file, *ids)]
    )
    write(path)
    assert [mode & 0o777 for mode in modes] == [0o600]
    assert path.stat().st_mode & 0o777 == 0o604
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def rewritten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[::-1] + b"more")


def appended(path: Path) -> None:
    with path.open("a") as file:
        file.write("a note\n")


FATES = {
    "deleted": (Path.unlink, "deleted, moved or replaced"),
    "moved": (lambda path: path.rename(path.with_name("moved")), "deleted, moved or replaced"),
    "replaced": (lambda path: path.with_name("b").replace(path), "deleted, moved or replaced"),
    "emptied": (lambda path: os.truncate(path, 0), "changed by another program"),
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 1), "changed by another program"),
    "appended to": (appended, "changed by another program"),
    "written over": (rewritten, "changed by another program"),
    "a folder now": (lambda path: [path.unlink(), path.mkdir()], "deleted, moved or replaced"),
    "a broken link now": (lambda path: [path.unlink(), path.symlink_to("x")], "deleted, moved or replaced"),
    "a link to a copy now": (
        lambda path: [path.rename(path.with_name("c")), path.symlink_to("b")],
        "deleted, moved or replaced",
    ),
    "in a lost folder": (lambda path: path.parent.rename(path.parent.with_name("lost")), "deleted, moved"),
}


@pytest.mark.parametrize("when", ["before begin", "before a line", "at the end"])
@pytest.mark.parametrize("fate", FATES)
def test_a_file_that_something_else_changes_or_removes_during_a_run_is_noticed(tmp_path, fate, when):
    change, message = FATES[fate]
    path = tmp_path / "folder" / "out"
    path.parent.mkdir()
    write(path, results={PATHS[0]: result("1"), PATHS[1]: failure()})
    path.with_name("b").write_bytes(path.read_bytes())
    with ResultsFile(path, JSONL, ORIGIN) as file:
        if when == "before begin":
            change(path)
            if "changed" in message:
                return  # the lines are read again then
            with pytest.raises(OSError, match=message):
                file.begin(PATHS)
            return
        file.begin(PATHS)
        file.write(PATHS[1], result("2"))
        change(path)
        with pytest.raises(OSError, match=message):
            file.write(PATHS[2], result("3")) if when == "before a line" else file.finish()


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "out"
    with ResultsFile(path, JSONL, ORIGIN) as file:
        file.begin(())
        file.write(PATHS[0], result("1"))
        before = path.read_bytes()
        monkeypatch.setattr("tritone.engine.cli.outputs.append_file._write", half_written)
        with pytest.raises(OSError, match="No space left"):
            file.write(PATHS[1], result("2"))
    assert path.read_bytes() == before


def half_written(file, data: bytes) -> None:
    file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipes")
def test_a_named_pipe_gets_the_lines(tmp_path):
    os.mkfifo(path := tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit(path.read_bytes)
        write(path)
        assert len(read.result(60).splitlines()) == len(PATHS)


# Names.


NAMES = [b"caf\xe9.wav", b"\xff\\\t\n\x1b.wav", "né €\u202e😀.wav".encode(), b"\\xe9 \\udce9.wav", b"a.wav"]


@pytest.mark.skipif(sys.platform != "linux", reason="names there are text")
@pytest.mark.parametrize("line_format", LineFormat)
def test_a_reader_of_the_file_recovers_the_bytes_of_any_name_and_a_later_run_knows_it(tmp_path, line_format):
    path = tmp_path / "out"
    paths = [Path(os.fsdecode(name)) for name in NAMES]
    write(path, line_format, {name: result("x") for name in paths})
    found = lines(path)
    if line_format is JSONL:
        names = [os.fsencode(json.loads(line)["path"]) for line in found]
    else:  # as docs/errors.md has it
        shown = [line.partition("\t")[0] for line in found[1:]]
        names = [
            os.fsencode(name.encode("latin-1", "backslashreplace").decode("unicode_escape")) for name in shown
        ]
    assert names == NAMES
    with ResultsFile(path, line_format, ORIGIN) as file:
        assert all(map(file.has, paths))


def test_a_json_line_has_no_control_characters(tmp_path):
    text = "".join(map(chr, (*range(0xA1), 0x202E, 0x2066, 0x200F)))
    line = json_line(Path(f"{text}.wav"), result(text), ORIGIN)
    assert all(character.isprintable() or character == "\xa0" for character in line)
    assert json.loads(line)["text"] == text


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_device_is_written_to_and_a_full_disk_is_an_error(tmp_path):
    write(Path("/dev/null"))
    write(Path("/dev/null"), overwrite=True)
    with pytest.raises(OSError, match="No space left"):
        write(Path("/dev/full"))


def test_a_line_of_text_is_one_line_with_one_path():
    assert (
        text_line(Path("a\tb\nc\\d.wav"), result("one\ntwo\t three ")) == "a\\tb\\nc\\\\d.wav\tone two three"
    )
    for end in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029":
        path = Path(f"a{end}b.wav")
        assert len(text_line(path, result("one")).splitlines()) == 1
        (line,) = json_line(path, result(f"c{end}d"), ORIGIN).splitlines()
        assert (json.loads(line)["path"], json.loads(line)["text"]) == (str(path), f"c{end}d")
    assert text_line(None, result(" one\ntwo")) == "one two"


def test_a_failure_has_no_line_of_text_and_a_json_line_with_the_reason(tmp_path):
    path = tmp_path / "out"
    write(path, TEXT, {PATHS[0]: failure(), PATHS[1]: result("x")})
    assert lines(path)[1:] == [f"{PATHS[1]}\tx"]
    record = json.loads(json_line(PATHS[0], failure("a\nb"), ORIGIN))
    assert (record["text"], record["error"], record["finish_reason"]) == (None, "a\nb", "error")
    assert json.loads(json_line(PATHS[0], failure(""), ORIGIN))["error"] == "ValueError('')"
