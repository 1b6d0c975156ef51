"""Hostile HDF5 files, made with h5py: a clear error each, and no file but the one that was named is read."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritone.models.conversion import read_foreign
from tritone.models.files import Checkpoint

h5py = pytest.importorskip("h5py")
HUGE = 1 << 40
GOLDEN = Path(__file__).parents[1] / "conformance" / "golden" / "tensorflow_checkpoints.zip"


def read(folder: Path, framework: str) -> dict[str, Any]:
    return read_foreign(Checkpoint(str(folder), folder), framework)


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
        read(folder, "TensorFlow")


def test_an_h5_that_ends_too_early_is_refused_wherever_it_ends(tmp_path):
    with zipfile.ZipFile(GOLDEN) as archive:
        content = archive.read("albert/tf_model.h5")
    for kept in (0, 7, 100, 2000, len(content) // 2, len(content) - 1):
        (tmp_path / "tf_model.h5").write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"tf_model\.h5 is damaged"):
            read(tmp_path, "TensorFlow")
