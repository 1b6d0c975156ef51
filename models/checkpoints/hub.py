"""The Hugging Face Hub: single files of a repository, and what is saved here pushed to it."""

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
_PATIENCE = 10  # seconds that the Hub has to answer whether it is there
_ENVIRONMENT = threading.Lock()


class HubCheckpoint(Checkpoint):
    """The files of a repository on the Hub, each fetched into the cache when first asked for.

    All of them are of one commit: the one that the first file was found in. A download that breaks off is
    resumed where it stopped. Where the Hub does not answer, what the cache has is used.

    Args:
        name: the id of the repository, such as "facebook/s2t-small-librispeech-asr".
        cache_dir: where downloads are kept; huggingface_hub's own cache by default.
        force_download: fetch even what the cache has.
        local_files_only: use the cache and do not ask the Hub.
        proxies: for each scheme ("http", "https", "all") the proxy to go through. huggingface_hub takes them
            from the environment, so they are there for the time of each request.
        resume_download: without effect, downloads always resume where they can.
        revision: branch, tag or commit.
        token: of an account that may read the repository; True for the one that `hf auth login` stored.

    Raises:
        ValueError: options that exclude each other, or a proxy for something else than a scheme.
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
        """The path of a file in the cache, or None where the repository does not have it.

        Raises:
            FileNotFoundError: no such repository or revision.
            PermissionError: a repository that wants a token, or another one.
            ConnectionError: the Hub answered, and then did not any more.
        """
        if filename not in self._found:
            with _proxies(self.proxies):
                self._found[filename] = self._find(filename)
        return self._found[filename]

    def has(self, filename: str) -> bool:
        """Whether the repository has a file, or where the Hub is not asked the cache, without fetching it.

        Raises:
            OSError: as `find`.
        """
        if filename in self._found:
            return self._found[filename] is not None
        with _proxies(self.proxies):
            return self._has(filename)

    def lacks(self, what: str, remedy: str = "it is not a complete checkpoint") -> OSError:
        """The error for a file that the repository, or what the cache has of it, does not have."""
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
        self._ask(filename)
        if self.local_files_only or self._unreachable is not None:
            return None if self.force_download else self._cached(filename)[1]
        try:
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
        except errors.LocalEntryNotFoundError as error:
            raise self._no_answer(error, filename) from None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:
            explained = self._explain(error, filename)
            if explained is None:
                raise
            raise explained from error
        self._commit = path.parent.name  # the cache has a folder a commit
        return path

    def _has(self, filename: str) -> bool:
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

        known, path = self._cached(filename)
        if known or self.local_files_only or self._unreachable is not None:
            return path is not None
        try:
            url = hf_hub_url(self.name, filename, revision=self._commit or self.revision)
            get_hf_file_metadata(url, token=self.token, timeout=_PATIENCE, library_name="tritone")
        except errors.EntryNotFoundError:
            return False
        except Exception as error:
            explained = self._explain(error, filename)
            if explained is None:
                raise
            raise explained from error
        return True

    def _ask(self, filename: str) -> None:
        """Find out whether the Hub answers: huggingface_hub would ask for 23 seconds, for each file."""
        if self._asked or self.local_files_only:
            return
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

        self._asked = True
        try:
            url = hf_hub_url(self.name, filename, revision=self.revision)
            get_hf_file_metadata(url, token=self.token, timeout=_PATIENCE, library_name="tritone")
        except (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.HFValidationError):
            pass  # an answer, which hf_hub_download gets too and knows what to do about
        except (errors.LocalTokenNotFoundError, TypeError, ValueError):
            raise
        except (
            Exception
        ) as error:  # connections fail with requests', httpx's or httpx2's errors, as installed
            self._unreachable = error

    def _cached(self, filename: str) -> tuple[bool, Path | None]:
        """Whether the cache knows about a file, and its path if there is one."""
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

    def _explain(self, error: Exception, filename: str) -> OSError | None:
        """An error of a download in Tritone's words; None for one that needs no explanation."""
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
    """Gives what has `save_pretrained` its `push_to_hub`."""

    # Files of the repository that a push replaces as a whole: those that it does not bring are deleted.
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
        """Save into a repository on the Hub, which is made if need be.

        Args:
            repo_id: its id; without an organization, in the account of the token.
            commit_message, commit_description: of the commit.
            private: whether a repository that is made is private.
            token: of an account that may write; by default the one that `hf auth login` stored.
            revision: branch to commit to, made if need be.
            create_pr: open a pull request rather than commit.
            **options: of `save_pretrained`.

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
    """An error's first line, short: requests writes whole call stacks into one."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return line if len(line) <= 160 else f"{line[:160]}..."


@contextmanager
def _proxies(proxies: Mapping[str, str]) -> Iterator[None]:
    """Have huggingface_hub go through these proxies; its own `proxies` argument is gone since version 1."""
    if not proxies:
        yield
        return
    import huggingface_hub

    # Its connections are made once and keep the proxies of that time, so they are made anew.
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
