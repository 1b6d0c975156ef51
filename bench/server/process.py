"""A server's process, and its memory, open files and CPU seconds as /proc has them."""

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .client import HOST

COMMAND = ("-m", "tritone", "serve")  # of Python
_TICKS = os.sysconf("SC_CLK_TCK")  # a second
_INTERVAL = 0.1  # seconds between two looks at the memory
_GRACE = 30.0  # seconds for the end of the process


class ServerProcess:
    """`tritone serve` on a free port of loopback, as a context manager.

    Args:
        arguments: of the command, but `--port`.

    Attributes:
        port: its port.
        memory: resident bytes by time.monotonic(), from the start on.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, *COMMAND, *arguments, "--host", HOST, "--port", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._folder = Path(f"/proc/{self._process.pid}")
        self.memory: list[tuple[float, int]] = []
        try:
            assert self._process.stdout is not None
            first = self._process.stdout.readline()
            found = re.search(r":(\d+)\b", first)
            if found is None:
                raise RuntimeError(f"the server's first line names no port: {first!r}")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self.port = int(found[1])
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()

    def cpu(self) -> tuple[float, float]:
        """CPU seconds so far: of all threads, and of the main one, which runs the event loop."""
        main = self._folder / "task" / self._folder.name
        return _cpu(self._folder / "stat"), _cpu(main / "stat")

    def resident(self) -> int:
        """Resident bytes."""
        pages = int((self._folder / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """Number of open files, sockets among them."""
        return len(os.listdir(self._folder / "fd"))

    def get(self, path: str) -> str:
        """Body of the answer to GET; OSError for any status but 200."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=10) as response:
            return str(response.read().decode())

    def gauges(self, names: Sequence[str]) -> dict[str, float]:
        """Values of metrics by name, summed over their labels."""
        found = dict.fromkeys(names, 0.0)
        for line in self.get("/metrics").splitlines():
            name = line.partition("{")[0].partition(" ")[0]
            if name in found:
                found[name] += float(line.rpartition(" ")[2])
        return found

    def stop(self) -> int:
        """End the process as an operator does, and return its exit code."""
        self._ended.set()
        self._watching.join()
        self._process.terminate()
        try:
            return self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _watch(self) -> None:
        """Main function of the thread that notes the memory."""
        while not self._ended.wait(_INTERVAL):
            try:
                self.memory.append((time.monotonic(), self.resident()))
            except (OSError, IndexError):
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _cpu(stat: Path) -> float:
    """CPU seconds of a process or thread."""
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
