"""Relative gates: is a cell worse than it was? Pure functions; docs/gates.md tells the rule and how often it errs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from promptseg.results.rows import CellResult
from promptseg.specs import Cell, MaskChoice, Stratum
from promptseg.stats import paired
from promptseg.stats.paired import Comparison, Pair
from promptseg.verdicts import baselines
from promptseg.verdicts.summary import pair, scored, strata

Outcome = Literal["pass", "warn", "fail", "refused", "missing"]
_ADVICE = "Evaluate with the baseline's settings, or save a new baseline."


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """What a relative gate asks.

    Attributes:
        reference: the baseline as the user named it.
        select: the choice of mask to compare.
        max_drop: the mean drop that is tolerated.
        strata: kinds of strata that get gates of their own.
        max_errors: cases of the baseline that may have failed now.
    """

    reference: str
    select: MaskChoice
    max_drop: float = baselines.MAX_DROP
    strata: tuple[Stratum, ...] = ()
    max_errors: int = 0


@dataclass(frozen=True, kw_only=True)
class BaselineVerdict:
    """A cell against its baseline.

    Attributes:
        cell: model, task and prompt mode.
        terms: what was asked.
        outcome: ``refused``: the two cannot be compared, which counts as a failure; ``missing``: the baseline does not
            have the cell, which asserts nothing.
        reason: why, in words.
        comparison: the numbers over all common cases, None where nothing was compared.
        strata: the numbers of each stratum that has a gate of its own, by name.
        differences: what else is not the same as in the baseline, in words.
        of_sample: whether the baseline looked at a part of the data set's images alone.
    """

    cell: Cell
    terms: GateSettings
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
        """Return what a person should know; it can be read alone."""
        cell = self.cell
        lines = [f"{cell.model} on {cell.task}, {cell.mode}, against baseline {self.terms.reference}: {self.reason}"]
        if self.comparison is not None:
            lines.append(f"{_counts(self.comparison)}, mask: {self.terms.select}")
            if self.comparison.worst:
                lines.append("lost most: " + ", ".join(map(_loss, self.comparison.worst)))
            lines += [f"{name}: {_numbers(found)}" for name, found in self.strata.items()]
        if self.differences:
            lines.append(f"not as in the baseline: {'; '.join(self.differences)}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the entry ``baseline`` of a cell in ``--seg-json``."""
        return {
            "reference": self.terms.reference,
            "verdict": self.outcome,
            "reason": self.reason,
            "max_drop": self.terms.max_drop,
            "select": self.terms.select,
            **(_as_json(self.comparison) if self.comparison else {}),
            "strata": {name: _as_json(found) for name, found in self.strata.items()},
            "differences": list(self.differences),
            "of_sample": self.of_sample,
        }


def _as_json(found: Comparison) -> dict[str, Any]:
    return {
        "n": found.n,
        "n_subjects": found.n_subjects,
        "before": found.before,
        "after": found.after,
        "delta": found.delta,
        "level": found.level,
        "interval": list(found.interval) if found.interval else None,
        "p": found.p,
        "detectable_drop": found.detectable,
        "worst": [{"case_id": p.case_id, "before": p.before, "after": p.after} for p in found.worst],
    }


def _loss(pair: Pair) -> str:
    return f"{pair.case_id} {pair.before:.3f} to {pair.after:.3f}"


def _numbers(found: Comparison) -> str:
    return f"n={found.n}, mean IoU {found.before:.3f} to {found.after:.3f} ({found.delta:+.4f}, {_interval(found)})"


def _interval(found: Comparison) -> str:
    if found.interval is None:
        return f"no interval from {found.n_subjects} subjects: {paired.MIN_SUBJECTS} are needed"
    low, high = found.interval
    return f"{100 * found.level:.3g} % interval {low:+.4f} to {high:+.4f}"


def _counts(found: Comparison) -> str:
    return (
        f"n={found.n} of {found.n_subjects} subjects, p={found.p:.2g}, "
        f"smallest drop that is surely found: {_detectable(found)}"
    )


def _detectable(found: Comparison) -> str:
    if found.detectable is not None:
        return f"{found.detectable:.4f}"
    if found.n_subjects < paired.MIN_ANNOUNCED:
        return f"not known from {found.n_subjects} subjects, {paired.MIN_ANNOUNCED} are needed"
    return "not known, no case differs" if found.interval == (0, 0) else "none, the cases differ too much"


def against(before: CellResult | None, after: CellResult, terms: GateSettings) -> BaselineVerdict:
    """Hold a cell against its baseline, ``before``: None where the baseline does not have it."""
    if before is None:
        reason = "the baseline does not have this cell"
        return BaselineVerdict(cell=after.cell, terms=terms, outcome="missing", reason=reason)
    objections = baselines.objections(before, after)
    pairs = pair(before.rows, after.rows, terms.select)
    if objections or not pairs:
        reason = "; ".join(objections) or "no case was scored in both"
        return refused(after.cell, terms, f"{reason}. {_ADVICE}")
    whole, parts = compared(pairs, terms)
    outcome, reason = judge_all(whole, parts, terms.max_drop)
    lost = _lost(before, after)
    if len(lost) > terms.max_errors:
        outcome, reason = "fail", f"failed cases that the baseline scored: {len(lost)}, such as {lost[0]!r}; {reason}"
    return BaselineVerdict(
        cell=after.cell,
        terms=terms,
        outcome=outcome,
        reason=reason,
        comparison=whole,
        strata=parts,
        differences=tuple(baselines.differences(before, after)),
        of_sample=before.is_sample,
    )


def refused(cell: Cell, terms: GateSettings, reason: str) -> BaselineVerdict:
    """Return the verdict on a cell that cannot be compared with its baseline."""
    return BaselineVerdict(cell=cell, terms=terms, outcome="refused", reason=f"cannot be compared: {reason}")


def _lost(before: CellResult, after: CellResult) -> list[str]:
    """Return the cases that were scored and now fail."""
    had_score = {row.case_id for row in scored(before.rows)}
    return sorted({row.case_id for row in after.rows if row.error and row.case_id in had_score})


def compared(pairs: Sequence[Pair], terms: GateSettings) -> tuple[Comparison, dict[str, Comparison]]:
    """Compare all cases, and each stratum.

    The intervals of strata are wider the more there are, so that all together err as rarely as one.
    """
    found = strata(pairs, terms.strata)
    level = 1 - (1 - paired.LEVEL) / max(1, len(found))
    parts = {name: paired.compare(part, terms.max_drop, level) for name, part in found.items()}
    return paired.compare(pairs, terms.max_drop), parts


def judge_all(whole: Comparison, parts: Mapping[str, Comparison], max_drop: float) -> tuple[Outcome, str]:
    """Return the most serious verdict over all cases and over each stratum."""
    found = [judge(whole, max_drop)]
    for name, part in parts.items():
        outcome, reason = judge(part, max_drop)
        found.append((outcome, f"{name}: {reason}"))
    return max(found, key=lambda verdict: _SERIOUS.index(verdict[0]))


_SERIOUS: tuple[Outcome, ...] = ("pass", "warn", "fail")


def judge(found: Comparison, max_drop: float) -> tuple[Outcome, str]:
    """Apply the rule: fails if the mean drop exceeds ``max_drop`` and its interval excludes zero, warns if one does."""
    dropped, sure = paired.drops(found, max_drop), paired.significantly_worse(found)
    change = f"mean IoU {found.before:.3f} to {found.after:.3f} ({found.delta:+.4f}, {_interval(found)})"
    if dropped and sure:
        return "fail", f"worse: {change}, tolerated: {max_drop:g}"
    if dropped:
        return "warn", f"lower by more than {max_drop:g}, but not surely: {change}"
    if sure:
        return "warn", f"surely lower, but by no more than {max_drop:g}: {change}"
    return "pass", f"not worse: {change}"
