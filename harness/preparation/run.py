"""Prepare a data set: find its units in the files given, read them in parallel, write the prepared form."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from promptseg.data import prepared
from promptseg.errors import CaseError, IntegrityError, PromptsegError, UnavailableError
from promptseg.files.atomic import lock
from promptseg.files.cache import disk_space
from promptseg.preparation import parts
from promptseg.preparation.cases import Unit
from promptseg.preparation.parts import Done
from promptseg.preparation.prepared import layout_of
from promptseg.preparation.rows import PreparedRow, row_of
from promptseg.preparation.tree import Tree, open_tree
from promptseg.progress import OpenBar, hidden
from promptseg.registry.references import resolve
from promptseg.specs import DatasetSpec, Layout
from promptseg.text import listed

_MOST_WORKERS = 4  # each may hold a volume
_SHOWN = 10
Item = TypeVar("Item")


def prepare(
    spec: DatasetSpec, source: Path, *, revision: str | None = None, progress: OpenBar = hidden
) -> prepared.Record:
    """Write the prepared form of a data set into the cache, from its files in ``source``, and return its record.

    A unit that cannot be read is recorded with the reason and does not stop the others. Finished parts are kept: after
    a kill, or after a file was mended, the same call resumes.

    Args:
        spec: a data set with layouts.
        source: a folder or an archive.
        revision: the commit of the Hub that the files are known to come from.
        progress: shows how many units are done (`promptseg.progress`).

    Raises:
        UnavailableError: ``source`` does not exist, an extra is not installed, or the cache cannot be written to.
        IntegrityError: ``source`` does not hold the data set in a known layout, lacks files, holds label ids that the
            spec does not know, or nothing in it can be read. Nothing is written then.
    """
    target = prepared.folder(spec)
    staging = target.with_name(f"{target.name}.parts")
    _make_folder(spec, target.parent)
    with disk_space(spec.name), lock(target.with_name(f".{target.name}.lock")), open_tree(source) as tree:
        _sweep(target)
        seen = _Witness(tree.name, tree)
        layout, units = find_units(spec, seen)
        try:
            paths = _read_all(spec, seen, units, staging, progress)
            record = parts.publish(
                target,
                paths,
                name=spec.name,
                recipe=prepared.recipe(spec),
                layout=layout.name,
                revision=revision,
            )
        except IntegrityError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if not record.failed:
            shutil.rmtree(staging, ignore_errors=True)
    return record


def _make_folder(spec: DatasetSpec, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UnavailableError(
            f"{spec.name}: nothing can be written to {folder} ({error.strerror}). Point PROMPTSEG_CACHE to a folder "
            "that you may write to."
        ) from error


def _sweep(target: Path) -> None:
    """Clean up after a run that was killed between removing the old form and storing the new one."""
    for left in target.parent.glob(f"{target.name}.new-*"):
        shutil.rmtree(left, ignore_errors=True)
    for old in target.parent.glob(f"{target.name}.old-*"):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.replace(target)


# --- what is there ------------------------------------------------------------------------------------------


def find_units(spec: DatasetSpec, tree: Tree) -> tuple[Layout, list[Unit]]:
    """Return the first layout that fits, and its units sorted by name.

    Raises:
        IntegrityError: none does, or two units have one name.
    """
    for layout in (*spec.layouts, layout_of(spec)):
        units: Sequence[Unit] = resolve(layout.read)(tree, layout.options)
        if units:
            _check_names(spec, units)
            return layout, sorted(units, key=lambda unit: unit.name)
    raise IntegrityError(_no_layout(spec, tree))


def _check_names(spec: DatasetSpec, units: Sequence[Unit]) -> None:
    twice = [name for name, count in Counter(unit.name for unit in units).items() if count > 1]
    if twice:
        raise IntegrityError(
            f"{spec.name}: {len(twice)} names occur more than once, for example {twice[0]!r}. Is the data set there "
            "twice, once in an archive and once unpacked? Keep one."
        )


def _no_layout(spec: DatasetSpec, tree: Tree) -> str:
    expected = " or ".join(f"{layout.expects} ({layout.name})" for layout in spec.layouts)
    paths = tree.paths()
    held = listed(paths, _SHOWN)
    above = " If these are files of it, give a folder further up." if paths else ""
    return (
        f"{tree.name} does not hold {spec.name}: expected {expected}; found {held or 'no file'}.{above} "
        f"`promptseg show {spec.name}` says where to get it. Nothing was written."
    )


@dataclass
class _Witness:
    """A tree that records the sha256 of each file that was read from it."""

    name: str
    tree: Tree
    sha256: dict[str, str] = field(default_factory=dict)

    def paths(self) -> Sequence[str]:
        return self.tree.paths()

    def read(self, path: str) -> bytes:
        content = self.tree.read(path)
        self.sha256[path] = hashlib.sha256(content).hexdigest()
        return content

    def identity(self, path: str) -> str:
        return f"{path}\t{self.tree.identity(path)}"

    def digest(self, unit: Unit) -> str:
        """Return a digest of the names and contents of a unit's files, whatever folders they are in."""
        seen = sorted(f"{PurePosixPath(path).name}\t{self.sha256.get(path)}" for path in unit.paths)
        return hashlib.sha256("\n".join([unit.name, *seen]).encode()).hexdigest()


# --- reading ------------------------------------------------------------------------------------------------


def _read_all(spec: DatasetSpec, tree: _Witness, units: list[Unit], staging: Path, progress: OpenBar) -> list[Path]:
    """Make every part that is missing or holds an unreadable unit; return the paths of all parts, in order."""
    size = parts.part_size(len(units))
    chunks = [units[start : start + size] for start in range(0, len(units), size)]
    paths = [
        parts.part_path(staging, index, [tree.identity(path) for unit in chunk for path in unit.paths])
        for index, chunk in enumerate(chunks)
    ]
    _drop_others(staging, paths)
    with progress(f"preparing {spec.name}", len(units)) as advance:

        def make(chunk: list[Unit], path: Path) -> None:
            done = parts.read_done(path)
            if done is None or any(unit.problem for unit in done):
                _make_part(spec, tree, chunk, path)

        for chunk in _in_parallel(make, list(zip(chunks, paths, strict=True))):
            advance(len(chunk))
    return paths


def _drop_others(staging: Path, paths: Sequence[Path]) -> None:
    """Remove parts of other files, and half-written ones of a killed run."""
    for path in set(staging.glob("*")) - set(paths) if staging.is_dir() else ():
        path.unlink()


def _in_parallel(
    make: Callable[[list[Unit], Path], None], work: Sequence[tuple[list[Unit], Path]]
) -> Iterator[list[Unit]]:
    """Yield each chunk when it is made; the first error cancels the others."""
    pool = ThreadPoolExecutor(
        max_workers=min(_MOST_WORKERS, os.cpu_count() or 1), thread_name_prefix="promptseg-prepare"
    )
    try:
        for (chunk, _), future in [(item, pool.submit(make, *item)) for item in work]:
            future.result()
            yield chunk
    finally:
        pool.shutdown(cancel_futures=True)


def _make_part(spec: DatasetSpec, tree: _Witness, chunk: list[Unit], path: Path) -> None:
    read = [_read(spec, tree, unit) for unit in chunk]
    parts.write_part(path, [done for done, _ in read], [row for _, rows in read for row in rows])


def _read(spec: DatasetSpec, tree: _Witness, unit: Unit) -> tuple[Done, list[PreparedRow]]:
    """Read a unit; errors are recorded as its problem, except those that concern the whole data set."""
    try:
        with disk_space(spec.name):  # some readers write scratch files
            rows = [row for item in unit.read() if (row := row_of(item, spec)) is not None]
    except (IntegrityError, UnavailableError):
        raise
    except Exception as error:  # noqa: BLE001 - readers of damaged files raise anything
        return Done(name=unit.name, digest=tree.digest(unit), problem=_in_words(error)), []
    return Done(name=unit.name, digest=tree.digest(unit)), rows


def _in_words(error: Exception) -> str:
    if isinstance(error, CaseError):
        return error.problem
    return str(error) if isinstance(error, PromptsegError) else f"{type(error).__name__}: {error}"
