"""Brings the files of models and data sets to this machine: pinned, checked, and kept for runs without a network.

Where files may lie, in the order in which they are looked for:

1. our own cache: ``<cache>/models/<origin>/<revision>/<path>`` and ``<cache>/datasets/<name>/unpinned/<path>``, filled
   by npm and by ``promptseg pull NAME --from PATH``. Files whose revision nobody can vouch for lie under ``unpinned``;
2. the Hub's cache (`promptseg.files.hub`).

A data set with layouts is prepared from its files once, into ``<cache>/prepared`` (`promptseg.data.prepared`); that
form is all that an evaluation needs.

``<cache>/revisions.json`` keeps the revision that an unpinned spec was resolved to, so that later runs stay with it;
``<cache>/datasets/<name>/<revision>.json`` lists the files of a data set that was brought completely;
``<cache>/verified.json`` remembers checksums; ``<cache>/tmp`` holds what is on its way. Nothing heavy is imported
before something must be brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.data import prepared
from promptseg.errors import ConfigError, UnavailableError
from promptseg.files import datasets, hub, models, npm
from promptseg.files.cache import cache_dir, sha256_of
from promptseg.files.datasets import LocalData
from promptseg.files.revisions import known_revision, origin_of, record_revision, repo_of
from promptseg.progress import OpenBar, hidden
from promptseg.registry.references import resolve
from promptseg.specs import DatasetSpec, ModelSpec, Origin

if TYPE_CHECKING:
    from promptseg.samples import Samples

__all__ = [
    "LocalData",
    "LocalModel",
    "Pulled",
    "bring_prepared",
    "cache_dir",
    "dataset_is_here",
    "fetch_dataset",
    "fetch_model",
    "model_is_here",
    "open_samples",
    "prepare_dataset",
    "pull_dataset",
    "pull_model",
    "revision_to_pin",
]


@dataclass(frozen=True)
class LocalModel:
    """The verified files of a model.

    Attributes:
        files: role to path.
        revision: commit or version the files are known to come from, None where nobody can vouch for one.
        sha256: role to 64 hex digits.
    """

    files: Mapping[str, Path]
    revision: str | None
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class Pulled:
    """What a pull stored, or found already stored.

    Attributes:
        name: of the model or data set.
        files: path inside the origin to local path.
        sha256: path inside the origin to 64 hex digits; empty for a data set that lies in a user's own folder.
        revision: as in `LocalModel`.
        to_pin: what the spec does not pin yet, a line each, for example ``revision 1f0c... of org/name``.
        failed: what could not be read when a data set was prepared, and why.
    """

    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    to_pin: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(path.stat().st_size for path in self.files.values())


def fetch_model(spec: ModelSpec) -> LocalModel:
    """Return the verified files of a model, bringing them if need be; called when a cell really runs.

    Raises:
        UnavailableError: they are not here and cannot be brought.
        IntegrityError: a file is not the one that was pinned.
    """
    if spec.origin is None or not spec.weights:
        return LocalModel({}, None, {})
    folder, revision = models.find(spec) or models.bring(spec)
    record_revision(spec, revision)
    return LocalModel(
        files={weight.role: folder / weight.path for weight in spec.weights},
        revision=revision,
        sha256={weight.role: models.verify(spec.name, folder, weight) for weight in spec.weights},
    )


def fetch_dataset(spec: DatasetSpec, progress: OpenBar = hidden) -> LocalData:
    """Return the folder that a data set is loaded from, bringing and preparing its files if need be.

    ``progress`` is told of a preparation (`promptseg.progress`). Raises as `fetch_model` does.
    """
    if spec.layouts:
        record = prepared.find(spec) or _prepared_from_origin(spec, progress)
        made_from = {"layout": record.layout, "fingerprint": record.fingerprint}
        return LocalData(prepared.folder(spec), record.revision, made_from)
    if spec.origin is None:
        return LocalData(None, None)
    return _fetch_files(spec)


def open_samples(spec: DatasetSpec, progress: OpenBar = hidden) -> tuple[LocalData, Samples]:
    """Return where a data set lies and its samples, bringing and preparing it if need be."""
    data = fetch_dataset(spec, progress)
    samples: Samples = resolve(spec.load)(spec, data.root)
    return data, samples


def _fetch_files(spec: DatasetSpec) -> LocalData:
    local = datasets.find(spec) or datasets.bring(spec)
    record_revision(spec, local.revision)
    return local


def bring_prepared(spec: DatasetSpec, progress: OpenBar = hidden) -> prepared.Record:
    """Return the record of a prepared data set, bringing and preparing its files if need be.

    What came from the Hub and could not be read is tried again, from files that are here by now. Raises as
    `fetch_model` does.
    """
    record = prepared.find(spec)
    if record is None or (record.failed and record.revision is not None):
        return _prepared_from_origin(spec, progress)
    return record


def _prepared_from_origin(spec: DatasetSpec, progress: OpenBar) -> prepared.Record:
    """Bring the files of a data set from the Hub and prepare them."""
    if spec.origin is None:
        raise UnavailableError(f"{spec.name} is not on this machine. {_by_hand(spec)}")
    try:
        local = _fetch_files(spec)
    except UnavailableError as error:
        raise UnavailableError(f"{error} {_by_hand(spec)}" if spec.original else str(error)) from error
    return prepare_dataset(spec, local.root or Path(), revision=local.revision, progress=progress)


def _by_hand(spec: DatasetSpec) -> str:
    """Say where the owners publish a data set and what to do with what they give."""
    original = spec.original
    if original is None:
        return f"With its files from elsewhere: `promptseg data prepare {spec.name} --from PATH`."
    return (
        f"Its owners publish it on {original.page}: {original.how.rstrip('.')}. "
        f"Then: `promptseg data prepare {spec.name} --from PATH`, with PATH the archive or the folder it is in. "
        f"Licence: {spec.licence}."
    )


def prepare_dataset(
    spec: DatasetSpec, source: Path, *, revision: str | None = None, progress: OpenBar = hidden
) -> prepared.Record:
    """Prepare a data set from files that are here; see `promptseg.preparation.run.prepare`."""
    from promptseg.preparation.run import prepare

    if not source.exists():
        raise UnavailableError(f"{spec.name}: {source} does not exist; give --from a folder or an archive that does.")
    return prepare(spec, source, revision=revision, progress=progress)


def model_is_here(spec: ModelSpec) -> bool:
    """Whether all files of a model are on this machine; looks, but neither reads nor brings them."""
    return spec.origin is None or not spec.weights or models.find(spec) is not None


def dataset_is_here(spec: DatasetSpec) -> bool:
    """Whether a data set is on this machine, prepared or not, as far as that can be told without reading it."""
    if spec.layouts and prepared.find(spec) is not None:
        return True
    if spec.origin is None:
        return not spec.layouts
    if datasets.find(spec) is not None:
        return True
    return spec.origin.host == "hub" and datasets.warm(spec) is not None


def pull_model(spec: ModelSpec, source: Path | None = None) -> Pulled:
    """Bring a model's files to stay, from its origin or from files that are already here.

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
        models.put(spec, _refuse_local(spec.name, spec.origin, source))
    _forget_failure(spec)
    local = fetch_model(spec)
    by_role = {weight.role: weight.path for weight in spec.weights}
    return Pulled(
        name=spec.name,
        files={by_role[role]: path for role, path in local.files.items()},
        sha256={by_role[role]: found for role, found in local.sha256.items()},
        revision=local.revision,
        to_pin=(*revision_to_pin(spec, local.revision), *_weights_to_pin(spec, local)),
    )


def pull_dataset(spec: DatasetSpec, source: Path | None = None, progress: OpenBar = hidden) -> Pulled:
    """Bring a data set's files to stay, from its origin or from a folder (or the only file). Raises as `pull_model`.

    A data set with layouts is prepared at once; what is listed then is its canonical form.
    """
    if spec.layouts:
        return _pulled_prepared(spec, source, progress)
    if spec.origin is None:
        return Pulled(spec.name)
    if source is not None:
        datasets.put(spec, _refuse_local(spec.name, spec.origin, source))
    _forget_failure(spec)
    local = fetch_dataset(spec)
    if spec.origin.host == "local":
        return Pulled(spec.name)  # a user's own folder is read where it lies
    root = local.root or Path()
    files = {path: root / path for path in datasets.matching(root, spec.files)}
    return Pulled(
        name=spec.name,
        files=files,
        sha256={path: sha256_of(file) for path, file in files.items()},
        revision=local.revision,
        to_pin=revision_to_pin(spec, local.revision),
    )


def _pulled_prepared(spec: DatasetSpec, source: Path | None, progress: OpenBar) -> Pulled:
    if source is not None:
        record = prepare_dataset(spec, source, progress=progress)
    else:
        if spec.origin is not None:
            _forget_failure(spec)
        record = bring_prepared(spec, progress)
    return Pulled(
        name=spec.name,
        files={path: prepared.folder(spec) / path for path in record.files},
        sha256={path: str(file["sha256"]) for path, file in record.files.items()},
        revision=record.revision,
        to_pin=revision_to_pin(spec, record.revision),
        failed=record.failed,
    )


def _forget_failure(spec: ModelSpec | DatasetSpec) -> None:
    """Let a pull, which a person asked for, try the network again."""
    if origin_of(spec).host == "npm":
        npm.forget_failure(origin_of(spec).repo, known_revision(spec))
    hub.forget_failure(repo_of(spec))


def _refuse_local(name: str, origin: Origin, source: Path) -> Path:
    """Return ``source`` as an existing path, for an origin that can be filled from it."""
    if origin.host == "local":
        raise ConfigError(
            f"{name} reads {origin.repo} where it lies; there is nothing to pull. To use {source} instead, change "
            "the path in promptseg.toml."
        )
    if not source.exists():
        raise UnavailableError(f"{name}: {source} does not exist; give --from a folder or a file that does.")
    return source


def revision_to_pin(spec: ModelSpec | DatasetSpec, revision: str | None) -> tuple[str, ...]:
    """Return a line that says which revision was brought for a spec that pins none; nothing for any other."""
    origin = spec.origin
    if origin is None or origin.host == "local" or origin.revision is not None or revision is None:
        return ()
    return (f"revision {revision} of {origin.repo}",)


def _weights_to_pin(spec: ModelSpec, local: LocalModel) -> Iterator[str]:
    for weight in spec.weights:
        if weight.sha256 is None:
            yield f"sha256 {local.sha256[weight.role]} of {weight.path}"
