"""What a run reuses: stored results that are enough, and the finished cases of those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from promptseg.evaluation.jobs import CellJob
from promptseg.results.masks import MaskStore
from promptseg.results.store import CellResult, ResultRow, ResultStore
from promptseg.runner.groups import PlannedCell
from promptseg.runner.options import Options
from promptseg.specs import Cell
from promptseg.verdicts import judge, stopping
from promptseg.verdicts.judge import RunSettings
from promptseg.verdicts.score import CellScore


class Reuse:
    """Reads what earlier runs left in a results folder.

    Args:
        store: the results and journals.
        masks: the candidate masks.
        options: of the run; with ``rerun`` nothing is reused.
    """

    def __init__(self, store: ResultStore, masks: MaskStore, options: Options) -> None:
        self._store = store
        self._masks = masks
        self._options = options

    def results(self, fingerprints: Mapping[Cell, str]) -> dict[Cell, CellResult]:
        """Return the stored result of each cell that has one with its fingerprint."""
        if self._options.rerun:
            return {}
        loaded = {cell: self._store.load(cell, fingerprint) for cell, fingerprint in fingerprints.items()}
        return {cell: result for cell, result in loaded.items() if result is not None}

    def scores(self, results: Iterable[CellResult], run: RunSettings) -> dict[Cell, CellScore]:
        """Return the scores of those results that need no further case; their journals are no longer needed."""
        scores = {}
        for result in results:
            score = self._score(result, run)
            if score is not None:
                scores[result.cell] = score
                self._store.drop_journals(result)
        return scores

    def _score(self, result: CellResult, run: RunSettings) -> CellScore | None:
        """Return the score of a result, None where the run needs more cases."""
        if any(row.error for row in result.rows):
            return None  # failed cases are tried again
        limit = run.bounds.limit
        if self._options.save_masks:
            counted = judge.first_cases(result, run.order, limit)
            if not counted <= self._masks.cases(result.cell, result.fingerprint):
                return None
        is_examined = result.n_examined == len(run.order)
        is_enough = is_examined or (limit is not None and len({row.case_id for row in result.rows}) >= limit)
        if not is_enough and run.until_sure is None:
            return None
        score = judge.judge(result, run)
        return score if is_enough or score.stop else None

    def job(self, part: PlannedCell, fingerprint: str, run: RunSettings) -> CellJob:
        """Return the job of a cell, with the cases that earlier runs finished."""
        job = CellJob(part.task, part.mode, self._store.journal(part.cell, fingerprint))
        if not self._options.rerun:
            stored = self._store.load(part.cell, fingerprint)
            if stored is not None:
                job.cases.update(finished_cases(stored, run))
            job.cases.update(self._store.finished_cases(part.cell, fingerprint))
        if self._options.save_masks:
            job.masks = self._masks.journal(part.cell, fingerprint)
            saved = self._masks.cases(part.cell, fingerprint)
            job.cases = {case_id: rows for case_id, rows in job.cases.items() if case_id in saved or not rows}
        criteria = judge.stop_criteria(part.cell, run)
        if criteria:
            job.is_settled = stopping.Watch(job.cases, partial(stopping.stop, run.order, criteria, run.bounds))
        return job


def finished_cases(result: CellResult, run: RunSettings) -> dict[str, tuple[ResultRow, ...]]:
    """Return the rows of the examined cases of a result but for those that failed."""
    cases = judge.examined_cases(result, run.order)
    return {case_id: rows for case_id, rows in cases.items() if not any(row.error for row in rows)}
