"""Sockets that the server listens on: addresses of a host, or the path of a Unix socket."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OWNER_AND_GROUP = 0o660  # mode of a socket's file: a proxy in the group may connect


@contextmanager
def bound_to_port(host: str, port: int) -> Iterator[tuple[list[socket.socket], str]]:
    """Sockets on all addresses of a host, not listening yet, and the server's address.

    Args:
        host: name or address; "" for all of this machine.
        port: port; 0 for any free one.

    Raises:
        OSError: the host is unknown, or the port is in use or not allowed.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                one = socket.socket(family, kind, protocol)
            except OSError:  # a family that this machine has not
                continue
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((address[0], port, *address[2:]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL or len(sockets) == len(found) == 1:
                    raise
                sockets.pop().close()
                continue
            port = one.getsockname()[1]  # the same for all addresses
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        shown = f"[{host}]" if ":" in host else host or "0.0.0.0"
        yield sockets, f"http://{shown}:{port}"
    finally:
        for one in sockets:
            one.close()


@contextmanager
def bound_to_path(path: Path) -> Iterator[tuple[list[socket.socket], str]]:
    """Unix socket at a path, not listening yet, and its address; its file is removed at the end.

    The file of a server that was killed is replaced. Owner and group may connect.

    Raises:
        OSError: the path is in use by a server, has another file, or cannot be written.
    """
    _remove_stale(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with one:
        before = os.umask(0o777 & ~_OWNER_AND_GROUP)
        try:
            one.bind(os.fspath(path))
        finally:
            os.umask(before)
        made = path.stat()
        try:
            yield [one], f"unix:{path}"
        finally:
            with suppress(OSError):  # removed, or another server's by now
                if os.path.samestat(path.stat(), made):
                    path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove a socket's file that no server listens on. Raises OSError for any other file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is there", os.fspath(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), os.fspath(path))
