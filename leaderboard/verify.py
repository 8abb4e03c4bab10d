"""Are claimed results what the model says? A random sample of their cases is decoded again and compared.

The prompts of a stored row are given to the model as they stand, so that a click which another machine's floating
point moved does not make the rest of its case look wrong; that they are prompts of the protocol is checked apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from promptseg import prompts
from promptseg.data.images import check_same_size
from promptseg.errors import PromptsegError
from promptseg.evaluation import jobs, metrics
from promptseg.evaluation.batches import BatchSize, answered
from promptseg.evaluation.boundary import Boundary, Encoded, Query, torch_may_read
from promptseg.evaluation.metrics import Choice
from promptseg.files.models import fetch_model
from promptseg.leaderboard.case_views import prompts_of
from promptseg.preparation import fetch
from promptseg.progress import OpenBar, hidden
from promptseg.registry.entries import Registry
from promptseg.registry.references import resolve
from promptseg.results.fingerprints import PROTOCOL, PROTOCOL_VERSION
from promptseg.results.rows import CellResult, ResultRow
from promptseg.runner import guarded
from promptseg.runner.plugin_calls import PluginCalls
from promptseg.samples import Samples, target_of
from promptseg.segmenter import Mask, Prediction, Prompt, Runtime, Segmenter, sealed
from promptseg.specs import SELECTS, Cell, MaskChoice, PromptMode, TaskSpec

TOLERANCE = 0.005  # of an IoU, on top of what a few pixels make
PIXELS = 2  # of the boundary of a mask, that may fall on the other side on another machine
TIE = 0.01  # candidates whose predicted IoU is this near to the highest may be chosen by another machine
CLICK_PIXELS = 2  # a later click may lie this far outside of the error that we see


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A case that is not as it was claimed.

    Attributes:
        case_id: of the image.
        reason: in words.
        claimed, found: IoU, where they are what differs.
    """

    case_id: str
    reason: str
    claimed: float | None = None
    found: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the sample of one cell showed.

    Attributes:
        cell: model, task and prompt mode.
        n_claimed: number of cases with a claimed score.
        n_checked: number of these that were decoded again.
        deviations: cases that are not as claimed, largest difference first.
        refused: why the cell could not be checked at all; empty where it was.
    """

    cell: Cell
    n_claimed: int
    n_checked: int = 0
    deviations: tuple[Deviation, ...] = ()
    refused: str = ""

    @property
    def holds(self) -> bool:
        """Whether the cell was checked and nothing deviates."""
        return not (self.refused or self.deviations)

    @property
    def surely_below(self) -> float:
        """Return the share of edited cases that such a sample misses in at most 5 % of all draws; 0 if it is whole.

        From the hypergeometric chance that none of k edited cases among the claimed ones is drawn.
        """
        k, missed = 0, 1.0
        while missed > 0.05 and k < self.n_claimed:
            missed *= max(0, self.n_claimed - self.n_checked - k) / (self.n_claimed - k)
            k += 1
        return 0.0 if self.n_checked >= self.n_claimed else k / self.n_claimed


@dataclass(frozen=True)
class Claim:
    """A claimed result with the specs it speaks of."""

    result: CellResult
    task: TaskSpec
    mode: PromptMode


def check(
    results: Iterable[CellResult], registry: Registry, *, n: int, seed: int, device: str, group: OpenBar = hidden
) -> Iterator[Verdict]:
    """Yield the verdict on each claimed result, those of a model and data set together.

    Args:
        results: what is claimed.
        registry: models and data sets of these names, as this machine has them.
        n: cases to decode again for each result.
        seed: of the random sample. Who claims must not know it beforehand.
        device: that the models run on; the dtype is that of the claim.
        group: shows the progress of a data set's images.
    """
    together: dict[tuple[Any, ...], list[CellResult]] = {}
    for result in results:
        made = result.provenance
        together.setdefault((result.cell.model, made.dataset.name, made.dtype, made.seed), []).append(result)
    for (name, _, dtype, _), claimed in together.items():
        try:
            yield from _check_group(claimed, registry, Runtime(device=device, dtype=str(dtype)), n, seed, group)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; the other groups are checked all the same
            reason = str(error) if isinstance(error, PromptsegError) else f"{name}: {type(error).__name__}: {error}"
            yield from (_refused(result, reason) for result in claimed)


def _check_group(
    results: Sequence[CellResult], registry: Registry, runtime: Runtime, n: int, seed: int, group: OpenBar
) -> Iterator[Verdict]:
    spec = registry.model(results[0].cell.model)
    dataset, _ = registry.task(results[0].cell.task)
    files = fetch_model(spec)
    _, samples = fetch.open_samples(dataset, group)
    claims = []
    for result in results:
        if objection := _objection(result, files.sha256, samples.fingerprint):
            yield _refused(result, objection)
        else:
            claims.append(Claim(result, registry.task(result.cell.task)[1], registry.mode(result.cell.mode)))
    if claims:
        calls = PluginCalls(results[0].provenance.seed or 0, lambda _: None)  # as in the run that is claimed
        model = guarded.load(spec, files, runtime, calls)
        order = drawn(samples.ids(), np.random.default_rng([seed, *spec.name.encode(), *dataset.name.encode()]))
        with group(f"{spec.name} on {dataset.name}", len(order)) as advance:
            yield from verify(model, samples, claims, order, n, advance)


def _objection(result: CellResult, sha256: Mapping[str, str], fingerprint: str) -> str:
    """Return why a claim cannot be checked with what is on this machine; empty where it can."""
    made = result.provenance
    if made.protocol != (PROTOCOL, str(PROTOCOL_VERSION)):
        return f"protocol {' '.join(made.protocol or ('unknown',))}, this version has {PROTOCOL} {PROTOCOL_VERSION}"
    if made.mode.grid:
        return "segment everything is not decoded again: it has no prompts of its own"
    if made.model.sha256 != dict(sha256):
        return "other weights than those on this machine: pull the claimed revision"
    if made.dataset.fingerprint != fingerprint:
        return "other images or masks than those on this machine: prepare the claimed revision"
    return ""


def _refused(result: CellResult, reason: str) -> Verdict:
    claimed = {row.case_id for row in result.rows if not row.error}
    return Verdict(cell=result.cell, n_claimed=len(claimed), refused=reason)


def drawn(case_ids: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return the ids of a data set in random order: the sample of every cell is the first of them that it claims."""
    return [case_ids[i] for i in rng.permutation(len(case_ids))]


def verify(
    model: Segmenter,
    samples: Samples,
    claims: Sequence[Claim],
    order: Sequence[str],
    n: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Verdict]:
    """Decode ``n`` cases of each claim again, each image encoded once, and say what deviates.

    Args:
        model: the claimed one, loaded from the claimed files.
        samples: the claimed data set.
        claims: results of this model on this data set.
        order: all ids of the data set, in random order.
        n: number of claimed cases to decode again for each claim, and of images to look at that it does not claim.
        advance: called with the number of images passed since the last call.
    """
    checks = [_Check(claim, order, n) for claim in claims]
    for case_id in order:
        wanting = [check for check in checks if case_id in check.sample]
        if wanting:
            _look(model, samples, case_id, wanting)
        advance(1)
    return [check.verdict() for check in checks]


class _Check:
    """The work on one claim."""

    def __init__(self, claim: Claim, order: Sequence[str], n: int) -> None:
        self.claim = claim
        self.rows: dict[str, list[ResultRow]] = {}
        for row in claim.result.rows:
            self.rows.setdefault(row.case_id, []).append(row)
        scored = {case_id for case_id, rows in self.rows.items() if not any(row.error for row in rows)}
        known, examined = set(order), _examined(claim.result, order)
        self.n_claimed = len(scored)
        self.decoded = [case_id for case_id in order if case_id in scored][:n]
        self.sample = {*self.decoded, *[case_id for case_id in order if case_id in examined - self.rows.keys()][:n]}
        self.deviations = [
            Deviation(case_id=case_id, reason="the data set has no such case") for case_id in sorted(scored - known)
        ]

    def verdict(self) -> Verdict:
        """Return what was found, worst first."""
        worst = sorted(self.deviations, key=lambda d: (-abs((d.claimed or 1) - (d.found or 0)), d.case_id))
        return Verdict(
            cell=self.claim.result.cell,
            n_claimed=self.n_claimed,
            n_checked=len(self.decoded),
            deviations=tuple(worst),
        )


def _examined(result: CellResult, case_ids: Sequence[str]) -> set[str]:
    """Return the images that a claim looked at: all, or of a limited run the first of the seeded order."""
    if result.n_examined >= len(case_ids):
        return set(case_ids)
    made = result.provenance
    seed = made.seed if made.sample_seed is None else made.sample_seed
    return set(jobs.seeded_order(case_ids, str(made.dataset.name), seed or 0)[: result.n_examined])


@torch_may_read()
def _look(model: Segmenter, samples: Samples, case_id: str, checks: Iterable[_Check]) -> None:
    """Compare one image with what each claim says of it."""
    labels = samples.labels(case_id)
    targets = [(check, target_of(check.claim.task, labels)) for check in checks]
    for check, target in targets:
        if case_id not in check.rows and target.any():
            check.deviations.append(Deviation(case_id=case_id, reason="belongs to the task, but is not claimed"))
    decoding = [(check, target) for check, target in targets if case_id in check.rows]
    if not decoding:
        return
    image = samples.image(case_id)
    check_same_size(case_id, image.shape[:2], labels.shape)
    boundary = Boundary(model)
    [encoded] = boundary.embed([boundary.prepare(sealed(image))])
    for check, target in decoding:
        replay = _Replay(boundary, encoded, target, check.claim)
        check.deviations.extend(itertools.islice(replay.deviations(check.rows[case_id]), 1))


class _Last(NamedTuple):
    """The answer to a click, and which of its candidates the next one goes on from."""

    prediction: Prediction
    candidate: int


class _Replay:
    """The claimed prompts of one case, given to the model again."""

    def __init__(self, boundary: Boundary, encoded: Encoded, target: Mask, claim: Claim) -> None:
        self._boundary = boundary
        self._encoded = encoded
        self._target = target
        self._claim = claim
        self._simulate = resolve(claim.mode.simulate)

    def deviations(self, rows: Sequence[ResultRow]) -> Iterator[Deviation]:
        """Yield what is not as claimed, row by row."""
        mode = self._claim.mode
        rows = sorted(rows, key=lambda row: row.click)
        expected = list(range(1, mode.steps + 1)) if mode.iterative else [0]
        if [row.click for row in rows] != expected:
            yield Deviation(case_id=rows[0].case_id, reason=f"{len(rows)} rows instead of {len(expected)}")
            return
        seen: Choice | None = None
        last: _Last | None = None
        predictions: tuple[Prediction, ...] = ()
        given: tuple[Prompt, ...] = ()
        for row in rows:
            wants = _prompts(row)
            if not (wants and self._follows_protocol(row, wants, given, last)):
                yield Deviation(case_id=row.case_id, reason=f"the prompts {_at(row)}are not those of the protocol")
                return
            if seen is None or [p.key for p in wants] != [p.key for p in given]:
                predictions = self._decoded(wants, last)
                seen, given = metrics.choose(predictions, self._target), wants
                last = _Last(predictions[0], _guiding(mode.guide or "first", row, predictions[0], seen))
            yield from _differing(row, seen, predictions, self._target)

    def _follows_protocol(
        self, row: ResultRow, wants: Sequence[Prompt], given: Sequence[Prompt], last: _Last | None
    ) -> bool:
        """Whether prompts are those that the protocol simulates; a later click only has to answer the error we see."""
        claim = self._claim
        seed = claim.result.provenance.seed or 0
        rng = prompts.generator(seed, claim.task.name, row.case_id, max(0, row.click - 1))
        if last is None:
            first = (
                (self._simulate(self._target, None, Prompt(), rng),)
                if claim.mode.iterative
                else self._simulate(self._target, rng)
            )
            return [p.key for p in wants] == [p.key for p in first]
        if len(wants) != 1:
            return False
        [clicks], [before] = wants, given
        if clicks.key == before.key:
            return True
        if len(clicks.labels) != len(before.labels) + 1 or not np.array_equal(clicks.points_xy[:-1], before.points_xy):
            return False
        x, y = clicks.points_xy[-1].astype(int)
        error = last.prediction.masks[last.candidate] ^ self._target
        near = error[max(0, y - CLICK_PIXELS) : y + CLICK_PIXELS + 1, max(0, x - CLICK_PIXELS) : x + CLICK_PIXELS + 1]
        return bool(near.any()) and int(clicks.labels[-1]) == int(self._target[y, x])

    def _decoded(self, wants: Sequence[Prompt], last: _Last | None) -> tuple[Prediction, ...]:
        """Ask the model, with what the answer before leaves to go on from where it takes that."""
        boundary, (height, width) = self._boundary, self._target.shape
        state, candidate = None, 0
        if last is not None and boundary.takes_state:
            state, candidate = last.prediction.state, last.candidate
        target = self._target if boundary.sees_target else None
        queries = [Query(self._encoded, (height, width), want, state, target, candidate=candidate) for want in wants]
        predictions = []
        for found in answered(boundary.predict, queries, BatchSize(len(queries), len(queries))):
            if isinstance(found, Exception):
                raise found
            predictions.append(found)
        return tuple(predictions)


def _guiding(guide: MaskChoice, row: ResultRow, prediction: Prediction, seen: Choice) -> int:
    """Return the candidate that the next click goes on from: the claimed one if that is nearly the best, else ours.

    Which of two nearly equal candidates is the best is a matter of floating point, but all that follows depends on it.
    """
    ours = seen.candidate[guide]
    found, claimed = {
        "first": (None, None),
        "confident": (prediction.predicted_iou, row.predicted_iou),
        "oracle": (seen.candidate_iou, row.candidate_iou),
    }[guide]
    if found is None or claimed is None or len(claimed) != len(found):
        return ours
    theirs = int(np.argmax(claimed))
    return theirs if found[theirs] >= max(found) - TIE else ours


def _at(row: ResultRow) -> str:
    return f"of click {row.click} " if row.click else ""


def _prompts(row: ResultRow) -> tuple[Prompt, ...]:
    """Return the prompts that a row holds, none where it holds anything else."""
    try:
        return prompts_of(row)
    except (ValueError, TypeError, KeyError):
        return ()


def _differing(row: ResultRow, seen: Choice, predictions: Sequence[Prediction], target: Mask) -> Iterator[Deviation]:
    """Yield a deviation for each choice of mask whose claimed IoU is none that another machine might find."""
    for select in SELECTS:
        claimed: float | None = getattr(row, f"iou_{select}")
        if claimed is None:
            yield Deviation(case_id=row.case_id, reason=f"no IoU {_at(row)}of the {select} mask")
            continue
        possible = _possible(select, seen, predictions, target)
        found, allowed = min(possible, key=lambda pair: abs(claimed - pair[0]) - pair[1])
        if not abs(claimed - found) <= allowed:
            reason = f"IoU {_at(row)}of the {select} mask"
            yield Deviation(case_id=row.case_id, reason=reason, claimed=claimed, found=found)


def _possible(
    select: MaskChoice, seen: Choice, predictions: Sequence[Prediction], target: Mask
) -> list[tuple[float, float]]:
    """Return the IoUs that may be claimed for a choice of mask, each with what it may differ by."""
    if select != "confident":
        return [_with_tolerance(seen.masks[select], target)]
    choices = itertools.product(*(_nearly_best(prediction) for prediction in predictions))
    united = (np.logical_or.reduce([p.masks[i] for p, i in zip(predictions, c, strict=True)]) for c in choices)
    return [_with_tolerance(mask, target) for mask in united]


def _nearly_best(prediction: Prediction) -> npt.NDArray[np.intp]:
    if prediction.predicted_iou is None:
        return np.array([0])
    return np.flatnonzero(prediction.predicted_iou >= prediction.predicted_iou.max() - TIE)


def _with_tolerance(mask: Mask, target: Mask) -> tuple[float, float]:
    return metrics.iou(mask, target), TOLERANCE + PIXELS / int(np.count_nonzero(mask | target))
