"""Downloads of checkpoint files from the Hugging Face Hub, and uploads of folders to it."""

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from .files import Checkpoint

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 10  # seconds for the first answer of the Hub
_ENVIRONMENT = threading.Lock()


class HubCheckpoint(Checkpoint):
    """Checkpoint in a repository on the Hub, each file of which is fetched into the cache on first use.

    All files are of one commit, that of the first file found. A broken download is resumed where it stopped.
    Where the Hub does not answer, the cache is used.

    Args:
        name: id of the repository, such as "facebook/s2t-small-librispeech-asr".
        cache_dir: folder of downloads; huggingface_hub's own cache by default.
        force_download: fetch files that the cache has, too.
        local_files_only: use the cache alone.
        proxies: proxy by scheme ("http", "https", "all"). huggingface_hub reads them from the environment,
            where they are set during each request.
        resume_download: without effect, downloads always resume where possible.
        revision: branch, tag or commit.
        token: token of an account that may read the repository; True for that stored by `hf auth login`.

    Raises:
        ValueError: options that exclude each other, or an unknown scheme in `proxies`.
    """

    def __init__(
        self,
        name: str,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        proxies: Mapping[str, str] | None = None,
        resume_download: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> None:
        super().__init__(name)
        if force_download and local_files_only:
            raise ValueError("force_download=True and local_files_only=True exclude each other; give one")
        if unknown := sorted(set(proxies or ()) - {"http", "https", "all"}):
            raise ValueError(f"proxies has a proxy for {unknown[0]!r}; give them for http, https or all")
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser().resolve()
        self.force_download = force_download
        self.local_files_only = local_files_only
        self.proxies = dict(proxies or {})
        self.revision = revision or "main"
        self.token = token
        self._commit = self.revision if _COMMIT.fullmatch(self.revision) else None
        self._asked = False
        self._unreachable: Exception | None = None
        self._found: dict[str, Path | None] = {}

    def find(self, filename: str) -> Path | None:
        """Path of a file in the cache, fetched if needed; None where the repository does not have it.

        Raises:
            FileNotFoundError: no such repository or revision.
            PermissionError: the repository needs a token, or another one.
            ConnectionError: the Hub answered at first, and then failed.
        """
        if filename not in self._found:
            with _proxies(self.proxies):
                self._found[filename] = self._find(filename)
        return self._found[filename]

    def has(self, filename: str) -> bool:
        """True where the repository (or the cache, without the Hub) has a file; errors as in `find`."""
        if filename in self._found:
            return self._found[filename] is not None
        with _proxies(self.proxies):
            return self._has(filename)

    def lacks(self, what: str, remedy: str = "it is not a complete checkpoint") -> OSError:
        """Error to raise for a file that the repository, or the cache, does not have."""
        if self.local_files_only:
            return FileNotFoundError(
                f"the cache has no {what} of {self.name!r} ({self.revision}), and local_files_only is set; "
                "load it once without"
            )
        if self._unreachable is not None:
            return self._no_answer(self._unreachable, what)
        return super().lacks(what, remedy)

    def _find(self, filename: str) -> Path | None:
        from huggingface_hub import errors, hf_hub_download

        if self._commit is not None and not self.force_download:
            known, path = self._cached(filename)
            if known:
                return path
        self._check_connection(filename)
        if self.local_files_only or self._unreachable is not None:
            return None if self.force_download else self._cached(filename)[1]
        try:
            with self._explained_errors(filename):
                path = Path(
                    hf_hub_download(
                        self.name,
                        filename,
                        revision=self._commit or self.revision,
                        cache_dir=self.cache_dir,
                        force_download=self.force_download,
                        token=self.token,
                        library_name="tritone",
                    )
                )
        except errors.EntryNotFoundError:
            return None
        self._commit = path.parent.name  # the cache has a folder a commit
        return path

    def _has(self, filename: str) -> bool:
        from huggingface_hub import errors

        known, path = self._cached(filename)
        if known or self.local_files_only or self._unreachable is not None:
            return path is not None
        try:
            with self._explained_errors(filename):
                self._request_metadata(filename, self._commit or self.revision)
        except errors.EntryNotFoundError:
            return False
        return True

    def _request_metadata(self, filename: str, revision: str) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.name, filename, revision=revision)
        get_hf_file_metadata(url, token=self.token, timeout=_TIMEOUT, library_name="tritone")

    def _check_connection(self, filename: str) -> None:
        """Test once if the Hub answers, since huggingface_hub would try for 23 seconds, for each file."""
        if self._asked or self.local_files_only:
            return
        from huggingface_hub import errors

        self._asked = True
        try:
            self._request_metadata(filename, self.revision)
        except (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.HFValidationError):
            pass  # an answer, which hf_hub_download gets as well and handles
        except (errors.LocalTokenNotFoundError, TypeError, ValueError):
            raise
        except Exception as error:  # connections fail with errors of requests, httpx or httpx2, as installed
            self._unreachable = error

    def _cached(self, filename: str) -> tuple[bool, Path | None]:
        """Lookup of a file in the cache: (True where its existence is known, its path where it exists)."""
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(
            self.name, filename, cache_dir=self.cache_dir, revision=self._commit or self.revision
        )
        return cached is not None, Path(cached) if isinstance(cached, str) else None

    def _no_answer(self, error: Exception, what: str) -> ConnectionError:
        from huggingface_hub import constants

        return ConnectionError(
            f"cannot get {what} of {self.name!r} from {constants.ENDPOINT}, and the cache does not have it "
            f"({_reason(error)}).\nCheck the connection and HF_ENDPOINT, or give a local folder; "
            f"there is none called {self.name!r}."
        )

    @contextmanager
    def _explained_errors(self, filename: str) -> Iterator[None]:
        """Context that replaces huggingface_hub's errors by ones with a remedy, except for a missing file."""
        from huggingface_hub import errors

        try:
            yield
        except errors.LocalEntryNotFoundError as error:
            raise self._no_answer(error, filename) from None
        except errors.EntryNotFoundError:
            raise
        except Exception as error:
            explained = self._explain(error, filename)
            if explained is None:
                raise
            raise explained from error

    def _explain(self, error: Exception, filename: str) -> OSError | None:
        """Error with a remedy in place of one of huggingface_hub; None for one to be raised as it is."""
        from huggingface_hub import constants, errors

        where = f"{self.name!r} on {constants.ENDPOINT}"
        if isinstance(error, errors.GatedRepoError):
            return PermissionError(
                f"{where} is gated; ask for access on its page, then give token= or run `hf auth login`"
            )
        if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
            return FileNotFoundError(
                f"no repository {where}, and no folder of that name here; check the name, "
                "or give token= if it is private"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return FileNotFoundError(
                f"{where} has no revision {self.revision!r}; give a branch, tag or commit"
            )
        if isinstance(error, errors.HfHubHTTPError):
            status = getattr(error.response, "status_code", None)
            if status in (401, 403):
                return PermissionError(f"{where} refuses access ({status}); give token= or another one")
            return ConnectionError(f"{where} answers {status} for {filename}; try again later")
        if isinstance(error, errors.LocalTokenNotFoundError) or getattr(error, "errno", None) is not None:
            return None
        if isinstance(error, TypeError | ValueError):
            return None
        return ConnectionError(
            f"the download of {filename} of {where} broke off ({_reason(error)}); try again"
        )


class PushToHub:
    """Mixin that adds `push_to_hub`, an upload to the Hub, to classes with `save_pretrained`."""

    # Files of the repository that a push deletes unless it writes them anew.
    replaced_files: ClassVar[tuple[str, ...]] = ()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **options: Any,
    ) -> Any:
        """Upload the files of `save_pretrained` to a repository on the Hub, which is created if needed.

        Args:
            repo_id: id of the repository; without an organization, in the account of the token.
            commit_message, commit_description: message and description of the commit.
            private: make a new repository private.
            token: token of an account that may write; by default the one that `hf auth login` stored.
            revision: branch to commit to, created if needed.
            create_pr: open a pull request instead of committing.
            **options: arguments of `save_pretrained`.

        Returns:
            huggingface_hub's CommitInfo.

        Raises:
            huggingface_hub's errors.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token, library_name="tritone")
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, **options)  # type: ignore[attr-defined]
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None and not revision.startswith("refs/pr/"):
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
                delete_patterns=list(self.replaced_files) or None,
            )


def _reason(error: Exception) -> str:
    """First line of an error, shortened, since those of requests may hold whole call stacks."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return line if len(line) <= 160 else f"{line[:160]}..."


@contextmanager
def _proxies(proxies: Mapping[str, str]) -> Iterator[None]:
    """Context that sets proxies in the environment, since huggingface_hub 1 has no argument for them."""
    if not proxies:
        yield
        return
    import huggingface_hub

    # An open connection keeps its proxies, so connections are closed before and after.
    reconnect = getattr(huggingface_hub, "close_session", lambda: None)
    names = [name for name in os.environ if name.lower().endswith("_proxy")]
    with _ENVIRONMENT:
        before = {name: os.environ.pop(name) for name in names}
        os.environ |= {f"{scheme}_proxy": proxy for scheme, proxy in proxies.items()}
        reconnect()
        try:
            yield
        finally:
            for scheme in proxies:
                os.environ.pop(f"{scheme}_proxy", None)
            os.environ |= before
            reconnect()
