"""Store the finished parts of a preparation, and write the prepared form from them.

A part is one or a few consecutive units, the same ones in every run: a Parquet file that appears whole or not at all,
named after the identity of the files it was made from. So the run after a kill, or after a file was mended, does only
what is missing. The prepared form is written from the parts in their order, so that its bytes do not depend on which
run, or which thread, made them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.data import prepared
from promptseg.errors import IntegrityError
from promptseg.files.cache import sha256_of
from promptseg.preparation.rows import PreparedRow, schema

if TYPE_CHECKING:
    import pyarrow as pa

_SHARD_BYTES = 128 << 20  # preparing from a copy holds several files in memory
_MOST_PARTS = 2000


@dataclass(frozen=True, kw_only=True)
class Done:
    """The outcome of a unit: read, or not readable.

    Attributes:
        name: of the unit.
        digest: of the contents of its files.
        problem: why it could not be read; empty if it was.
    """

    name: str
    digest: str
    problem: str = ""


def part_size(n_units: int) -> int:
    """Return the number of units in a part: one, or as many as it takes to have at most 2000 parts."""
    return -(-n_units // _MOST_PARTS)


def part_path(folder: Path, index: int, identities: Sequence[str]) -> Path:
    """Return the path of a part; it changes with the files and their versions."""
    digest = hashlib.sha256("\n".join(identities).encode()).hexdigest()
    return folder / f"{index:05}-{digest[:24]}.parquet"


def write_part(path: Path, done: Sequence[Done], rows: Sequence[PreparedRow]) -> None:
    """Store a part."""
    import pyarrow as pa
    from pyarrow import parquet

    part_schema = schema({"units": [[unit.name, unit.digest, unit.problem] for unit in done]})
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(list(rows), schema=part_schema), temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_done(path: Path) -> list[Done] | None:
    """Return the units of a part; None if there is no such part, or not a whole one."""
    from pyarrow import ArrowException, parquet

    try:
        metadata = parquet.read_schema(path).metadata
        units = json.loads(metadata[b"promptseg"])["units"]
    except (OSError, ArrowException, KeyError, TypeError, ValueError):
        return None
    return [Done(name=name, digest=digest, problem=problem) for name, digest, problem in units]


def publish(
    target: Path, parts: Sequence[Path], *, name: str, recipe: str, layout: str, revision: str | None
) -> prepared.Record:
    """Write the prepared form from all parts, and replace ``target`` with it at once.

    Raises:
        IntegrityError: two rows have one case id, or there is no row at all.
    """
    done = [unit for part in parts for unit in read_done(part) or ()]
    fingerprint = _digest([recipe, *sorted(unit.digest for unit in done)])
    fresh = target.with_name(f"{target.name}.new-{uuid.uuid4().hex}")
    try:
        rows = _Rows(name)
        paths = _write_shards(fresh, rows, parts, {"name": name, "recipe": recipe, "fingerprint": fingerprint})
        failed = {unit.name: unit.problem for unit in done if unit.problem}
        _check_some(name, rows, failed)
        record = prepared.Record(
            name=name,
            recipe=recipe,
            layout=layout,
            fingerprint=fingerprint,
            content=_digest([*rows.lines(), *sorted(failed)]),
            revision=revision,
            n_cases=len(rows.seen),
            files={str(path.relative_to(fresh)): _facts(path) for path in paths},
            failed=failed,
        )
        prepared.write_record(fresh, record)
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return record


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _facts(path: Path) -> Mapping[str, Any]:
    return {"sha256": sha256_of(path), "size": path.stat().st_size}


def _check_some(name: str, rows: _Rows, failed: Mapping[str, str]) -> None:
    if rows.seen:
        return
    first = next(iter(failed.items()), None)
    why = f"{len(failed)} could not be read, first {first[0]}: {first[1]}" if first else "no mask holds an object"
    raise IntegrityError(f"{name}: there is nothing to write: {why}")


class _Rows:
    """The rows of all parts in order, and the case ids seen so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.seen: dict[str, str] = {}

    def tables(self, parts: Sequence[Path]) -> Iterator[pa.Table]:
        """Yield the rows of each part that has any."""
        from pyarrow import parquet

        for part in parts:
            table = parquet.read_table(part)
            columns = (table[column].to_pylist() for column in ("case_id", "subject_id", "sha256"))
            for case_id, subject, sha256 in zip(*columns, strict=True):
                if case_id in self.seen:
                    raise IntegrityError(f"{self._name}: two images have the case id {case_id!r}; ids name cases.")
                self.seen[case_id] = f"{subject}\0{sha256}"
            if table.num_rows:
                yield table

    def lines(self) -> list[str]:
        """Return a line for each case, sorted."""
        return [f"{case_id}\0{what}" for case_id, what in sorted(self.seen.items())]


def _write_shards(folder: Path, rows: _Rows, parts: Sequence[Path], metadata: dict[str, str]) -> list[Path]:
    """Write the rows to files of some 128 MiB each, named as `datasets` expects them."""
    from pyarrow import parquet

    data = folder / "data"
    data.mkdir(parents=True)
    shards: list[Path] = []
    writer, columns = None, schema(metadata)
    try:
        for table in rows.tables(parts):
            if writer is None or shards[-1].stat().st_size > _SHARD_BYTES:
                if writer is not None:
                    writer.close()
                shards.append(data / f"{len(shards)}.part")
                writer = parquet.ParquetWriter(shards[-1], columns)
            writer.write_table(table.cast(columns))
    finally:
        if writer is not None:
            writer.close()
    named = [data / f"test-{index:05}-of-{len(shards):05}.parquet" for index in range(len(shards))]
    return [shard.replace(path) for shard, path in zip(shards, named, strict=True)]


def _swap(fresh: Path, target: Path) -> None:
    old = target.with_name(f"{target.name}.old-{uuid.uuid4().hex}")
    if target.exists():
        target.replace(old)
    fresh.replace(target)
    shutil.rmtree(old, ignore_errors=True)
