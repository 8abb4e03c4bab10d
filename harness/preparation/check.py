"""Look at every case of a data set, and compare it with the spec and with the published counts."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from promptseg.data.images import check_same_size
from promptseg.errors import CaseError
from promptseg.progress import OpenBar, hidden
from promptseg.samples import Samples, target_of
from promptseg.specs import DatasetSpec, TaskSpec

Verdict = Literal["ok", "differs", "wrong", ""]
_SHOWN = 3


class Finding(NamedTuple):
    """A line of the table: what was counted, what was found, what the spec or the study says, and the verdict.

    ``differs`` is a count that is not the published one, for example of another edition; ``wrong`` is a fault that an
    evaluation would fail on; the verdict is empty if there is nothing to compare with.
    """

    what: str
    found: str
    expected: str
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Look:
    """The properties of one case.

    Attributes:
        size: (height, width).
        labels: ids above 0 in its label map.
        tasks: names of the tasks with an object in it.
        pixels: digest of the image.
        subject: patient, None if unknown.
        problem: why it cannot be used; empty for a good case.
    """

    size: tuple[int, int] = (0, 0)
    labels: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    pixels: str = ""
    subject: str | None = None
    problem: str = ""


def look_at_all(spec: DatasetSpec, samples: Samples, progress: OpenBar = hidden) -> dict[str, Look]:
    """Read every image and mask; return the properties of each case by its id."""
    ids = samples.ids()
    looks = {}
    with (
        progress(f"checking {spec.name}", len(ids)) as advance,
        ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="promptseg-check") as pool,
    ):
        for case_id, look in zip(ids, pool.map(lambda case_id: _look(spec, samples, case_id), ids), strict=True):
            looks[case_id] = look
            advance(1)
    return looks


def _look(spec: DatasetSpec, samples: Samples, case_id: str) -> Look:
    try:
        labels, image = samples.labels(case_id), samples.image(case_id)
        check_same_size(case_id, image.shape[:2], (labels.shape[0], labels.shape[1]))
    except CaseError as error:
        return Look(problem=error.problem)
    return Look(
        size=(labels.shape[0], labels.shape[1]),
        labels=tuple(int(label) for label in np.unique(labels) if label),
        tasks=tuple(task.name for task in spec.tasks if target_of(task, labels).any()),
        pixels=hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest(),
        subject=samples.subject(case_id),
    )


def findings(spec: DatasetSpec, looks: Mapping[str, Look]) -> list[Finding]:
    """Return the table of a data set, given the properties of all its cases."""
    good = {case_id: look for case_id, look in looks.items() if not look.problem}
    return [
        _images(spec, good),
        *(_masks(task, good) for task in spec.tasks),
        _labels(spec, good),
        _cases("empty masks", {c: "" for c, look in good.items() if not look.tasks}),
        _cases("unusable cases", {case_id: look.problem for case_id, look in looks.items() if look.problem}),
        _twins(good),
        _sizes(good),
        _subjects(good),
    ]


def _images(spec: DatasetSpec, looks: Mapping[str, Look]) -> Finding:
    return _count("images with an object", sum(bool(look.tasks) for look in looks.values()), spec.n_masks)


def _masks(task: TaskSpec, looks: Mapping[str, Look]) -> Finding:
    found = sum(task.name in look.tasks for look in looks.values())
    line = _count(f"masks of {task.name}", found, task.n_masks)
    return line if found else line._replace(verdict="wrong")


def _count(what: str, found: int, published: int | None) -> Finding:
    if published is None:
        return Finding(what, str(found), "-", "")
    return Finding(what, str(found), str(published), "ok" if found == published else "differs")


def _labels(spec: DatasetSpec, looks: Mapping[str, Look]) -> Finding:
    found = sorted({label for look in looks.values() for label in look.labels})
    known = spec.known_labels
    if known is None:
        return Finding("label ids", _listed(found), "every id above 0", "ok")
    return Finding("label ids", _listed(found), _listed(sorted(known)), "ok" if set(found) <= known else "wrong")


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) or "none"


def _cases(what: str, cases: Mapping[str, str]) -> Finding:
    """Return a line of cases that must not exist, with the first few named."""
    named = [f"{case_id}: {problem}" if problem else case_id for case_id, problem in sorted(cases.items())]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    found = f"{len(named)} ({'; '.join(named[:_SHOWN])}{more})" if named else "0"
    return Finding(what, found, "0", "wrong" if named else "ok")


def _twins(looks: Mapping[str, Look]) -> Finding:
    counts = Counter(look.pixels for look in looks.values())
    return Finding("images equal to another", str(sum(n for n in counts.values() if n > 1)), "-", "")


def _sizes(looks: Mapping[str, Look]) -> Finding:
    sizes = Counter(look.size for look in looks.values())
    (height, width), count = sizes.most_common(1)[0] if sizes else ((0, 0), 0)
    span = _span(looks, lambda look: look.size[1]) + " wide, " + _span(looks, lambda look: look.size[0]) + " high"
    found = f"{width} x {height}" if len(sizes) == 1 else f"{span}; most often {width} x {height} ({count})"
    return Finding("sizes", found if sizes else "none", "-", "")


def _span(looks: Mapping[str, Look], side: Callable[[Look], int]) -> str:
    sides = [side(look) for look in looks.values()] or [0]
    return f"{min(sides)} to {max(sides)}"


def _subjects(looks: Mapping[str, Look]) -> Finding:
    subjects = {look.subject for look in looks.values()}
    return Finding("patients", "not known" if subjects <= {None} else str(len(subjects - {None})), "-", "")
