"""The revision of an origin: the pinned one, else the recorded one, else the one that the Hub's cache calls main."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from promptseg.errors import ConfigError, RegistryError
from promptseg.files import hub
from promptseg.files.atomic import read_json, update_json
from promptseg.files.cache import cache_dir
from promptseg.specs import DatasetSpec, ModelSpec, Origin
from promptseg.text import did_you_mean, listed, near

_SHOWN = 10  # names in a message
UNPINNED = "unpinned"  # folder for files of unknown revision
_log = logging.getLogger("promptseg.files")


def repo_of(spec: ModelSpec | DatasetSpec) -> hub.Repo:
    """Return the Hub repository of a spec whose origin is on the Hub."""
    kind: Literal["model", "dataset"] = "model" if isinstance(spec, ModelSpec) else "dataset"
    origin = origin_of(spec)
    return hub.Repo(kind=kind, id=origin.repo, name=spec.name, gated=origin.gated)


def origin_of(spec: ModelSpec | DatasetSpec) -> Origin:
    """Return the origin of a spec that has files."""
    if spec.origin is None:
        raise RegistryError(f"{spec.name} has no origin, so no files.")
    return spec.origin


def _revision_key(spec: ModelSpec | DatasetSpec) -> str:
    kind = "model" if isinstance(spec, ModelSpec) else "dataset"
    return f"{origin_of(spec).host}:{kind}:{origin_of(spec).repo}"


def known_revision(spec: ModelSpec | DatasetSpec) -> str | None:
    """Return the pinned revision, else the recorded one, else the one that the Hub's cache calls main; no network."""
    origin = origin_of(spec)
    recorded = read_json(cache_dir() / "revisions.json").get(_revision_key(spec))
    if origin.revision is not None or origin.host == "local":
        return origin.revision
    if isinstance(recorded, str):
        return recorded
    return hub.cached_main(repo_of(spec)) if origin.host == "hub" else None


def record_revision(spec: ModelSpec | DatasetSpec, revision: str | None) -> None:
    """Record the revision that an unpinned spec got, so that later runs, offline ones too, keep it."""
    key, path = _revision_key(spec), cache_dir() / "revisions.json"
    if revision is None or origin_of(spec).revision is not None or read_json(path).get(key) == revision:
        return
    _log.warning("%s: pin this revision: %s of %s", spec.name, revision, origin_of(spec).repo)
    try:
        update_json(path, lambda data: data.__setitem__(key, revision))
    except OSError as error:
        _log.warning("%s: the revision could not be recorded in %s: %s", spec.name, path, error)


def not_where_configured(name: str, origin: Origin, paths: Sequence[str] = ()) -> ConfigError:
    """Return the error for local files (none: the whole folder) that are not in the folder of their origin.

    Somebody wrote the path down and meant files that are there, so this is a mistake, unlike files that have not been
    downloaded yet.
    """
    folder = Path(origin.repo).expanduser()
    missing = [path for path in (folder / path for path in paths) if not path.is_file()] or [folder]
    found = _not_there(missing[0], "file" if paths else "folder")
    file = origin.named_in.partition(" [")[0] or "what names it"
    return ConfigError(f"{origin.named_in or name}: {found} Correct the path in {file}, or put the files there.")


def _not_there(path: Path, kind: str) -> str:
    """Return that there is no such file or folder, and what there is instead of it or beside it."""
    if path.exists():
        return f"{path} is not a {kind}."
    at = next(folder for folder in path.parents if folder.is_dir())
    names = sorted(entry.name for entry in at.iterdir() if not entry.name.startswith("."))
    hint = did_you_mean(near(path.relative_to(at).parts[0], names))
    return f"{path} does not exist; {at} holds {listed(names, _SHOWN) or 'nothing'}.{hint}"


def revision_to_pin(spec: ModelSpec | DatasetSpec, revision: str | None) -> tuple[str, ...]:
    """Return a line with the revision that an unpinned spec got; nothing for a pinned one."""
    origin = spec.origin
    if origin is None or origin.host == "local" or origin.revision is not None or revision is None:
        return ()
    return (f"revision {revision} of {origin.repo}",)
