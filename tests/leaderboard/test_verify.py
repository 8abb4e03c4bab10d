"""``promptseg verify``: edited results are found, honest ones of another machine are not."""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.project import Project

from promptseg.evaluation import evaluate, jobs
from promptseg.leaderboard import verify
from promptseg.registry import modes
from promptseg.results import fingerprints
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.segmenter import Image, Prediction, Request, Segmenter
from promptseg.specs import Cell, ModelSpec, PromptMode, TaskSpec

TASK = TaskSpec(name="blobs", labels=(1,))
SPEC = ModelSpec(name="smooth", family="test", load="m:load", licence="MIT", accepts=frozenset({"points", "boxes"}))
N = 260


class Blobs:
    """Images of a blurred blob with noise; every tenth image has none, and does not belong to the task."""

    fingerprint = "blobs"

    def ids(self) -> Sequence[str]:
        """Return all ids."""
        return [f"{i:03}" for i in range(N)]

    def subject(self, case_id: str) -> str | None:
        """Return the case itself."""
        return case_id

    @functools.cache  # noqa: B019 - as long as the tests
    def _field(self, case_id: str) -> Any:
        rng = np.random.default_rng(int(case_id))
        return cv2.GaussianBlur(rng.normal(size=(32, 40)).astype(np.float32), (0, 0), 5)

    def labels(self, case_id: str) -> Any:
        """Return (32, 40) uint8."""
        field = self._field(case_id)
        return ((field > np.quantile(field, 0.85)) & (int(case_id) % 10 > 0)).astype(np.uint8)

    def image(self, case_id: str) -> Image:
        """Return (32, 40, 3) uint8."""
        field = self._field(case_id)
        noisy = field + np.random.default_rng(1).normal(0, 0.2 * field.std(), field.shape)
        scaled = (255 * (noisy - noisy.min()) / np.ptp(noisy)).astype(np.uint8)
        return np.repeat(scaled[..., None], 3, axis=2)


class Smooth:
    """A model whose three logit maps depend on image and prompt; ``noise`` stands for another machine."""

    def __init__(self, noise: float = 0.0) -> None:
        self.spec = SPEC
        self._noise = noise

    def embed(self, images: Sequence[Image]) -> list[Any]:
        """Return blurred images."""
        return [cv2.GaussianBlur(image[..., 0].astype(np.float32) / 255, (0, 0), 2) for image in images]

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Prediction:
        smooth, prompt = request.embedding, request.prompt
        ys, xs = np.mgrid[: smooth.shape[0], : smooth.shape[1]]
        near = np.zeros_like(smooth)
        for (x, y), label in zip(prompt.points_xy, prompt.labels, strict=True):
            near += (1 if label else -1) * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 200)
        if prompt.box_xyxy is not None:
            x0, y0, x1, y1 = prompt.box_xyxy
            near += (xs >= x0) & (xs <= x1) & (ys >= y0) & (ys <= y1)
        logits = np.stack([smooth + 0.4 * near - cut for cut in (0.7, 0.8, 0.9)])
        seed = zlib.crc32(prompt.key)
        logits += np.random.default_rng(seed).normal(0, self._noise, logits.shape)
        scores = np.array([np.tanh(np.abs(m).mean() * 4) for m in logits], dtype=np.float32)
        return Prediction(logits > 0, scores)


def claim(mode: PromptMode, model: Segmenter) -> verify.Claim:
    """Evaluate all cases as a run does."""
    job = jobs.CellJob(TASK, mode)
    evaluated = evaluate.evaluate(model, Blobs(), [job], order=Blobs().ids(), seed=3, limit=None, batch_size=8)
    rows = jobs.sorted_rows(evaluated.cases[0])
    about = {"seed": 3, "protocol": [fingerprints.PROTOCOL, fingerprints.PROTOCOL_VERSION]}
    result = CellResult(
        cell=Cell("smooth", "blobs", mode.name),
        fingerprint="f",
        rows=rows,
        n_examined=N,
        provenance=Provenance.from_json(about),
    )
    return verify.Claim(result, TASK, mode)


@pytest.fixture(scope="module", params=[modes.BOX_EACH, modes.POINT_EACH, modes.CLICKS_CONFIDENT], ids=lambda m: m.name)
def honest(request: pytest.FixtureRequest) -> verify.Claim:
    """Return what another machine claims: the same model, with other noise in its logits."""
    return claim(request.param, Smooth(noise=1e-4))


def edited(claimed: verify.Claim, share: float, rise: float) -> verify.Claim:
    """Return a claim with a share of its cases edited upward: all IoUs of a case, as a careful cheat would."""
    cases = sorted({row.case_id for row in claimed.result.rows})
    count = max(1, round(share * len(cases)))
    chosen = set(np.random.default_rng(8).choice(cases, count, replace=False))

    def raised(value: float | None) -> float:
        return min(1.0, (value or 0) + rise)

    rows = tuple(
        dataclasses.replace(
            row,
            iou_first=raised(row.iou_first),
            iou_confident=raised(row.iou_confident),
            iou_oracle=raised(row.iou_oracle),
        )
        if row.case_id in chosen
        else row
        for row in claimed.result.rows
    )
    return verify.Claim(dataclasses.replace(claimed.result, rows=rows), claimed.task, claimed.mode)


def look(claimed: verify.Claim, n: int, seed: int = 0) -> verify.Verdict:
    """Verify a claim on this machine."""
    order = verify.drawn(Blobs().ids(), np.random.default_rng(seed))
    [verdict] = verify.verify(Smooth(), Blobs(), [claimed], order, n)
    return verdict


def test_an_honest_claim_of_another_machine_holds(honest: verify.Claim) -> None:
    """All cases, though masks differ in pixels, candidates change places, and clicks move."""
    verdict = look(honest, N)
    assert verdict.n_checked == N - N // 10
    assert verdict.holds, verdict.deviations[:3]
    assert verdict.surely_below == 0


def test_two_per_cent_edited_upward_are_found(honest: verify.Claim) -> None:
    """Of 234 cases 5 are edited; a sample of 200 misses all of them in fewer than 1 of 10,000 draws."""
    verdict = look(edited(honest, 0.02, 0.05), 200)
    assert not verdict.holds
    assert {d.reason.split(" ")[0] for d in verdict.deviations} == {"IoU"}
    assert all(0.03 < (d.claimed or 0) - (d.found or 0) < 0.07 for d in verdict.deviations)
    assert verdict.surely_below < 0.02


def test_the_share_of_edits_that_is_surely_found_is_that_of_draws() -> None:
    """Against the draws themselves: of 100 cases with k edited, 30 drawn, none is seen in at most 5 %."""
    verdict = verify.Verdict(cell=Cell("m", "t", "c"), n_claimed=100, n_checked=30)
    k = round(verdict.surely_below * 100)
    rng = np.random.default_rng(0)
    draws = np.argsort(rng.random((20_000, 100)), axis=1)[:, :30]
    assert (draws >= k).all(axis=1).mean() <= 0.05 + 0.005
    assert (draws >= k - 1).all(axis=1).mean() > 0.05


def _moved(row: ResultRow) -> ResultRow:
    """Return a row whose first prompt lies elsewhere."""
    given = json.loads(row.prompts)
    if given[0]["box_xyxy"]:
        given[0]["box_xyxy"][0] += 3
    else:
        given[0]["points_xy"][0][0] += 3
    return dataclasses.replace(row, prompts=json.dumps(given))


def test_left_out_cases_invented_ones_and_other_prompts_are_found(honest: verify.Claim) -> None:
    """A claim must cover the task, speak of cases that exist, and use the prompts of the protocol."""
    rows = honest.result.rows
    first = rows[0].case_id
    without = tuple(row for row in rows if row.case_id != first)
    invented = tuple(dataclasses.replace(row, case_id="zzz") for row in rows if row.case_id == first)
    moved = tuple(_moved(row) if row.case_id == first else row for row in rows)
    torn = tuple(dataclasses.replace(row, prompts="[1") if row.case_id == first else row for row in rows)
    expected = {
        without: "belongs to the task",
        (*without, *invented): "no such case",
        moved: "not those of the protocol",
        torn: "not those of the protocol",
    }
    for changed, reason in expected.items():
        altered = verify.Claim(dataclasses.replace(honest.result, rows=changed), honest.task, honest.mode)
        verdict = look(altered, N)
        assert any(reason in deviation.reason for deviation in verdict.deviations), reason


def test_clicks_that_answer_no_error_are_found() -> None:
    """Later clicks may be moved by another machine, but not to where the mask is right."""
    honest = claim(modes.CLICKS_CONFIDENT, Smooth())

    def cheated(row: ResultRow) -> ResultRow:
        given = json.loads(row.prompts)
        given[0]["labels"] = [1] * len(given[0]["labels"])
        given[0]["points_xy"] = [given[0]["points_xy"][0]] * len(given[0]["points_xy"])
        return dataclasses.replace(row, prompts=json.dumps(given))

    rows = tuple(cheated(row) for row in honest.result.rows)
    verdict = look(verify.Claim(dataclasses.replace(honest.result, rows=rows), TASK, honest.mode), 20)
    assert any("of click 2" in deviation.reason for deviation in verdict.deviations)


class Tied:
    """A model that goes on from a mask of before, and holds its three masks for equally good but for ``noise``."""

    spec = dataclasses.replace(SPEC, name="tied", accepts=frozenset({"points", "feedback"}))

    def __init__(self, noise: float) -> None:
        self._noise = noise

    def embed(self, images: Sequence[Image]) -> list[Any]:
        """Return blurred images."""
        return Smooth().embed(images)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each request: all cuts lower after a mask of a low cut."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Prediction:
        cuts = np.array([0.5, 0.6, 0.7])
        if request.state is not None:
            cuts = (cuts + request.state[request.candidate]) / 2
        scores = 0.9 + np.random.default_rng(zlib.crc32(request.prompt.key)).normal(0, self._noise, 3)
        return Prediction(request.embedding > cuts[:, None, None], scores.astype(np.float32), cuts)


def test_a_sample_is_held_against_the_images_that_it_looked_at() -> None:
    """The first of the seeded order, as ``--seg-limit`` takes them, and not those that somebody chose."""
    whole = claim(modes.BOX_EACH, Smooth())
    about = {**whole.result.provenance.json, "dataset": {"name": "blobs"}}
    ids = jobs.seeded_order(Blobs().ids(), "blobs", 3)

    def sample(chosen: Sequence[str]) -> verify.Claim:
        rows = tuple(row for row in whole.result.rows if row.case_id in chosen)
        return verify.Claim(
            dataclasses.replace(whole.result, rows=rows, n_examined=40, provenance=Provenance.from_json(about)),
            TASK,
            whole.mode,
        )

    assert look(sample(ids[:40]), N).holds
    verdict = look(sample(ids[40:80]), N)
    assert {d.reason for d in verdict.deviations} == {"belongs to the task, but is not claimed"}


@pytest.mark.parametrize("mode", [modes.CLICKS_CONFIDENT, modes.CLICKS_ORACLE, modes.NOC], ids=lambda m: m.name)
def test_a_tie_between_candidates_leads_on_from_the_claimed_one(mode: PromptMode) -> None:
    """The clicks and the masks after it depend on which of the two another machine took."""
    claimed = claim(mode, Tied(noise=1e-3))
    [verdict] = verify.verify(Tied(noise=0), Blobs(), [claimed], Blobs().ids(), N)
    assert verdict.n_checked > N // 2
    assert verdict.holds, verdict.deviations[:3]
    raised = edited(claimed, 1.0, 0.1)
    [verdict] = verify.verify(Tied(noise=0), Blobs(), [raised], Blobs().ids(), N)
    assert len(verdict.deviations) == verdict.n_checked


# --- as a command -------------------------------------------------------------------------------------------


@pytest.fixture
def scored(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the results folder of a run of ``bright`` on ``squares``; the working folder is the project's."""
    project.run(
        "--seg-models", "bright,box_fill", "--seg-tasks", "squares", "--seg-modes", "box_all,clicks_first", code=0
    )
    monkeypatch.chdir(project.pytester.path)
    monkeypatch.syspath_prepend(project.pytester.path)
    results: Path = project.pytester.path / "leaderboard" / "results"
    return results


def ask(*arguments: object, code: int) -> str:
    """Run ``promptseg`` in this process and return all that it printed."""
    from typer.testing import CliRunner

    from promptseg.cli import main

    result = CliRunner().invoke(main.app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_tells_what_it_found(scored: Path) -> None:
    """Honest results hold; an edited one is named with claimed and found IoU; other data are not checked."""
    assert "Every case that was decoded again is as claimed." in ask("verify", scored, "--cases", "10", code=0)
    store = ResultStore(scored)
    result = store.latest(Cell("bright", "squares", "box_all"))
    assert result is not None
    rows = tuple(
        dataclasses.replace(row, iou_confident=0.9, candidate_iou=None) if row.case_id == "case_03" else row
        for row in result.rows
    )
    store.save(dataclasses.replace(result, rows=rows))
    text = ask("verify", scored, "--cases", "10", "--seed", "7", code=1)
    assert "bright-squares-box_all: case 'case_03': IoU of the confident mask, claimed 0.9000, found 0." in text
    assert "--seed 7" in text
    (scored.parents[1] / "squares" / "images" / "case_00.png").unlink()
    (scored.parents[1] / "squares" / "masks" / "case_00.png").unlink()
    assert "other images or masks than those on this machine" in ask("verify", scored, code=1)
