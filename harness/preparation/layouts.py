"""Find the files of a tree that belong together, by patterns of their paths; all layouts use this.

A pattern is a regular expression for the end of a path, so any folders may be above. Its named groups are what the
files of one case have in common: an image and a mask belong together if all their groups are equal. Templates such
as ``{kind}_{n:0>3}`` make ids of the groups.

Options that describe files (`find`):

- ``image``: pattern of the images. A tree without any is another layout.
- ``masks``: patterns of the masks, each with the groups of ``image``. Every image needs a file for each pattern.
- ``case``, ``subject``: templates of the ids; without ``subject`` the patient is unknown.
- ``without_mask``: ``"left out"`` if the owners publish images without masks too; else such an image is an error.
- ``series``: true if the images (and masks) are folders of many files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from promptseg.errors import IntegrityError
from promptseg.preparation.tree import Tree
from promptseg.text import listed

Key = tuple[tuple[str, str | None], ...]  # the named groups of a pattern and what they matched, sorted by name

_NUMBERED = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})\.parquet")


@dataclass(frozen=True, kw_only=True)
class MatchedFiles:
    """The files of one case.

    Attributes:
        case_id: made by the template ``case``.
        subject_id: made by the template ``subject``, None without one.
        images: one path, or those of a series, sorted.
        masks: for each pattern its paths, sorted.
    """

    case_id: str
    subject_id: str | None
    images: tuple[str, ...]
    masks: tuple[tuple[str, ...], ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the case."""
        return (*self.images, *(path for paths in self.masks for path in paths))


def grouped(paths: Iterable[str], pattern: str) -> dict[Key, tuple[str, ...]]:
    """Return the paths whose end matches ``pattern``, by its named groups; both are sorted."""
    ends = re.compile(rf"(?:.*/)?{pattern}")
    groups: dict[Key, list[str]] = {}
    for path in sorted(paths):
        if match := ends.fullmatch(path):
            groups.setdefault(tuple(sorted(match.groupdict().items())), []).append(path)
    return {key: tuple(groups[key]) for key in sorted(groups, key=str)}


def find(tree: Tree, options: Mapping[str, Any], partner: str = "a mask") -> list[MatchedFiles]:
    """Return the files of all cases, sorted by id; none if the tree holds no image of that name.

    Args:
        tree: the files.
        options: see above.
        partner: what a message calls the files of ``masks``.

    Raises:
        IntegrityError: an image without a mask, a mask without an image, two files for one, two cases of one id.
    """
    paths = tree.paths()
    images = grouped(paths, options["image"])
    if not images:
        return []
    masks = [grouped(paths, pattern) for pattern in options["masks"]]
    _check_single(tree, images, series=bool(options.get("series")))
    _check_masks(tree, images, masks, partner, left_out=options.get("without_mask") == "left out")
    cases = [
        MatchedFiles(
            case_id=options["case"].format_map(dict(key)),
            subject_id=options["subject"].format_map(dict(key)) if "subject" in options else None,
            images=files,
            masks=tuple(of_pattern[key] for of_pattern in masks),
        )
        for key, files in images.items()
        if all(key in of_pattern for of_pattern in masks)
    ]
    check_unique(tree, [one.case_id for one in cases])
    return sorted(cases, key=lambda one: one.case_id)


def check_unique(tree: Tree, case_ids: Iterable[str]) -> None:
    """Raise `IntegrityError` if two cases have one id."""
    twice = [case_id for case_id, count in Counter(case_ids).items() if count > 1]
    if twice:
        raise IntegrityError(f"{tree.name}: several cases have the id {listed(twice)}. Give one copy of the data set.")


def check_numbered(tree: Tree, paths: Iterable[str]) -> None:
    """Raise `IntegrityError` unless Parquet files numbered ``-00000-of-00003`` are all there."""
    matches = [match for path in paths if (match := _NUMBERED.fullmatch(path))]
    parts = Counter((match["stem"], int(match["count"])) for match in matches)
    for (stem, count), present in parts.items():
        if present != count:
            raise IntegrityError(
                f"{tree.name}: {present} of {count} files {stem}-*-of-{count:05}.parquet are there; download the rest."
            )


def _check_single(tree: Tree, images: Mapping[Key, tuple[str, ...]], *, series: bool) -> None:
    """Raise `IntegrityError` if one image has several files, or one series several folders."""
    for paths in images.values():
        places = sorted({str(PurePosixPath(path).parent) for path in paths}) if series else paths
        if len(places) > 1:
            what = "several series stand for one image" if series else "several files stand for one image"
            raise IntegrityError(f"{tree.name}: {what}: {listed(places)}. Keep the one that the data set asks for.")


def _check_masks(
    tree: Tree,
    images: Mapping[Key, tuple[str, ...]],
    masks: Sequence[Mapping[Key, tuple[str, ...]]],
    partner: str,
    *,
    left_out: bool,
) -> None:
    """Raise `IntegrityError` unless every image has its masks and every mask its image."""
    lonely = [path for of_pattern in masks for key in of_pattern.keys() - images.keys() for path in of_pattern[key]]
    if lonely:
        raise IntegrityError(
            f"{tree.name}: missing image file: {len(lonely)} files have no image: {listed(sorted(lonely))}. The "
            "download is incomplete."
        )
    some = {key for of_pattern in masks for key in of_pattern}
    required = some if left_out and some else images
    bare = [images[key][0] for key in required if not all(key in of_pattern for of_pattern in masks)]
    if bare:
        raise IntegrityError(
            f"{tree.name}: missing label file: {len(bare)} of {len(images)} images lack {partner}: "
            f"{listed(sorted(bare))}. The download is incomplete, or an archive with masks is missing."
        )
