"""What a run reuses: stored results that are enough, and the finished cases of those that are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from promptseg.errors import ResultsError
from promptseg.evaluation.jobs import CellJob, Sink
from promptseg.results.masks import MaskStore, SavedMask
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.rules import RowRules
from promptseg.results.store import ResultStore
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

    def results(
        self, fingerprints: Mapping[Cell, str], case_ids: Collection[str] | None = None
    ) -> tuple[dict[Cell, CellResult], dict[Cell, ResultsError]]:
        """Return the stored result of each cell that has one with its fingerprint, and why that of a cell is unusable.

        With ``rerun`` nothing is reused, but an unusable file is not replaced either.

        Args:
            fingerprints: of the cells.
            case_ids: of their data set, where it is at hand.
        """
        usable: dict[Cell, CellResult] = {}
        unusable: dict[Cell, ResultsError] = {}
        for cell, fingerprint in fingerprints.items():
            try:
                result = self._store.load(cell, fingerprint, case_ids)
                if self._options.save_masks:
                    self._masks.cases(cell, fingerprint)
            except ResultsError as error:
                unusable[cell] = error
                continue
            if result is not None and not self._options.rerun:
                usable[cell] = result
        return usable, unusable

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
        done: dict[str, tuple[ResultRow, ...]] = {}
        if not self._options.rerun:
            case_ids = frozenset(run.order)
            stored = self._store.load(part.cell, fingerprint, case_ids)
            done |= finished_cases(stored, run) if stored else {}
            done |= self._store.finished_cases(part.cell, fingerprint, RowRules.of_mode(part.mode, case_ids))
        if self._options.save_masks:
            saved = self._masks.cases(part.cell, fingerprint)
            done = {case_id: rows for case_id, rows in done.items() if case_id in saved or not rows}
        job = CellJob(part.task, part.mode, done, keeps_masks=self._options.save_masks)
        criteria = judge.stop_criteria(part.cell, run)
        if not criteria:
            return job
        watch = stopping.Watch(partial(stopping.stop, run.order, criteria, run.bounds))
        return dataclasses.replace(job, is_settled=watch)

    def sink(self, jobs: Mapping[Cell, CellJob], fingerprints: Mapping[Cell, str]) -> Sink:
        """Return what keeps each case on disk: its masks before its rows, which say that it is finished."""
        rows_of = {job: self._store.journal(cell, fingerprints[cell]) for cell, job in jobs.items()}
        masks_of = {job: self._masks.journal(cell, fingerprints[cell]) for cell, job in jobs.items()}

        def keep(job: CellJob, case_id: str, rows: Sequence[ResultRow], masks: Sequence[SavedMask]) -> None:
            if masks:
                masks_of[job].append(case_id, masks)
            rows_of[job].append(case_id, rows)

        return keep


def finished_cases(result: CellResult, run: RunSettings) -> dict[str, tuple[ResultRow, ...]]:
    """Return the rows of the examined cases of a result but for those that failed."""
    cases = judge.examined_cases(result, run.order)
    return {case_id: rows for case_id, rows in cases.items() if not any(row.error for row in rows)}
