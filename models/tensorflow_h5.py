"""Keras' HDF5 files: h5py says what lies where, the tensors are copied out of the mapped file."""

from pathlib import Path
from typing import Any

from torch import Tensor

from .conversion_bytes import MappedFile

_MOST_DEPTH = 32  # of groups in groups; models have about fifteen
_MOST_GROUPS = 100_000


def read_h5(path: Path) -> dict[str, Tensor]:
    """Every tensor of an HDF5 file, by the groups that lead to it with "/" between them.

    Only what Keras writes is read: datasets that lie in the file in one piece. Links to other files, data in
    other files, and compressed data, which may unpack to any size, are refused.

    Args:
        path: exists.

    Raises:
        ImportError: h5py is not installed.
        ValueError: a file that is damaged, or holds what is not read.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError(
            f"{path} needs h5py to be read: pip install 'tritone[tensorflow]', or pip install h5py"
        ) from None

    tensors: dict[str, Tensor] = {}
    groups = 0
    with MappedFile(path) as file:

        def read_group(group: Any, prefix: str, depth: int) -> None:
            nonlocal groups
            groups += 1
            if depth > _MOST_DEPTH or groups > _MOST_GROUPS:
                raise file.damaged(
                    f"its groups are nested over {_MOST_DEPTH} deep, or more than any model has"
                )
            for key in group:
                name = prefix + key
                file.check_name(name, len(tensors))
                link = group.get(key, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise ValueError(f"{path} holds {name!r}, a link and no tensor; links are not followed")
                found = group.get(key)
                if isinstance(found, h5py.Group):
                    read_group(found, f"{name}/", depth + 1)
                elif isinstance(found, h5py.Dataset):
                    tensors[name] = read_dataset(found, name)
                else:
                    raise file.damaged(f"{name!r} is neither a group nor a tensor")

        def read_dataset(found: Any, name: str) -> Tensor:
            dtype, shape = found.dtype, found.shape
            if shape is None or dtype.kind not in "fiub" or (dtype.itemsize > 1 and dtype.str[0] == ">"):
                raise ValueError(
                    f"{path}: {name!r} is no little-endian array of numbers but {str(dtype)[:40]}"
                )
            offset, stored = found.id.get_offset(), found.id.get_storage_size()
            if 0 in shape:
                return file.tensor(name, dtype.name, shape, 0)
            if offset is None or found.is_virtual or found.external:
                raise ValueError(
                    f"{path}: {name!r} does not lie in the file in one piece, not compressed; "
                    "write it again as Keras' save_weights does"
                )
            return file.tensor(name, dtype.name, shape, offset, stored)

        try:
            with h5py.File(path, "r") as content:
                read_group(content, "", 0)
        except (OSError, KeyError, RuntimeError, TypeError, UnicodeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise file.damaged(reason) from None
        except ValueError as error:
            if str(path) in str(error):
                raise
            raise file.damaged(str(error)) from None  # h5py's own
        except MemoryError:
            raise file.damaged("it asks for more memory than there is") from None
    return tensors
