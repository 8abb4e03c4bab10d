"""Get a data set onto this machine: its files downloaded or copied, prepared once, and opened as samples.

A data set with layouts is prepared from its files once, into ``<cache>/prepared`` (`promptseg.data.prepared`); an
evaluation needs nothing but that form. Where the files are stored before that: see `promptseg.files`. Nothing heavy is
imported before a file must be downloaded or prepared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.data import prepared
from promptseg.errors import UnavailableError
from promptseg.files import datasets
from promptseg.files.cache import sha256_of
from promptseg.files.datasets import LocalData
from promptseg.files.pulled import Pulled, forget_failure, source_to_copy
from promptseg.files.revisions import record_revision, revision_to_pin
from promptseg.progress import OpenBar, hidden
from promptseg.registry.references import resolve
from promptseg.specs import DatasetSpec

if TYPE_CHECKING:
    from promptseg.samples import Samples


_FROM_OWNERS = "From the owners: `promptseg show NAME` names the page; then `promptseg data prepare NAME --from PATH`."


def fetch_dataset(spec: DatasetSpec, progress: OpenBar = hidden) -> LocalData:
    """Return the folder that a data set is loaded from, downloading and preparing its files if need be.

    ``progress`` shows a preparation (`promptseg.progress`).

    Raises:
        UnavailableError: the files are neither here nor to be had.
        ConfigError: they are not in the folder that promptseg.toml names.
        IntegrityError: a file is not the one that was pinned.
    """
    if spec.layouts:
        record = prepared.find(spec) or _prepared_from_origin(spec, progress)
        made_from = {"layout": record.layout, "fingerprint": record.fingerprint}
        return LocalData(prepared.folder(spec), record.revision, made_from)
    if spec.origin is None:
        return LocalData(None, None)
    return _fetch_files(spec)


def open_samples(spec: DatasetSpec, progress: OpenBar = hidden) -> tuple[LocalData, Samples]:
    """Return the folder of a data set and its samples, downloading and preparing it if need be."""
    data = fetch_dataset(spec, progress)
    samples: Samples = resolve(spec.load)(spec, data.root)
    return data, samples


def _fetch_files(spec: DatasetSpec) -> LocalData:
    local = datasets.find(spec) or datasets.download(spec)
    record_revision(spec, local.revision)
    return local


def fetch_prepared(spec: DatasetSpec, progress: OpenBar = hidden) -> prepared.Record:
    """Return the record of a prepared data set, downloading and preparing its files if need be.

    Files from the Hub that could not be read are tried again, since they may be whole by now. Raises as
    `fetch_dataset` does.
    """
    record = prepared.find(spec)
    if record is None or (record.failed and record.revision is not None):
        return _prepared_from_origin(spec, progress)
    return record


def _prepared_from_origin(spec: DatasetSpec, progress: OpenBar) -> prepared.Record:
    """Download the files of a data set from the Hub and prepare them."""
    if spec.origin is None:
        raise UnavailableError(
            f"{spec.name} is not on this machine. {_by_hand(spec)}",
            name=spec.name,
            why="published by their owners on pages from which a person downloads them",
            remedy=_FROM_OWNERS,
        )
    try:
        local = _fetch_files(spec)
    except UnavailableError as error:
        if spec.original is None:
            raise
        raise UnavailableError(
            f"{error} {_by_hand(spec)}", name=error.name, why=error.why, remedy=f"{error.remedy} {_FROM_OWNERS}"
        ) from error
    return prepare_dataset(spec, local.root or Path(), revision=local.revision, progress=progress)


def _by_hand(spec: DatasetSpec) -> str:
    """Return where the owners publish a data set, and the command that prepares their files."""
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
    """Prepare a data set from files on this machine; see `promptseg.preparation.run.prepare`."""
    from promptseg.preparation.run import prepare

    if not source.exists():
        raise UnavailableError(f"{spec.name}: {source} does not exist; give --from a folder or an archive that does.")
    return prepare(spec, source, revision=revision, progress=progress)


def dataset_is_here(spec: DatasetSpec) -> bool:
    """Whether a data set is on this machine, prepared or not, judged without reading it."""
    if spec.layouts and prepared.find(spec) is not None:
        return True
    if spec.origin is None:
        return not spec.layouts
    if datasets.find(spec) is not None:
        return True
    return spec.origin.host == "hub" and datasets.warm(spec) is not None


def pull_dataset(spec: DatasetSpec, source: Path | None = None, progress: OpenBar = hidden) -> Pulled:
    """Store a data set's files for good, from its origin or from a folder (or the only file). Raises as `pull_model`.

    A data set with layouts is prepared at once; the files listed are then those of its prepared form.
    """
    if spec.layouts:
        return _pulled_prepared(spec, source, progress)
    if spec.origin is None:
        return Pulled(spec.name)
    if source is not None:
        datasets.put(spec, source_to_copy(spec.name, spec.origin, source))
    forget_failure(spec)
    local = fetch_dataset(spec)
    if spec.origin.host == "local":
        return Pulled(spec.name)  # a user's own folder is read in place
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
            forget_failure(spec)
        record = fetch_prepared(spec, progress)
    return Pulled(
        name=spec.name,
        files={path: prepared.folder(spec) / path for path in record.files},
        sha256={path: str(file["sha256"]) for path, file in record.files.items()},
        revision=record.revision,
        to_pin=revision_to_pin(spec, record.revision),
        failed=record.failed,
    )
