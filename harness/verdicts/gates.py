"""Relative gates: is a cell worse than its baseline? Pure functions; docs/gates.md has the rule and its error rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from promptseg.results.rows import CellResult
from promptseg.specs import Cell, MaskChoice, Stratum
from promptseg.stats import paired
from promptseg.stats.paired import Comparison, Pair
from promptseg.verdicts import baselines, comparable
from promptseg.verdicts.summary import pair, scored, strata

Outcome = Literal["pass", "warn", "fail", "refused", "missing"]
_BY_SEVERITY: tuple[Outcome, ...] = ("pass", "warn", "fail")
_ADVICE = "Evaluate with the baseline's settings, or save a new baseline."


class CaseEntry(TypedDict):
    """One of the cases that lost most: its IoU before and after."""

    case_id: str
    before: float
    after: float


class ComparisonEntry(TypedDict, total=False):
    """The numbers of a comparison in ``--seg-json``; empty where nothing was compared, else it has all keys."""

    n: int
    n_subjects: int
    before: float
    after: float
    delta: float
    level: float
    interval: list[float] | None
    p: float
    detectable_drop: float | None
    worst: list[CaseEntry]


class BaselineEntry(ComparisonEntry):
    """The entry ``baseline`` of a cell in ``--seg-json``, with the numbers over all common cases."""

    reference: str
    verdict: Outcome
    reason: str
    max_drop: float
    select: MaskChoice
    strata: dict[str, ComparisonEntry]
    differences: list[str]
    of_sample: bool


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """The settings of a relative gate.

    Attributes:
        reference: the baseline as the user named it.
        select: the choice of mask to compare.
        max_drop: the mean drop that is tolerated.
        strata: kinds of strata that get gates of their own.
        max_errors: number of cases that may fail though the baseline scored them.
    """

    reference: str
    select: MaskChoice
    max_drop: float = baselines.MAX_DROP
    strata: tuple[Stratum, ...] = ()
    max_errors: int = 0


@dataclass(frozen=True, kw_only=True)
class BaselineVerdict:
    """A cell compared with its baseline.

    Attributes:
        cell: model, task and prompt mode.
        settings: of the gate.
        outcome: ``refused``: the two cannot be compared, which counts as a failure; ``missing``: the baseline does not
            have the cell, which asserts nothing.
        reason: why, in words.
        comparison: the numbers over all common cases, None where nothing was compared.
        strata: the numbers of each stratum that has a gate of its own, by name.
        differences: what else differs from the baseline, in words.
        of_sample: whether the baseline covers only a part of the data set's images.
    """

    cell: Cell
    settings: GateSettings
    outcome: Outcome
    reason: str
    comparison: Comparison | None = None
    strata: Mapping[str, Comparison] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    of_sample: bool = False

    @property
    def fails(self) -> bool:
        """Whether a test must fail."""
        return self.outcome in ("fail", "refused")

    def explain(self) -> str:
        """Return the message for the user; it can be read alone."""
        cell = self.cell
        lines = [f"{cell.model} on {cell.task}, {cell.mode}, against baseline {self.settings.reference}: {self.reason}"]
        if self.comparison is not None:
            lines.append(f"{_counts(self.comparison)}, mask: {self.settings.select}")
            if self.comparison.worst:
                lines.append("lost most: " + ", ".join(map(_loss, self.comparison.worst)))
            lines += [f"{name}: n={part.n}, {_change(part)}" for name, part in self.strata.items()]
        if self.differences:
            lines.append(f"not as in the baseline: {'; '.join(self.differences)}")
        return "\n".join(lines)

    def as_json(self) -> BaselineEntry:
        """Return the entry ``baseline`` of a cell in ``--seg-json``."""
        return {
            "reference": self.settings.reference,
            "verdict": self.outcome,
            "reason": self.reason,
            "max_drop": self.settings.max_drop,
            "select": self.settings.select,
            **(_as_json(self.comparison) if self.comparison else ComparisonEntry()),
            "strata": {name: _as_json(part) for name, part in self.strata.items()},
            "differences": list(self.differences),
            "of_sample": self.of_sample,
        }


def _as_json(comparison: Comparison) -> ComparisonEntry:
    return {
        "n": comparison.n,
        "n_subjects": comparison.n_subjects,
        "before": comparison.before,
        "after": comparison.after,
        "delta": comparison.delta,
        "level": comparison.level,
        "interval": list(comparison.interval) if comparison.interval else None,
        "p": comparison.p,
        "detectable_drop": comparison.detectable,
        "worst": [{"case_id": p.case_id, "before": p.before, "after": p.after} for p in comparison.worst],
    }


def _loss(pair: Pair) -> str:
    return f"{pair.case_id} {pair.before:.3f} to {pair.after:.3f}"


def _change(comparison: Comparison) -> str:
    before, after = f"{comparison.before:.3f}", f"{comparison.after:.3f}"
    return f"mean IoU {before} to {after} ({comparison.delta:+.4f}, {_interval(comparison)})"


def _interval(comparison: Comparison) -> str:
    if comparison.interval is None:
        return f"no interval from {comparison.n_subjects} subjects: {paired.MIN_SUBJECTS} are needed"
    low, high = comparison.interval
    return f"{100 * comparison.level:.3g} % interval {low:+.4f} to {high:+.4f}"


def _counts(comparison: Comparison) -> str:
    return (
        f"n={comparison.n} of {comparison.n_subjects} subjects, p={comparison.p:.2g}, "
        f"minimum detectable drop: {_detectable(comparison)}"
    )


def _detectable(comparison: Comparison) -> str:
    if comparison.detectable is not None:
        return f"{comparison.detectable:.4f}"
    if comparison.n_subjects < paired.MIN_ANNOUNCED:
        return f"not known from {comparison.n_subjects} subjects, {paired.MIN_ANNOUNCED} are needed"
    return "not known, no case differs" if comparison.interval == (0, 0) else "none, the cases differ too much"


def against(before: CellResult | None, after: CellResult, settings: GateSettings) -> BaselineVerdict:
    """Compare a cell with its baseline, ``before``: None where the baseline does not have it."""
    if before is None:
        reason = "the baseline does not have this cell"
        return BaselineVerdict(cell=after.cell, settings=settings, outcome="missing", reason=reason)
    objections = comparable.objections(before, after)
    pairs = pair(before.rows, after.rows, settings.select)
    if objections or not pairs:
        reason = "; ".join(objections) or "no case was scored in both"
        return refused(after.cell, settings, f"{reason}. {_ADVICE}")
    whole, parts = compared(pairs, settings)
    outcome, reason = judge_all(whole, parts, settings.max_drop)
    lost = _lost(before, after)
    if len(lost) > settings.max_errors:
        outcome, reason = "fail", f"failed cases that the baseline scored: {len(lost)}, such as {lost[0]!r}; {reason}"
    return BaselineVerdict(
        cell=after.cell,
        settings=settings,
        outcome=outcome,
        reason=reason,
        comparison=whole,
        strata=parts,
        differences=tuple(comparable.differences(before, after)),
        of_sample=before.is_sample,
    )


def refused(cell: Cell, settings: GateSettings, reason: str) -> BaselineVerdict:
    """Return the verdict on a cell that cannot be compared with its baseline."""
    return BaselineVerdict(cell=cell, settings=settings, outcome="refused", reason=f"cannot be compared: {reason}")


def _lost(before: CellResult, after: CellResult) -> list[str]:
    """Return the cases that the baseline scored and that fail now."""
    had_score = {row.case_id for row in scored(before.rows)}
    return sorted({row.case_id for row in after.rows if row.error and row.case_id in had_score})


def compared(pairs: Sequence[Pair], settings: GateSettings) -> tuple[Comparison, dict[str, Comparison]]:
    """Compare all cases, and each stratum.

    The more strata, the wider their intervals, so that together they err as rarely as one.
    """
    by_stratum = strata(pairs, settings.strata)
    level = 1 - (1 - paired.LEVEL) / max(1, len(by_stratum))
    parts = {name: paired.compare(part, settings.max_drop, level) for name, part in by_stratum.items()}
    return paired.compare(pairs, settings.max_drop), parts


def judge_all(whole: Comparison, parts: Mapping[str, Comparison], max_drop: float) -> tuple[Outcome, str]:
    """Return the most serious verdict over all cases and over each stratum."""
    verdicts = [judge(whole, max_drop)]
    for name, part in parts.items():
        outcome, reason = judge(part, max_drop)
        verdicts.append((outcome, f"{name}: {reason}"))
    return max(verdicts, key=lambda verdict: _BY_SEVERITY.index(verdict[0]))


def judge(comparison: Comparison, max_drop: float) -> tuple[Outcome, str]:
    """Apply the rule: fail if the mean drop exceeds ``max_drop`` and its interval excludes zero, warn if one does."""
    dropped, significant = paired.drops(comparison, max_drop), paired.significantly_worse(comparison)
    change = _change(comparison)
    if dropped and significant:
        return "fail", f"worse: {change}, tolerated: {max_drop:g}"
    if dropped:
        return "warn", f"lower by more than {max_drop:g}, but not significantly: {change}"
    if significant:
        return "warn", f"significantly lower, but by no more than {max_drop:g}: {change}"
    return "pass", f"not worse: {change}"
