"""Search for recordings: folders, links, globs, names of any bytes, missing rights and files."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tritone.engine.audio.finder import AudioSearch, find_audio
from tritone.engine.audio.reader import AudioError, load_audio

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="names there are text, or links need rights")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path, *paths: str) -> list[str]:
    """Names below a folder of the recordings at paths below it."""
    found = find_audio([f"{folder}/{path}" for path in paths])
    return [str(path.relative_to(folder)) for path in found]


def problems(*paths: object) -> dict[str, str]:
    """Messages of a search by path."""
    search = AudioSearch()
    found = [one for path in paths for one in search.find(str(path))]
    return {str(path): str(problem) for path, problem in found if problem is not None}


def test_folders_are_searched_to_the_bottom_in_order_and_files_taken_as_they_are(tmp_path):
    for name in ("b.wav", "a.FLAC", "sub/deep/c.mp3", "notes.txt", ".hidden.wav", "d.m4a", "b.x/e.wav"):
        touch(tmp_path / name)
    found = find_audio([tmp_path, tmp_path / "notes.txt", tmp_path / "b.wav"])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        *("a.FLAC", "b.wav", "b.x/e.wav", "d.m4a", "sub/deep/c.mp3"),
        "notes.txt",
    ]
    assert found[:-1] == sorted(found[:-1])


def test_a_glob_finds_audio_and_a_file_named_like_one_is_a_file(tmp_path):
    for name in ("x1.wav", "x2.wav", "x3.txt", "take[1].wav", "take1.wav"):
        touch(tmp_path / name)
    assert names(tmp_path, "x*") == ["x1.wav", "x2.wav"]
    assert names(tmp_path, "take[1].wav") == ["take[1].wav"]


def test_a_glob_matches_components_and_folders_with_all_that_is_in_them(tmp_path, monkeypatch):
    for name in ("a/1/x.wav", "a/2/y.wav", "b/1/x.wav", "b/z.wav", ".c/w.wav", "a/.d/v.wav", "a/n.txt"):
        touch(tmp_path / name)
    assert names(tmp_path, "*/1/x.wav") == ["a/1/x.wav", "b/1/x.wav"]
    assert names(tmp_path, "?/[12]/*.wav") == ["a/1/x.wav", "a/2/y.wav", "b/1/x.wav"]
    assert names(tmp_path, "**/x.wav") == ["a/1/x.wav", "b/1/x.wav"]
    assert names(tmp_path, "**/**/x.wav") == ["a/1/x.wav", "b/1/x.wav"]
    assert names(tmp_path, "a/**/*.wav") == ["a/1/x.wav", "a/2/y.wav"]
    assert names(tmp_path, "b*") == ["b/1/x.wav", "b/z.wav"]
    assert names(tmp_path, "b/*/") == ["b/1/x.wav"]
    assert names(tmp_path, "[b]/**") == ["b/1/x.wav", "b/z.wav"]
    assert names(tmp_path, "*/../b/z.wav") == ["b/z.wav"]
    monkeypatch.chdir(tmp_path)
    assert find_audio(["*/z.wav"]) == [Path("b/z.wav")]
    assert find_audio(["./*/z.wav", "b"]) == [Path("b/z.wav"), Path("b/1/x.wav")]


def test_a_path_that_does_not_exist_or_holds_no_audio_is_an_error(tmp_path):
    with pytest.raises(AudioError, match=r"nowhere\.wav: no such file or folder"):
        find_audio([tmp_path / "nowhere.wav"])
    with pytest.raises(AudioError, match="no audio files"):
        find_audio([tmp_path])
    with pytest.raises(AudioError, match="no audio files"):
        find_audio([f"{tmp_path}/*.wav"])


@pytest.mark.parametrize("pattern", ["", "**/*.wav", "**", "*", "*/**/*.wav"])
def test_folders_behind_links_are_searched_and_each_real_one_once(tmp_path, pattern):
    tree, away = tmp_path / "tree", tmp_path / "away"
    touch(tree / "real" / "x.wav", tree / "z" / "y.wav", away / "in" / "v.wav")
    (tree / "a").symlink_to("real")  # sorts before the real folder
    (tree / "real" / "up").symlink_to("..")
    (tree / "real" / "self").symlink_to(".")
    (tree / "z" / "two").symlink_to(away)
    (tree / "z" / "one").symlink_to(away / "in")
    found = names(tree, pattern)
    # Real names first, then links by name: z/one comes before z/two, which holds the same folder.
    assert found == ["real/x.wav", "z/one/v.wav", "z/y.wav"]


def test_a_folder_has_the_same_name_in_all_arguments(tmp_path):
    touch(tmp_path / "real" / "x.wav", tmp_path / "real" / "sub" / "y.wav")
    (tmp_path / "link").symlink_to("real")
    assert names(tmp_path, "link", "real", "*/sub") == ["link/sub/y.wav", "link/x.wav"]
    assert names(tmp_path, "real/sub", "real") == ["real/sub/y.wav", "real/x.wav"]
    assert names(tmp_path, "real/x.wav", "link/x.wav") == ["real/x.wav", "link/x.wav"]  # files as given


def test_a_tree_deeper_than_a_path_may_be_long_is_searched_and_its_end_named(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    touch(tmp_path / ("d" * 200) / "x.wav")
    found = list(AudioSearch().find(tmp_path))
    assert [path.name for path, problem in found if problem is None] == ["x.wav"]
    assert ["too long" in str(problem) for _, problem in found if problem is not None] == [True]


@ON_LINUX
def test_a_name_of_any_bytes_is_found_in_a_folder_and_by_a_glob(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9 \xff"
    os.mkdir(folder)
    for name in (b"\xe9\x80.WAV", b"\n\x1b.wav", b" .wav"):
        Path(os.fsdecode(folder + b"/" + name)).touch()
    wanted = sorted(os.listdir(folder))
    for given in (tmp_path, f"{tmp_path}/**/*.[wW]*", f"{tmp_path}/caf\udce9*"):
        assert sorted(os.fsencode(path.name) for path in find_audio([given])) == wanted


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("", "an empty path"),
        (" ", "' ': no such file"),
        ("\t\n", r"'\t\n': no such file"),
        ("a\0b", "not a file name"),
        ("a\0*", "no audio files there"),
        ("x" * 300, "too long for a file (300 characters)"),
        ("[x]" * 300, "no audio files there"),
        ("d/" * 3000, "too long"),
        ("file.wav/x.wav", "no such file or folder"),
        *((address, "addresses are not fetched") for address in (
            *("http://host/a.wav", "HTTPS://host/a?b=*", "s3://bucket/key.flac", "file:///tmp/a.wav"),
            *("gs://b/k", "rtsp://cam", "https:/host/a.wav", "data:audio/wav;base64,UklGRg=="),
        )),
    ],
    ids=lambda value: repr(value[:20]),
)  # fmt: skip
def test_a_name_that_is_none_has_its_reason(tmp_path, monkeypatch, given, wrong):
    monkeypatch.chdir(tmp_path)
    touch(Path("file.wav"))
    with pytest.raises(AudioError, match=re.escape(wrong)):
        find_audio([given])
    if given and "*" not in given and "[" not in given:
        with pytest.raises(AudioError, match=re.escape(wrong)):
            load_audio(given, 16_000)


def test_a_file_whose_path_reads_as_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(Path("http:/host/a.wav"))
    assert find_audio(["http://host/a.wav"]) == [Path("http:/host/a.wav")]


@ON_LINUX
def test_links_that_lead_nowhere_are_named_where_they_may_hold_sound(tmp_path):
    touch(tmp_path / "good.wav")
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "disk").symlink_to("/no/such/disk")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    (tmp_path / ".#lock").symlink_to("user@host")
    found = {path.name: problem for path, problem in AudioSearch().find(tmp_path)}
    assert found.keys() == {"good.wav", "gone.wav", "loop.wav", "disk", "round"}  # reading names the .wav
    assert "a link to /no/such/disk, which does not exist" in str(found["disk"])
    assert "leads back to itself" in str(found["round"])
    for name in ("gone.wav", "loop.wav", "disk"):
        (message,) = problems(tmp_path / name).values()
        assert "a link" in message
        with pytest.raises(AudioError, match="a link"):
            load_audio(tmp_path / name, 16_000)


@ON_LINUX
def test_pipes_and_sockets_are_listed_for_reading_to_name_them(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.wav"))
        assert names(tmp_path, "") == ["pipe.wav", "socket.wav"]
        for name in names(tmp_path, ""):
            with pytest.raises(AudioError, match="pipe or device"):
                load_audio(tmp_path / name, 16_000)


def test_a_folder_that_vanishes_while_it_is_listed_is_named_and_the_others_are_searched(
    tmp_path, monkeypatch
):
    touch(tmp_path / "a" / "x.wav", tmp_path / "b" / "y.wav")
    real = os.scandir

    def scandir(folder):
        if os.path.basename(folder) == "a":
            raise FileNotFoundError(2, "No such file or directory", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(AudioSearch().find(tmp_path))
    assert [(path.name, problem is None) for path, problem in found] == [("a", False), ("y.wav", True)]


@pytest.mark.parametrize("pattern", ["", "/**/*.wav", "/*", "/*/*.wav", "/*/x.wav", "/*/"])
def test_a_folder_without_rights_is_named_and_the_others_are_searched(tmp_path, pattern):
    touch(tmp_path / "open" / "x.wav", tmp_path / "shut" / "x.wav", tmp_path / "listed" / "x.wav")
    (tmp_path / "shut").chmod(0)
    (tmp_path / "listed").chmod(0o644)  # its names can be listed, and nothing else
    (tmp_path / "open" / "behind").symlink_to("../shut/sub")
    run = as_nobody(
        tmp_path,
        "from tritone.engine.audio.finder import AudioSearch\n"
        f"for found in AudioSearch().find({str(tmp_path) + pattern!r}):\n"
        "    print(*found, sep=';')",
    )
    (tmp_path / "shut").chmod(0o755)
    found = dict(line.replace(str(tmp_path) + "/", "").split(";", 1) for line in run.splitlines())
    assert found["open/x.wav"] == "None"
    (shut,) = (problem for name, problem in found.items() if name.startswith("shut"))
    assert "shut" in shut
    assert "Permission denied" in shut
    assert any(name.startswith("listed") for name in found)


def as_nobody(folder: Path, code: str) -> str:
    """Standard output of Python code that runs as a user without rights."""
    command = [sys.executable, "-c", code]
    if os.getuid() == 0:
        for parent in (folder, *folder.parents):  # pytest's own folders are its user's alone
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 1:
                parent.chmod(parent.stat().st_mode | 0o055)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
