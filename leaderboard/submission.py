"""Results for others' leaderboards: checked, described by a JSON document, and laid out as they are published.

Layout of a submission::

    submission.json                     what is claimed; promptseg/leaderboard/submission.schema.json describes it
    results/MODEL/TASK/MODE.parquet     the rows, as a results folder has them
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from promptseg.errors import ConfigError, ResultsError, UnavailableError, package_needed
from promptseg.files import hub
from promptseg.files.atomic import atomic_folder
from promptseg.results import provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import SUBMISSION, SUBMITTED, read_all, result_files
from promptseg.specs import SELECTS
from promptseg.stats.means import ROUNDING
from promptseg.verdicts import summary as scores

SCHEMA = 1
_SHOWN = 20


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a submission's document."""
    text = files("promptseg.leaderboard").joinpath("submission.schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def found(root: Path, skip: Callable[[Path, ResultsError], None] | None = None) -> dict[Path, CellResult]:
    """Return the latest results in a results folder, or in a submission, by file.

    Args:
        root: the folder.
        skip: called with each file that cannot be used, and why; by default that is an error.

    Raises:
        ResultsError: there are none, or one cannot be used.
    """
    result_files(root)
    return dict(read_all(root, skip))


def make(results: Mapping[Path, CellResult], target: Path, refused: Sequence[str] = ()) -> Path:
    """Check results and write the submission, whole or not at all; return its document.

    Args:
        results: by file.
        target: the folder to write.
        refused: why other files cannot be used; there may be none to submit the rest.

    Raises:
        ConfigError: ``target`` exists.
        ResultsError: a result may not be submitted, each with the reasons; or the folder cannot be written.
        UnavailableError: the extra is not installed.
    """
    if target.exists():
        raise ConfigError(f"{target} exists already. Name another --output, or remove it.")
    reasons = list(refused)
    reasons += [f"{result.cell.id}: {reason}" for result in results.values() for reason in objections(result)]
    document = describe(results) if not reasons else {}
    reasons = reasons or invalid(document)
    if reasons:
        more = [f"... and {len(reasons) - _SHOWN} more"] * (len(reasons) > _SHOWN)
        raise ResultsError(
            "\n".join(["Nothing was written, since this cannot be submitted:", *reasons[:_SHOWN], *more])
        )
    try:
        with atomic_folder(target) as whole:
            for path, result in results.items():
                copy = whole / _file(result)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
            (whole / SUBMISSION).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"The submission {target} cannot be written: {error}.") from error
    return target / SUBMISSION


def push(root: Path, repo: str) -> str:
    """Add a submission to a data set repository on the Hub, beside those of others, and return the commit.

    Raises:
        ConfigError: the Hub has no repositories of such a name.
        UnavailableError: the Hub refuses, or cannot be reached.
    """
    digest = hashlib.sha256((root / SUBMISSION).read_bytes()).hexdigest()[:16]
    added = {
        f"submissions/{digest}/{p.relative_to(root).as_posix()}": p for p in sorted(root.rglob("*")) if p.is_file()
    }
    target = hub.Repo(kind="dataset", id=repo, name="the submission")
    return hub.upload(target, added, f"Submission {digest}: {len(added) - 1} results of promptseg")


# --- what is claimed ----------------------------------------------------------------------------------------


def describe(results: Mapping[Path, CellResult]) -> dict[str, Any]:
    """Return the document about results: what they claim, and the sha256 of each file of rows."""
    return {
        "schema": SCHEMA,
        "promptseg": version("pytest-promptseg"),
        "date": provenance.today(),
        "cells": [_claim(path, results[path]) for path in sorted(results)],
    }


def _claim(path: Path, result: CellResult) -> dict[str, Any]:
    summary = scores.summarise(result.rows, scores.select_of(result))
    return {
        **asdict(result.cell),
        "file": _file(result),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "fingerprint": result.fingerprint,
        "n": summary.n,
        "n_images": result.n_images,
        "iou": dict(summary.iou),
        "ci95": list(summary.ci95) if summary.ci95 else None,
        "provenance": result.provenance.as_json(),
    }


def altered(root: Path) -> list[str]:
    """Return where the results of a submission are not what its document says of them; of a results folder nothing.

    Raises:
        ResultsError: there are no results, or one cannot be read.
    """
    path = root / SUBMISSION
    if not path.is_file():
        return []
    try:
        claims = {cell["file"]: cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [f"{SUBMISSION} is no document of `promptseg submit` ({error!r})"]
    unusable: set[str] = set()  # which whoever reads the results has named
    results = found(root, lambda file, _: unusable.add(file.relative_to(root).as_posix()))
    claims = {file: claim for file, claim in claims.items() if file not in unusable}
    there = {claim["file"]: claim for claim in describe(results)["cells"]}
    return [
        *(f"{file}: claimed in {SUBMISSION}, but not there" for file in sorted(claims.keys() - there.keys())),
        *(f"{file}: not claimed in {SUBMISSION}" for file in sorted(there.keys() - claims.keys())),
        *(
            f"{file}: {', '.join(keys)} not as claimed in {SUBMISSION}"
            for file in sorted(claims.keys() & there.keys())
            if (keys := [key for key, value in there[file].items() if not _same(value, claims[file].get(key))])
        ),
    ]


def _same(a: Any, b: Any) -> bool:
    """Whether two values of JSON are equal, numbers as nearly as two machines compute them."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, abs_tol=ROUNDING)
    return bool(a == b)


def _file(result: CellResult) -> str:
    cell = result.cell
    return f"{SUBMITTED}/{cell.model}/{cell.task}/{cell.mode}.parquet"


def invalid(document: Mapping[str, Any]) -> list[str]:
    """Return where a document breaks the schema, and how; empty where it keeps it.

    Raises:
        UnavailableError: the extra is not installed.
    """
    try:
        import jsonschema
    except ImportError as error:
        raise UnavailableError(package_needed("`promptseg submit`", "jsonschema", "submit")) from error
    errors = jsonschema.Draft202012Validator(schema()).iter_errors(document)
    return [f"{_where(document, list(e.absolute_path))}: {e.message[:200]}" for e in errors]


def _where(document: Mapping[str, Any], path: Sequence[str | int]) -> str:
    """Return the place of an error in words, with the cell's name in place of its number."""
    if len(path) < 2 or path[0] != "cells":
        return "/".join(map(str, path)) or "the document"
    cell = document["cells"][path[1]]
    names = "-".join(str(cell.get(key)) for key in ("model", "task", "mode"))
    return "/".join([names, *map(str, path[2:])])


# --- what may be submitted ----------------------------------------------------------------------------------


def objections(result: CellResult) -> Iterator[str]:
    """Yield why a result may not be submitted, in words: a sample, failed cases, rows that contradict themselves."""
    if result.n_images is None:
        yield "the number of images in the data set was not recorded: evaluate it again"
    if result.is_sample:
        yield (
            f"a sample: {result.n_examined} of {result.n_images} images; "
            "a run without --seg-limit and --seg-until-sure completes it"
        )
    if result.provenance.model.sees_target:
        yield "the model sees the target: it is a reference, not a contestant"
    failed = {row.case_id for row in result.rows if row.error}
    if failed:
        yield f"{len(failed)} cases failed, such as {min(failed)!r}: evaluate them again"
    if not result.rows:
        yield "no cases"
    for row in result.rows:
        if not row.error and (reason := _contradiction(row)):
            yield f"case {row.case_id!r}: {reason}"


def _contradiction(row: ResultRow) -> str:
    """Return how the numbers of a row contradict one another; empty where they do not."""
    ious = [getattr(row, f"iou_{select}") for select in SELECTS]
    if not all(isinstance(iou, float) and math.isfinite(iou) and 0 <= iou <= 1 for iou in ious):
        return f"IoUs {ious} are not numbers from 0 to 1"
    first, confident, oracle = ious
    if first > oracle + ROUNDING:
        return f"the first mask ({first:.4f}) is better than the best ({oracle:.4f})"
    candidates = row.candidate_iou
    if candidates is None:
        return ""
    if abs(candidates[0] - first) > ROUNDING or abs(max(candidates) - oracle) > ROUNDING:
        return f"IoU of first and best mask ({first:.4f}, {oracle:.4f}) are not those of the candidates"
    if min(abs(candidate - confident) for candidate in candidates) > ROUNDING:
        return f"IoU of the confident mask ({confident:.4f}) is that of no candidate"
    return ""
