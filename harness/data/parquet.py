"""Read samples from rows of Parquet files with a column of images and a column of masks.

`datasets` converts the files once to a memory-mapped copy of about the same size under ``<cache>/arrow``, from which
rows are read in any order and from several threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import CaseError, IntegrityError

if TYPE_CHECKING:
    from promptseg.samples import LabelMap
    from promptseg.segmenter import Image


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns; None if the data set has no such column."""

    image: str = "image"
    mask: str = "mask"
    id: str | None = None
    subject: str | None = None

    def names(self) -> list[str]:
        """Return the columns that must be there."""
        return [name for name in (self.id, self.subject, self.image, self.mask) if name is not None]


class ParquetSamples:
    """Samples in rows of Parquet files, memory-mapped by `datasets`; only the rows asked for are decoded.

    Args:
        name: registry name, for the messages.
        rows: a `datasets.Dataset` whose image columns are not decoded.
        columns: names of its columns.
        fingerprint: see `promptseg.samples.Samples`.
        binary_255: see `promptseg.data.images.decode_labels`.
    """

    def __init__(self, name: str, rows: Any, columns: Columns, fingerprint: str, *, binary_255: bool = True) -> None:
        self.fingerprint = fingerprint
        self._binary_255 = binary_255
        self._rows = rows
        self._columns = columns
        self._index = _index(name, column_of(rows, columns.id))
        self._subjects = column_of(rows, columns.subject)

    def ids(self) -> Sequence[str]:
        """Return all case ids, sorted."""
        return sorted(self._index)

    def subject(self, case_id: str) -> str | None:
        """Return the patient, None if the data set names none."""
        subject = self._subjects[self._row(case_id)] if self._columns.subject else None
        return None if subject is None else str(subject)

    def labels(self, case_id: str) -> LabelMap:
        """Return the (H, W) label map."""
        from promptseg.data.images import decode_labels

        column = self._columns.mask
        return decode_labels(self._bytes(case_id, column), case_id, column, binary_255=self._binary_255)

    def image(self, case_id: str) -> Image:
        """Return the (H, W, 3) uint8 RGB image."""
        from promptseg.data.images import decode_image

        return decode_image(self._bytes(case_id, self._columns.image), case_id, self._columns.image)

    def _row(self, case_id: str) -> int:
        if case_id not in self._index:
            raise CaseError(case_id, f"the data set has no such case; its {len(self._index)} ids are its rows' ids.")
        return self._index[case_id]

    def _bytes(self, case_id: str, column: str) -> bytes:
        """Return the bytes of an image file: plain, or in the struct of the Hub's Image columns."""
        value = self._rows[self._row(case_id)][column]
        held = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(held, bytes) and held:
            return held
        raise CaseError(case_id, f"column {column!r} holds {type(held).__name__}, not image bytes; download it again.")


def open_rows(name: str, files: Sequence[Path], wanted: Sequence[str], columns: Columns) -> Any:
    """Return a `datasets.Dataset` of the wanted columns, image columns as they are stored.

    Raises:
        IntegrityError: a file cannot be read.
    """
    import datasets
    from pyarrow import ArrowException

    from promptseg.files.cache import cache_dir, disk_space

    copies = cache_dir() / "arrow"
    try:
        with disk_space(name), _quiet(datasets):
            rows = datasets.Dataset.from_parquet(
                [str(file) for file in files], columns=list(dict.fromkeys(wanted)), cache_dir=str(copies)
            )
    except (ArrowException, OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise IntegrityError(
            f"{name}: the Parquet files in {files[0].parent}, or the copy of them in {copies}, cannot be read "
            f"({error.__cause__ or error}). Remove {copies}: copies are made again. If that does not help, remove the "
            f"damaged file and run `promptseg pull {name}`."
        ) from error
    for column in (columns.image, columns.mask):
        if isinstance(rows.features[column], datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep `datasets` from drawing bars into logs and across those of promptseg."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def column_of(rows: Any, column: str | None) -> list[Any]:
    """Return all values of a column, the row numbers for None."""
    return list(range(len(rows))) if column is None else list(rows[column][:])


def _index(name: str, ids: Sequence[Any]) -> dict[str, int]:
    """Return case id to row. Numbers are zero-padded, so that their order as text is their order as numbers."""
    width = max((len(str(value)) for value in ids if isinstance(value, int)), default=0)
    texts = [str(value).zfill(width) if isinstance(value, int) else str(value) for value in ids]
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice:
        raise IntegrityError(f"{name}: {len(twice)} ids occur more than once, for example {twice[:3]}; ids name cases.")
    return {text: row for row, text in enumerate(texts)}
