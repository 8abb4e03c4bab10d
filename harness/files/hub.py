"""The Hugging Face Hub: the only module that imports huggingface_hub, and only when a file must be downloaded.

Files go to the Hub's ordinary cache (``HF_HOME``), so that other programs share them. Whether a file is stored
already is answered from the layout of that cache, ``<kind>s--<org>--<name>/{refs,snapshots,blobs}``, without an import.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from promptseg.errors import ConfigError, IntegrityError, RegistryError, UnavailableError, remedy_for
from promptseg.files.atomic import read_json
from promptseg.files.cache import cache_dir, check_sha256, disk_space, git_sha1_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SHA1 = re.compile(r"[0-9a-f]{40}")  # of a commit, or of a small file
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RESET = re.compile(r"\bt=(\d+)")  # seconds in the header RateLimit, as in "api";r=0;t=55
_PROBE_SECONDS = 5.0
_OVERTAKEN = (409, 412)  # HTTP status if somebody else committed first
_COMMITS = 5  # attempts, as others may write to the repository at the same time

_failed: dict[Repo, _Refusal] = {}


@dataclass(frozen=True)
class Repo:
    """A repository on the Hub, and the model or data set that needs it.

    Attributes:
        kind: of the repository.
        id: ``org/name``.
        name: registry name of the model or data set, for the messages.
        gated: whether its owner is known to ask for acceptance of terms.
    """

    kind: Literal["model", "dataset"]
    id: str
    name: str
    gated: bool = False

    @property
    def page(self) -> str:
        """Address of its page, where terms are accepted."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.id}"


class _Refusal(NamedTuple):
    """Why files could not be had: a whole message; the reason and the remedy for NAME, in the same words for many."""

    message: str
    why: str
    remedy: str

    def error(self, repo: Repo) -> UnavailableError:
        return UnavailableError(self.message, name=repo.name, why=self.why, remedy=self.remedy)


@dataclass(frozen=True)
class Contents:
    """A commit of a repository, 40 hex digits, and the paths of the files that the Hub says are in it."""

    commit: str
    paths: tuple[str, ...]


def cache_root() -> Path:
    """Return the Hub's cache folder, as huggingface_hub itself chooses it from the environment."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(variable):
            return Path(os.path.expandvars(chosen)).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{base}/huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def is_offline() -> bool:
    """Whether the user forbade the network: ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``."""
    values = (os.environ.get(variable, "") for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.upper() in {"1", "ON", "YES", "TRUE"} for value in values)


def snapshot_folder(repo: Repo, revision: str) -> Path:
    """Return the cache's folder for the files of a commit; it need not exist."""
    return _folder(repo) / "snapshots" / revision


def cached_main(repo: Repo) -> str | None:
    """Return the commit that the cache calls ``main``, None if it names none."""
    try:
        commit = (_folder(repo) / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if _SHA1.fullmatch(commit) else None


def _folder(repo: Repo) -> Path:
    return cache_root() / f"{repo.kind}s--{repo.id.replace('/', '--')}"


def check_promise(path: Path, *, owner: str, remedy: str) -> None:
    """Raise `IntegrityError` if a file of the Hub's cache is not the one that the Hub stated.

    The file is a link to a blob named after the Hub's ETag: the sha256 of a large file, git's sha1 of a small one; the
    client itself compares only sizes. A file that is no link (some systems have none) cannot be checked.
    """
    try:
        promise = path.readlink().name  # one link only: the blob may itself be a link, to another name
    except OSError:
        return
    if _SHA256.fullmatch(promise):
        check_sha256(path, promise, owner=owner, remedy=remedy)
    elif _SHA1.fullmatch(promise) and (sha1 := git_sha1_of(path)) != promise:
        raise IntegrityError(
            f"{owner}: {path} is not the file that the Hub stated: expected git sha1 {promise}, found {sha1} "
            f"({path.stat().st_size} bytes). {remedy}"
        )


def resolve(repo: Repo, revision: str | None) -> Contents:
    """Ask the Hub for a repository and return its contents at a revision (at ``main`` for None).

    One request with a short timeout and no retries: downloads retry for half a minute, and a machine without a network
    should not have to wait for that.
    """
    with _explained(repo, revision):
        from huggingface_hub import HfApi

        hub = HfApi(endpoint=_endpoint())
        ask = hub.model_info if repo.kind == "model" else hub.dataset_info
        info = ask(repo.id, revision=revision, timeout=_timeout("HF_HUB_ETAG_TIMEOUT"))
    if info.sha is None or not _SHA1.fullmatch(info.sha):
        raise UnavailableError(f"{repo.name}: the Hub named no commit for {repo.id} (it said {info.sha!r}).")
    return Contents(info.sha, tuple(file.rfilename for file in info.siblings or ()))


def download_file(repo: Repo, revision: str, path: str) -> Path:
    """Download one file of a commit into the Hub's cache and return its path."""
    with _explained(repo, revision):
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(
                repo.id,
                path,
                repo_type=repo.kind,
                revision=revision,
                cache_dir=cache_root(),
                endpoint=_endpoint(),
                etag_timeout=_timeout("HF_HUB_ETAG_TIMEOUT"),
            )
        )


def download_snapshot(repo: Repo, revision: str, patterns: Sequence[str]) -> Path:
    """Download the files of a commit that match any of ``patterns`` (none: all files) and return their folder.

    If the Hub stops answering before it has listed the files, the client returns those of an earlier download.
    """
    with _explained(repo, revision):
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                repo.id,
                repo_type=repo.kind,
                revision=revision,
                cache_dir=cache_root(),
                endpoint=_endpoint(),
                etag_timeout=_timeout("HF_HUB_ETAG_TIMEOUT"),
                allow_patterns=list(patterns) or None,
            )
        )


def cached_snapshot(repo: Repo, revision: str, patterns: Sequence[str]) -> Path | None:
    """Return the folder of a commit in the cache; None if it is missing or known to be incomplete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repo.id,
            repo_type=repo.kind,
            revision=revision,
            cache_dir=cache_root(),
            allow_patterns=list(patterns) or None,
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder)


def upload(repo: Repo, files: Mapping[str, Path | bytes], message: str) -> str:
    """Add files (path in the repository to a local file or its content) as one commit and return it, 40 hex digits.

    The repository is created if it does not exist. The commit names its parent, so that two writers do not undo each
    other's work: the one that is refused tries again on top of the other's commit.

    Raises:
        ConfigError: the name is not one that a repository on the Hub can have.
        UnavailableError: the Hub refuses, or cannot be reached.
    """
    if is_offline():
        raise UnavailableError(f"{repo.name} cannot be uploaded while HF_HUB_OFFLINE is set.")
    from huggingface_hub import HfApi, errors

    api = HfApi(endpoint=_endpoint())
    try:
        api.create_repo(repo.id, repo_type=repo.kind, exist_ok=True)
        return _commit(api, repo, files, message)
    except errors.HFValidationError as error:
        raise ConfigError(f"{repo.id!r} is not the name of a repository on the Hub, ORG/REPO: {error}") from error
    except (_http_error(), OSError, RuntimeError) as error:  # RuntimeError: raised for a file
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        unanswered = isinstance(cause, _http_error()) and not isinstance(cause, errors.HfHubHTTPError)
        advice = "Log in with `hf auth login`, or set HF_TOKEN, to a token that may write there."
        if unanswered:
            advice = "Try again where the Hub can be reached."
        elif isinstance(cause, errors.HfHubHTTPError) and cause.response.status_code in _OVERTAKEN:
            advice = "Others write to it at the same time: try again."
        raise UnavailableError(
            f"{repo.name} could not be uploaded to {repo.page} ({_first_line(cause, 0)}). {advice}"
        ) from error


def _commit(api: HfApi, repo: Repo, files: Mapping[str, Path | bytes], message: str) -> str:
    """Commit on top of the newest commit; try again if somebody else was faster (HTTP 409 or 412)."""
    from huggingface_hub import CommitOperationAdd, errors

    for attempt in itertools.count(1):
        parent = api.repo_info(repo.id, repo_type=repo.kind).sha
        added = [CommitOperationAdd(path, content) for path, content in files.items()]  # used up by an attempt
        try:
            made = api.create_commit(repo.id, added, repo_type=repo.kind, commit_message=message, parent_commit=parent)
        except errors.HfHubHTTPError as error:
            if error.response.status_code not in _OVERTAKEN or attempt == _COMMITS:
                raise
            time.sleep(2**attempt * random.uniform(0.1, 0.5))  # noqa: S311 - jitter between two writers, no secret
        else:
            return str(made.oid)
    raise AssertionError("unreachable")


def forget_failure(repo: Repo) -> None:
    """Make the next call try the network again, even if an earlier one failed in this process."""
    _failed.pop(repo, None)


def _endpoint() -> str | None:
    """Read HF_ENDPOINT now: huggingface_hub reads it once, at its import."""
    return os.environ.get("HF_ENDPOINT") or None


def _timeout(variable: str) -> float:
    """Return the seconds that a user set for huggingface_hub, else a few."""
    try:
        return float(os.environ[variable])
    except (KeyError, ValueError):
        return _PROBE_SECONDS


@contextlib.contextmanager
def _explained(repo: Repo, revision: str | None) -> Iterator[None]:
    """Turn the errors of huggingface_hub into one `UnavailableError`; after one, refuse at once in this process."""
    if is_offline():
        raise _offline(repo, "HF_HUB_OFFLINE is set").error(repo)
    if repo in _failed:
        raise _failed[repo].error(repo)
    from huggingface_hub import errors

    try:
        with disk_space(repo.name):
            yield
    except errors.HFValidationError as error:
        raise RegistryError(f"{repo.name}: {repo.id!r} is not the name of a repository on the Hub: {error}") from error
    except (_http_error(), errors.EntryNotFoundError, OSError, RuntimeError) as error:  # RuntimeError: hf_xet's
        # "not in the cache" is raised for every failed request; its cause is what failed
        hidden = isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__
        _failed[repo] = _explain(repo, revision, hidden or error)
        raise _failed[repo].error(repo) from error


def _http_error() -> type[Exception]:
    """Return the base of all errors of the HTTP client, whichever client this version of huggingface_hub uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")


def _explain(repo: Repo, revision: str | None, error: BaseException) -> _Refusal:
    """Return what went wrong and what to do; the order matters, as some of these errors derive from others."""
    from huggingface_hub import errors

    missing = isinstance(error, errors.RepositoryNotFoundError)
    if isinstance(error, errors.GatedRepoError) or (missing and repo.gated):
        return _gated(repo)
    if missing:
        return _gone(
            repo, f"no {repo.kind} repository {repo.id} that this machine may see: deleted, renamed or private"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        missing_revision = f"the pinned commit {revision}{_record(revision)}" if revision else "a branch main"
        return _gone(repo, f"{repo.id}, but not {missing_revision}")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return _gone(repo, f"{repo.id}, but not every pinned file ({_first_line(error, -1)})")
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(repo, error.response.status_code, error.response.headers, _first_line(error, 0))
    why = "the Hub cannot be reached"
    return _offline(repo, why, f": {type(error).__name__}: {_first_line(error, 0)}")


def _refused(repo: Repo, status: int, headers: Mapping[str, str], reason: str) -> _Refusal:
    """Return what to do about an HTTP error that huggingface_hub has no class for."""
    if status == 429:
        return _limited(repo, headers)
    if status in (401, 403):
        remedy = (
            "Its token may be wrong or expired: log in again with `hf auth login`, or correct or unset HF_TOKEN; then "
            "run `promptseg pull NAME`."
        )
        message = (
            f"{repo.name}: the Hub does not let this machine read {repo.id} ({reason}). {remedy_for(repo.name, remedy)}"
        )
        return _Refusal(message, "the Hub does not let this machine read them", remedy)
    return _offline(repo, "the Hub refused", f": {reason}")


def _limited(repo: Repo, headers: Mapping[str, str]) -> _Refusal:
    reset = _RESET.search(headers.get("RateLimit", ""))
    seconds = reset[1] if reset else headers.get("Retry-After", "")
    remedy = (
        f"Wait {f'{seconds} seconds' if seconds.isdigit() else 'some minutes'}, then run `promptseg pull NAME`; with a "
        "token it may be asked more often: log in with `hf auth login` or set HF_TOKEN."
    )
    message = (
        f"{repo.name}: the Hub limits how often it may be asked, and this machine asked too often for {repo.id} (429 "
        f"Too Many Requests). {remedy_for(repo.name, remedy)}"
    )
    return _Refusal(message, "the Hub limits how often it may be asked, and this machine asked too often", remedy)


def _record(revision: str) -> str:
    """Return a note on our own record of revisions, if it is what pins this one."""
    path = cache_dir() / "revisions.json"
    recorded = revision in read_json(path).values()
    return f", which an earlier run recorded in {path} (remove its line there to take the newest)" if recorded else ""


def _gated(repo: Repo) -> _Refusal:
    then = "log in with `hf auth login` or set HF_TOKEN to a token of that account, then run `promptseg pull NAME`."
    return _Refusal(
        f"{repo.name}: {repo.id} is gated. Accept its terms on {repo.page}, {remedy_for(repo.name, then)}",
        "gated by their owners",
        f"Accept the terms on the page that `promptseg show NAME` names, {then}",
    )


def _gone(repo: Repo, held: str) -> _Refusal:
    then = (
        "if it is private, log in with `hf auth login` or set HF_TOKEN; if you have the files, run `promptseg pull "
        "NAME --from PATH`."
    )
    return _Refusal(
        f"{repo.name}: the Hub has {held}. Look at {repo.page}; {remedy_for(repo.name, then)}",
        "the Hub does not have them at the revision that was asked for",
        f"Look at the page that `promptseg show NAME` names; {then}",
    )


def _offline(repo: Repo, why: str, detail: str = "") -> _Refusal:
    remedy = "With a network run `promptseg pull NAME`; with files from elsewhere `promptseg pull NAME --from PATH`."
    return _Refusal(
        f"{repo.name}: the files of {repo.id} are not on this machine and could not be downloaded ({why}{detail}). "
        f"{remedy_for(repo.name, remedy)}",
        f"could not be downloaded ({why})",
        remedy,
    )


def _first_line(error: BaseException, index: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[index] if lines else type(error).__name__
