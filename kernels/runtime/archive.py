"""Archives of compiled kernels, which spare a machine with the same version of Triton the compilation."""

import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GROUP = (
    "__grp__"  # prefix of the files in which Triton's cache lists a kernel's other files, by absolute path
)


@contextmanager
def fresh_cache() -> Iterator[Path]:
    """Context in which Triton, in this process and those that it starts, uses an empty cache folder."""
    before = os.environ.get("TRITON_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["TRITON_CACHE_DIR"]
            if before is not None:
                os.environ["TRITON_CACHE_DIR"] = before


def pack(cache: Path, archive: Path) -> None:
    """Write a cache folder of Triton to an archive."""
    with tarfile.open(archive, "w:xz") as file:
        file.add(cache, arcname=".")


def unpack(archive: Path, cache: Path) -> int:
    """Add an archive's kernels to a cache folder of Triton, and return their number."""
    with tarfile.open(archive) as file:
        names = file.getnames()
        file.extractall(cache, filter="data")
    groups = [cache / name for name in names if Path(name).name.startswith(_GROUP)]
    for group in groups:
        record = json.loads(group.read_text())
        record["child_paths"] = {name: str(group.parent.resolve() / name) for name in record["child_paths"]}
        group.write_text(json.dumps(record))
    return len(groups)


def triton_cache() -> Path:
    """Cache folder that Triton uses in this process."""
    home = Path(os.environ.get("TRITON_HOME", Path.home()))
    return Path(os.environ.get("TRITON_CACHE_DIR", home / ".triton" / "cache"))
