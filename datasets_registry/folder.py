"""Data sets that are a folder of ``images/`` and ``masks/``, the layout of the paper's released code for own data.

A mask has the stem of its image; the suffixes may differ (png, bmp, tif, tiff, jpg, jpeg, in either case). The stem
is the case id. Masks hold label ids (`promptseg.data.images.decode_labels` says how they are read). An optional table
``subjects.csv`` beside the two folders, with the columns ``case_id`` and ``subject_id``, says which patient a case
belongs to; cases that it leaves out have none.

The folder must be complete and hold nothing else: an image without a mask, a mask without an image (mostly the same
mistake, a misspelt name, seen from the other side), two files with one stem and files of other types are errors,
because each of them could mean that cases are missing unnoticed. Hidden files and the thumbnails of file managers are
passed over.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.errors import ConfigError
from promptseg.specs import DatasetSpec

if TYPE_CHECKING:
    from promptseg.samples import LabelMap
    from promptseg.segmenter import Image

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
SUBJECTS = "subjects.csv"

_PASSED_OVER = ("thumbs.db", "desktop.ini")


def load(spec: DatasetSpec, root: Path | None) -> FolderSamples:
    """Return the samples below ``root``.

    Raises:
        ConfigError: the folder is not there, or is not a data set; the message names every file at fault.
    """
    if root is None or not root.is_dir():
        raise ConfigError(
            f"data set {spec.name}: there is no folder {root}. Put the data there, or change the path in "
            "promptseg.toml."
        )
    images, masks = _by_stem(spec.name, root / "images"), _by_stem(spec.name, root / "masks")
    _check_pairs(spec.name, images, masks)
    return FolderSamples(spec, root, images, masks)


class FolderSamples:
    """The cases of a folder; see `promptseg.samples.Samples`.

    Attributes:
        fingerprint: sha256 over the names and contents of all images and masks, and of ``subjects.csv``.
    """

    def __init__(self, spec: DatasetSpec, root: Path, images: Mapping[str, Path], masks: Mapping[str, Path]) -> None:
        self._ids = sorted(images)
        self._images = images
        self._masks = masks
        self._subjects = _read_subjects(spec.name, root / SUBJECTS, images)
        # A black and white mask means label 1; where other ids are asked for, 255 must stay what it is.
        self._binary_255 = {label for task in spec.tasks for label in task.labels} <= {1}
        files = [*images.values(), *masks.values()]
        self.fingerprint = _fingerprint(root, files + [root / SUBJECTS] * (root / SUBJECTS).is_file())

    def ids(self) -> Sequence[str]:
        """Return the stems of the images, sorted."""
        return self._ids

    def subject(self, case_id: str) -> str | None:
        """Return what ``subjects.csv`` says of the case."""
        return self._subjects.get(case_id)

    def labels(self, case_id: str) -> LabelMap:
        """Return the (H, W) label map. Raises `CaseError`, also where the image has another size."""
        from promptseg.data.images import check_same_size, image_size, read_labels

        labels = read_labels(self._masks[case_id], case_id, binary_255=self._binary_255)
        check_same_size(case_id, image_size(self._images[case_id], case_id), (labels.shape[0], labels.shape[1]))
        return labels

    def image(self, case_id: str) -> Image:
        """Return the (H, W, 3) uint8 RGB image, normalised. Raises `CaseError`."""
        from promptseg.data.images import read_image

        return read_image(self._images[case_id], case_id)


def _by_stem(name: str, folder: Path) -> dict[str, Path]:
    """Return the image files of ``folder`` by stem."""
    if not folder.is_dir():
        raise ConfigError(
            f"data set {name}: {folder.parent} has no folder {folder.name}/. A folder data set holds images/ and "
            "masks/ with files of the same stems."
        )
    found: dict[str, list[Path]] = {}
    for path in _files(name, folder):
        found.setdefault(path.stem, []).append(path)
    double = [" and ".join(path.name for path in paths) for paths in found.values() if len(paths) > 1]
    if double:
        raise ConfigError(
            f"data set {name}: {folder} has files with one stem, which is the case id: {'; '.join(double)}. "
            "Keep one of each."
        )
    return {stem: paths[0] for stem, paths in found.items()}


def _files(name: str, folder: Path) -> list[Path]:
    """Return the files of ``folder``, sorted; what is not an image is an error."""
    paths = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _PASSED_OVER)
    other = [path.name for path in paths if path.suffix.lower() not in SUFFIXES or not path.is_file()]
    if other:
        raise ConfigError(
            f"data set {name}: {folder} holds what is not an image of {', '.join(SUFFIXES)}: {', '.join(other)}. "
            "Convert it or move it away."
        )
    return paths


def _check_pairs(name: str, images: Mapping[str, Path], masks: Mapping[str, Path]) -> None:
    """Raise `ConfigError` naming every file without its partner."""
    if not images and not masks:
        raise ConfigError(f"data set {name}: images/ and masks/ are empty.")
    lonely = [f"image {p.name} has no mask" for p in _missing(images, masks)]
    lonely += [f"mask {p.name} has no image" for p in _missing(masks, images)]
    if lonely:
        raise ConfigError(
            f"data set {name}: {len(lonely)} files have no partner of the same stem: {'; '.join(lonely)}. "
            "Rename, add or remove files until images/ and masks/ have the same stems."
        )


def _missing(here: Mapping[str, Path], there: Mapping[str, Path]) -> Iterator[Path]:
    return (here[stem] for stem in sorted(here.keys() - there.keys()))


def _read_subjects(name: str, path: Path, known: Iterable[str]) -> dict[str, str]:
    """Return case id to subject id, empty without the table."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, restval="")
        if not {"case_id", "subject_id"} <= set(reader.fieldnames or ()):
            raise ConfigError(
                f"data set {name}: {path} must have the columns case_id and subject_id, not {reader.fieldnames}."
            )
        rows = [(row["case_id"], row["subject_id"]) for row in reader]
    subjects = {case_id: subject for case_id, subject in rows if subject}
    wrong = sorted({case_id for case_id, _ in rows} - set(known))
    if wrong or len({case_id for case_id, _ in rows}) < len(rows):
        what = f"names cases that are not in images/: {', '.join(wrong)}" if wrong else "names a case twice"
        raise ConfigError(f"data set {name}: {path} {what}. A case id is the stem of an image file, given once.")
    return subjects


def _fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """Return a sha256 over the sorted names below ``root`` and the contents of ``paths``."""
    whole = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        with path.open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
