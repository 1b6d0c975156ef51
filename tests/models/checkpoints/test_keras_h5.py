"""Hostile HDF5 files, made with h5py: a clear error each, and no file but the one that was named is read."""

import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import GOLDEN, read_converted

from tritone.models.checkpoints.keras_h5 import _SCRIPT as SCRIPT

h5py = pytest.importorskip("h5py")
HUGE = 1 << 40


def h5_files() -> dict[str, tuple[Callable[[Any, Path], Any], str]]:
    ones = np.ones((2, 2), "f4")

    def external_link(file: Any, folder: Path) -> None:
        file["layer/w"] = h5py.ExternalLink(str(folder.parent / "outside.h5"), "/layer/w")

    def external_data(file: Any, folder: Path) -> None:
        (folder.parent / "outside.bin").write_bytes(b"secret" * 10)
        file.create_dataset("layer/w", (4,), "f4", external=[(str(folder.parent / "outside.bin"), 0, 16)])

    def virtual(file: Any, folder: Path) -> None:
        layout = h5py.VirtualLayout((2, 2), "f4")
        layout[:] = h5py.VirtualSource(str(folder.parent / "outside.h5"), "layer/w", (2, 2))
        file.create_virtual_dataset("layer/w", layout)

    def cycle(file: Any, folder: Path) -> None:
        file.create_group("layer")["again"] = file["/"]

    def many_names(file: Any, folder: Path) -> None:
        first = file.create_dataset("layer/w", data=np.zeros(4000, "f4"))
        for number in range(100):
            file[f"layer/w{number}"] = first

    return {
        "a link to another file": (external_link, "links are not followed"),
        "a link by path": (
            lambda file, _: file.__setitem__("w", h5py.SoftLink("/x")),
            "links are not followed",
        ),
        "data in another file": (external_data, "does not lie in the file in one piece"),
        "data put together from other files": (virtual, "does not lie in the file in one piece"),
        "a group in itself": (cycle, "nested over 32 deep"),
        "a group in several": (
            lambda file, _: file.__setitem__("again", file.create_group("layer")),
            "or one in several",
        ),
        "no data of another file": (
            lambda file, folder: file.create_dataset("w", (0,), "f4", external=[("/etc/passwd", 0, 16)]),
            "does not lie in the file in one piece",
        ),
        "one tensor by many names": (many_names, "its tensors overlap"),
        "a terabyte that is not there": (
            lambda file, _: file.create_dataset("layer/w", (HUGE,), "f4"),
            "does not lie in the file in one piece",
        ),
        "a gigabyte out of little": (
            lambda file, _: file.create_dataset(
                "layer/w", (1 << 28,), "f4", chunks=(1 << 24,), compression="gzip", fillvalue=0
            ),
            "does not lie in the file in one piece",
        ),
        "big-endian": (
            lambda file, _: file.create_dataset("layer/w", data=ones.astype(">f4")),
            "little-endian",
        ),
        "complex": (lambda file, _: file.create_dataset("layer/w", data=ones.astype("c8")), "complex64"),
        "text": (lambda file, _: file.create_dataset("layer/w", data="hello"), "is no little-endian array"),
        "a structure": (
            lambda file, _: file.create_dataset("layer/w", (1,), "f4,i4"),
            "no little-endian array",
        ),
        "a name without an end": (
            lambda file, _: file.create_dataset("layer/" + "x" * 600, data=ones),
            "over 512",
        ),
        "two values": (
            lambda file, _: [
                file.create_dataset(f"{name}/m/w:0", data=ones * len(name)) for name in ("a", "bb")
            ],
            "two values of 'm/w:0'",
        ),
    }


@pytest.mark.parametrize("name", h5_files())
def test_a_hostile_h5_is_refused(name, tmp_path):
    make, problem = h5_files()[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["layer/w"] = [[1.0, 2.0], [3.0, 4.0]]
    with h5py.File(folder / "tf_model.h5", "w") as file:
        make(file, folder)
    with pytest.raises(ValueError, match=problem):
        read_converted(folder, "TensorFlow")


def old_tree(folder: Path) -> tuple[bytearray, int]:
    """A file of 400 groups, and where the root of the tree of their names is."""
    with h5py.File(folder / "tf_model.h5", "w", libver="earliest") as file:
        for number in range(400):
            file.create_group(f"g{number:05d}")
    content = bytearray((folder / "tf_model.h5").read_bytes())
    root = next(at for at in range(len(content)) if content[at : at + 6] == b"TREE\0\1")
    return content, root


def test_an_h5_that_the_library_does_not_survive_is_refused(tmp_path):
    content, root = old_tree(tmp_path)
    content[root + 32 : root + 40] = struct.pack("<Q", root)  # a branch that leads to itself
    (tmp_path / "tf_model.h5").write_bytes(content)
    with pytest.raises(ValueError, match=r"tf_model\.h5 is damaged"):
        read_converted(tmp_path, "TensorFlow")


def test_an_h5_of_names_without_end_is_refused_before_they_are_listed(tmp_path):
    """A tree whose branches lead to the same leaves again and again: 13 million names in 325 KB."""
    content, root = old_tree(tmp_path)
    node, child = bytes(content[root:]), root
    used = struct.unpack_from("<H", node, 6)[0]
    first, last = node[24:32], node[24 + 16 * used : 32 + 16 * used]
    for level in (2, 3, 4):
        at = len(content)
        content += b"TREE\0" + bytes([level]) + struct.pack("<H", 32) + b"\xff" * 16 + first
        content += (struct.pack("<Q", child) + last) * 32 + bytes(24)
        child = at
    for at in range(root):
        if content[at : at + 8] == struct.pack("<Q", root):
            content[at : at + 8] = struct.pack("<Q", child)
    content[40:48] = struct.pack("<Q", len(content))
    (tmp_path / "tf_model.h5").write_bytes(content)
    with pytest.raises(ValueError, match="it has over 200000 names"):
        read_converted(tmp_path, "TensorFlow")


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
def test_the_table_of_an_h5_is_read_under_limits():
    """The script's own process has them; this one's stay as they are."""
    code = (
        f"import runpy; script = runpy.run_path({str(SCRIPT)!r}); script['set_limits']();"
        "import resource; print(resource.getrlimit(resource.RLIMIT_CPU)[0]);"
        "print(len(bytes(1 << 31)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 20 <= int(run.stdout) < 60
    assert "MemoryError" in run.stderr


def test_an_h5_that_ends_too_early_is_refused_wherever_it_ends(tmp_path):
    with zipfile.ZipFile(GOLDEN / "tensorflow_checkpoints.zip") as archive:
        content = archive.read("albert/tf_model.h5")
    for kept in (0, 7, 100, 2000, len(content) // 2, len(content) - 1):
        (tmp_path / "tf_model.h5").write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"tf_model\.h5 is damaged"):
            read_converted(tmp_path, "TensorFlow")
