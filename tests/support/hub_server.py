"""A server on loopback that speaks the part of the Hub's protocol that downloads use."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub


class Hub:
    """Repositories by id: revisions that lead to commits, which are files by name."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, str] = {}  # of private repositories
        self.gated: set[str] = set()
        self.broken: dict[str, int] = {}  # files whose next download ends after so many bytes
        self.status: int | None = None  # answered to everything
        self.log: list[tuple[str, str, str | None]] = []  # method, path, range
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        number = sum(map(len, self.commits.values()))
        commit = hashlib.sha1(f"{repo} {number}".encode()).hexdigest()
        self.commits.setdefault(repo, {})[commit] = files
        self.branches.setdefault(repo, {})[branch] = commit
        return commit

    def fetched(self, method: str = "GET") -> list[str]:
        return [path.rsplit("/", 1)[-1] for how, path, _ in self.log if how == method]

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
        disconnect()  # or the connection that is open goes on being answered


def disconnect() -> None:
    """Close huggingface_hub's connections, by the name that the version has for it."""
    utils = huggingface_hub.utils
    (utils.reset_sessions if hasattr(utils, "reset_sessions") else huggingface_hub.close_session)()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub, ranged = self.hub, self.headers.get("Range")
        path = urlsplit(unquote(self.path)).path  # a proxy is asked for a whole URL
        match = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path)
        if match is None:  # huggingface_hub asks about more than files
            return self.refuse(404)
        repo, revision, filename = match.groups()
        hub.log.append((self.command, path, ranged))
        if hub.status is not None:
            return self.refuse(hub.status)
        if repo not in hub.commits:
            return self.refuse(401, {"X-Error-Code": "RepoNotFound"})
        token = hub.tokens.get(repo)
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            return self.refuse(401, {"X-Error-Code": "RepoNotFound"})
        if repo in hub.gated:
            return self.refuse(403, {"X-Error-Code": "GatedRepo"})
        commit = hub.branches[repo].get(revision, revision)
        if commit not in hub.commits[repo]:
            return self.refuse(404, {"X-Error-Code": "RevisionNotFound"})
        content = hub.commits[repo][commit].get(filename)
        if content is None:
            return self.refuse(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        start = int(re.fullmatch(r"bytes=(\d+)-", ranged)[1]) if ranged else 0
        self.send_response(206 if ranged else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body and filename in hub.broken:
            self.wfile.write(content[start : start + hub.broken.pop(filename)])
            self.close_connection = True
        elif body:
            self.wfile.write(content[start:])

    def refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass
