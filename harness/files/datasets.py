"""The files of a data set: found on this machine, downloaded from the Hub, or copied from a folder."""

from __future__ import annotations

import contextlib
import fnmatch
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from promptseg.errors import IntegrityError, RegistryError, UnavailableError
from promptseg.files import hub
from promptseg.files.atomic import read_json, write_json
from promptseg.files.cache import cache_dir, disk_space, scratch, sha256_of
from promptseg.files.revisions import UNPINNED, known_revision, not_where_configured, origin_of, repo_of
from promptseg.specs import DatasetSpec


@dataclass(frozen=True)
class LocalData:
    """The folder of a data set's files.

    Attributes:
        root: the folder, None for a data set that needs no files.
        revision: commit that the files are known to come from, None if it is unknown.
        prepared: source layout and fingerprint, for a prepared data set.
    """

    root: Path | None
    revision: str | None
    prepared: Mapping[str, str] | None = None


def find(spec: DatasetSpec) -> LocalData | None:
    """Return a data set that is known to be complete."""
    origin = origin_of(spec)
    if origin.host == "local":
        folder = Path(origin.repo).expanduser()
        return LocalData(folder, None) if folder.is_dir() else None
    for revision in dict.fromkeys((known_revision(spec), None)):
        root = _listed_root(spec, revision)
        if root is not None:
            return LocalData(root, revision)
    return None


def _listing(spec: DatasetSpec, revision: str | None) -> Path:
    return cache_dir() / "datasets" / spec.name / f"{revision or UNPINNED}.json"


def _listed_root(spec: DatasetSpec, revision: str | None) -> Path | None:
    """Return the folder of a listing whose files are all there with their sizes, for the same repo and patterns."""
    listing = read_json(_listing(spec, revision))
    if (listing.get("repo"), listing.get("patterns")) != (origin_of(spec).repo, list(spec.files)):
        return None
    root = Path(str(listing.get("root")))
    files = listing.get("files")
    if not isinstance(files, dict) or not files:
        return None
    return root if all(_has_size(root / path, size) for path, size in files.items()) else None


def _has_size(path: Path, size: object) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _list_files(spec: DatasetSpec, revision: str | None, root: Path) -> LocalData:
    """Check downloaded files and record that they are complete."""
    files = matching(root, spec.files)
    if not files:
        raise UnavailableError(
            f"{spec.name}: {origin_of(spec).repo} holds no file that matches {', '.join(spec.files) or 'anything'} at "
            f"revision {revision}; the spec's patterns do not fit it."
        )
    _check(spec, root, files)
    listing = {
        "repo": origin_of(spec).repo,
        "patterns": list(spec.files),
        "root": str(root),
        "files": {path: (root / path).stat().st_size for path in files},
    }
    with contextlib.suppress(OSError):  # in a read-only cache, the next run asks the Hub again
        write_json(_listing(spec, revision), listing)
    return LocalData(root, revision)


def _check(spec: DatasetSpec, root: Path, files: Sequence[str]) -> None:
    """Raise `IntegrityError` unless files of the Hub's cache are what the Hub stated."""
    for path in files:
        remedy = f"Remove {(root / path).resolve()} and run `promptseg pull {spec.name}`."
        hub.check_promise(root / path, owner=spec.name, remedy=remedy)


def matching(root: Path, patterns: Sequence[str]) -> list[str]:
    """Return the sorted POSIX paths of the files below ``root`` that match; ``*`` crosses ``/`` as on the Hub."""
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    visible = (path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    return sorted(path for path in visible if _matches(path, patterns))


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def serves(root: Path, patterns: Sequence[str]) -> bool:
    """Return whether ``root`` has a file for every pattern."""
    return all(matching(root, [pattern]) for pattern in patterns or ("*",))


def download(spec: DatasetSpec) -> LocalData:
    """Download the files of a data set, or fall back on those in the Hub's cache."""
    origin = origin_of(spec)
    if origin.host == "local":
        raise not_where_configured(spec.name, origin)
    if origin.host != "hub":
        raise RegistryError(f"{spec.name}: data sets come from the Hub or a local folder, not from {origin.host}.")
    repo = repo_of(spec)
    try:
        contents = hub.resolve(repo, known_revision(spec))
        root = hub.download_snapshot(repo, contents.commit, spec.files)
    except UnavailableError:
        cached = warm(spec)
        if cached is None or cached.root is None:
            raise
        _check(spec, cached.root, matching(cached.root, spec.files))
        return cached
    _check_complete(spec, contents, root)
    return _list_files(spec, contents.commit, root)


def _check_complete(spec: DatasetSpec, contents: hub.Contents, root: Path) -> None:
    missing = [path for path in contents.paths if _matches(path, spec.files) and not (root / path).is_file()]
    if missing:
        raise UnavailableError(
            f"{spec.name}: {len(missing)} files of {origin_of(spec).repo} at {contents.commit} did not arrive, for "
            f"example {missing[0]}: the Hub stopped answering. Run `promptseg pull {spec.name}` again."
        )


def warm(spec: DatasetSpec) -> LocalData | None:
    """Return a data set from the Hub's cache; None if it is not there, or known to be incomplete.

    It is not listed: offline, nothing shows whether files that other programs downloaded are complete.
    """
    repo, revision = repo_of(spec), known_revision(spec)
    if revision is None or not serves(hub.snapshot_folder(repo, revision), spec.files):
        return None
    root = hub.cached_snapshot(repo, revision, spec.files)
    return None if root is None else LocalData(root, revision)


def put(spec: DatasetSpec, source: Path) -> None:
    """Copy a data set's files into our cache, where all of them appear at once."""
    files = _among(spec, source)
    target = cache_dir() / "datasets" / spec.name / UNPINNED
    if target.exists():
        _check_same_files(spec, files, target)
    else:
        with disk_space(spec.name), scratch() as folder:
            stage = folder / spec.name
            for path, file in files.items():
                (stage / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, stage / path)
            target.parent.mkdir(parents=True, exist_ok=True)
            stage.replace(target)
    _list_files(spec, None, target)


def _among(spec: DatasetSpec, source: Path) -> dict[str, Path]:
    """Return path inside the origin to file, for the matching files of a folder, or for the only file itself.

    Files that were downloaded by hand, without the folders of the repository, are recognised by their names.
    """
    base = source if source.is_dir() else source.parent
    names = matching(base, ()) if source.is_dir() else [source.name]
    files = {name: base / name for name in names if _matches(name, spec.files)}
    files = files or {path: base / name for name in names for path in _repaired(name, spec.files)}
    if not files:
        raise UnavailableError(
            f"{spec.name}: no file in {source} matches {', '.join(spec.files) or 'anything'} (found: "
            f"{', '.join(names[:20]) or 'nothing'}). Give a folder that holds the files as {origin_of(spec).repo} has "
            "them."
        )
    return files


def _repaired(name: str, patterns: Sequence[str]) -> list[str]:
    """Return the path that a flat file has in the origin: in the folder of the first pattern that ends like it."""
    for pattern in map(PurePosixPath, patterns):
        if fnmatch.fnmatch(name, pattern.name) and "*" not in str(pattern.parent):
            return [str(pattern.parent / name)]
    return []


def _check_same_files(spec: DatasetSpec, files: dict[str, Path], target: Path) -> None:
    """Raise `IntegrityError` unless ``target`` holds exactly these files."""
    given = {path: sha256_of(file) for path, file in files.items()}
    stored = {path: sha256_of(target / path) for path in matching(target, ())}
    differing = sorted(path for path in given.keys() | stored.keys() if given.get(path) != stored.get(path))
    if differing:
        raise IntegrityError(
            f"{spec.name}: {target} already holds other files than those given: {', '.join(differing[:5])} differ. "
            f"Nothing was replaced. Remove {target}, then pull again."
        )
