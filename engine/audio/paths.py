"""Messages for paths that cannot be opened: missing files, broken links, addresses, missing rights."""

import errno
import os
import re

_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]+:/|data:)", re.IGNORECASE)  # two letters: C:/ is a Windows drive


def path_problem(name: str, error: OSError | ValueError) -> str:
    """Message for a path that an operation of the operating system refused with this error."""
    if not name:
        return "'': an empty path; name a recording or folder (. is the current folder)"
    shown = repr(name) if name.isspace() else name
    if not isinstance(error, OSError):  # a NUL in the name
        return f"{shown}: not a file name ({error})"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if is_address(name):
            return f"{shown}: addresses are not fetched; download it, and give the path of the file"
        if os.path.islink(name):
            target = os.readlink(name)
            return f"{shown}: a link to {target}, which does not exist; restore that, or remove the link"
        return f"{shown}: no such file or folder; check the path"
    if error.errno == errno.ELOOP:
        return f"{shown}: a link that leads back to itself; remove it"
    if error.errno == errno.ENAMETOOLONG:
        return f"{shown}: a name too long for a file ({len(name)} characters); check the path"
    return f"{shown}: cannot be opened ({error.strerror}); check its permissions and disk"


def is_address(name: str) -> bool:
    """Check whether a name is an address, such as https://host/a.wav, rather than a path."""
    return _ADDRESS.match(name) is not None
