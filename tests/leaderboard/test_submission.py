"""``promptseg submit``: what may be contributed, what is written, and how it reaches the Hub beside others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.hub_server import Fault, HubServer, Reply
from typer.testing import CliRunner

from promptseg.cli import main
from promptseg.errors import ResultsError
from promptseg.leaderboard import submission
from promptseg.results.parquet import read_parquet, write_parquet
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import Cell
from promptseg.verdicts import baselines

ABOUT: Mapping[str, Any] = {
    "protocol": ["paper", 1],
    "model": {
        "name": "m",
        "licence": "MIT",
        "sha256": {"weights": "a" * 64},
        "revision": "b" * 40,
        "training_data": ["us_kidney"],
        "sees_target": False,
    },
    "dataset": {"name": "d", "fingerprint": "f", "licence": "CC0"},
    "mode": {"select": None, "guide": None},
    "task": {},
    "seed": 0,
    "device": "cpu",
    "dtype": "float32",
    "versions": {"python": "3.11"},
    "date": "2026-01-31",
    "n_images": 3,
}
ROWS = tuple(
    ResultRow(
        case_id=f"c{i}",
        subject_id=f"c{i}",
        iou_first=iou,
        iou_confident=0.6,
        iou_oracle=0.75,
        candidate_iou=[iou, 0.6, 0.75],
    )
    for i, iou in enumerate((0.5, 0.25, 0.75))
)
RESULT = CellResult(
    cell=Cell("m", "t", "box_all"),
    fingerprint="c" * 64,
    rows=ROWS,
    n_examined=3,
    provenance=Provenance.from_json(ABOUT),
)


def keep(root: Path, result: CellResult = RESULT) -> Path:
    """Write a result where a results folder has it."""
    cell = result.cell
    write_parquet(root / cell.model / cell.task / f"{cell.mode}.parquet", result)
    return root


def ask(*arguments: object, code: int = 0) -> str:
    """Run ``promptseg submit``."""
    result = CliRunner().invoke(main.app, ["submit", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_the_schema_is_one() -> None:
    """It keeps the rules of JSON schema itself."""
    jsonschema.Draft202012Validator.check_schema(submission.schema())


def test_a_submission_is_rows_and_a_document_that_keeps_the_schema(tmp_path: Path) -> None:
    """Means as computed by hand; the rows are those that were stored; the folder is one that can be submitted again."""
    text = ask(keep(tmp_path / "results"), "--output", tmp_path / "made")
    assert "submission (1 cell)" in text
    document = json.loads((tmp_path / "made" / "submission.json").read_text())
    jsonschema.validate(document, submission.schema())
    [cell] = document["cells"]
    assert cell["iou"] == {"first": 0.5, "confident": pytest.approx(0.6), "oracle": 0.75}
    rows = tmp_path / "made" / cell["file"]
    assert hashlib.sha256(rows.read_bytes()).hexdigest() == cell["sha256"]
    assert read_parquet(rows) == read_parquet(tmp_path / "results" / "m" / "t" / "box_all.parquet")
    assert list(submission.found(tmp_path / "made")) == [rows]


def test_what_the_document_claims_is_held_against_the_files(tmp_path: Path) -> None:
    """Another mean, another file of rows, one more and one less are named; a results folder claims nothing so."""
    made = tmp_path / "made"
    ask(keep(tmp_path / "results"), "--output", made)
    assert submission.altered(made) == submission.altered(tmp_path / "results") == []
    document = json.loads((made / "submission.json").read_text())
    document["cells"][0]["iou"]["oracle"] += 0.1
    document["cells"].append({**document["cells"][0], "file": "results/gone.parquet"})
    (made / "submission.json").write_text(json.dumps(document))
    keep(made / "results", dataclasses.replace(RESULT, cell=Cell("m", "t", "box_each")))
    assert submission.altered(made) == [
        "results/gone.parquet: claimed in submission.json, but not there",
        "results/m/t/box_each.parquet: not claimed in submission.json",
        "results/m/t/box_all.parquet: iou not as claimed in submission.json",
    ]
    keep(made / "results", _row(iou_first=0.4, candidate_iou=[0.4, 0.6, 0.75]))
    assert "results/m/t/box_all.parquet: sha256, iou not as claimed in submission.json" in submission.altered(made)
    (made / "submission.json").write_text("[]")
    assert ["no document" in line for line in submission.altered(made)] == [True]


def test_a_submission_is_taken_where_a_results_folder_is(tmp_path: Path) -> None:
    """As a baseline, and on the board."""
    ask(keep(tmp_path / "results"), "--output", tmp_path / "made")
    found = baselines.locate("made", tmp_path / "none", tmp_path)
    assert (found.root, len(found.read().results)) == (tmp_path / "made" / "results", 1)
    board = tmp_path / "board.md"
    done = CliRunner().invoke(main.app, ["leaderboard", str(tmp_path / "made"), "--output", str(board)])
    assert "leaderboard (1 cell)" in done.output


def _row(**changes: Any) -> CellResult:
    return dataclasses.replace(RESULT, rows=(dataclasses.replace(ROWS[0], **changes), *ROWS[1:]))


def _about(**changes: Any) -> CellResult:
    return dataclasses.replace(RESULT, provenance=Provenance.from_json({**ABOUT, **changes}))


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (dataclasses.replace(RESULT, rows=ROWS[:2], n_examined=2), "a sample: 2 of 3 images"),
        (_about(n_images=None), "number of images in the data set was not recorded"),
        (_about(model={**ABOUT["model"], "sees_target": True}), "sees the target"),
        (
            _row(error="torn", iou_first=None, iou_confident=None, iou_oracle=None, candidate_iou=None),
            "1 cases failed, such as 'c0'",
        ),
        (dataclasses.replace(RESULT, rows=()), "no cases"),
        (_row(iou_confident=None), "not numbers from 0 to 1"),
        (_row(iou_first=0.76, candidate_iou=None), "better than the best"),
        (_row(iou_oracle=0.9), "are not those of the candidates"),
        (_row(iou_confident=0.61), "is that of no candidate"),
        (_about(protocol=["paper", 2]), "m-t-box_all/provenance/protocol/1: 1 was expected"),
        (_about(model={"name": "m"}), "m-t-box_all/provenance/model: 'licence' is a required property"),
        (
            dataclasses.replace(_about(model={**ABOUT["model"], "name": "M"}), cell=Cell("M", "t", "box_all")),
            "'M' does not match",
        ),
    ],
)
def test_what_cannot_be_submitted_is_told_and_nothing_is_written(
    tmp_path: Path, result: CellResult, reason: str
) -> None:
    """A sample, failures, references, rows that contradict themselves, and what the schema forbids."""
    text = ask(keep(tmp_path / "results", result), "--output", tmp_path / "made", code=1)
    assert "Nothing was written" in text
    assert reason in text
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (dataclasses.replace(RESULT, rows=(*ROWS, ROWS[0])), "'c0' is there twice"),
        (_row(iou_confident=1.2), "not numbers from 0 to 1"),
        (_row(iou_confident=float("nan")), "not numbers from 0 to 1"),
    ],
)
def test_what_no_evaluation_gives_is_refused_when_it_is_read(tmp_path: Path, result: CellResult, reason: str) -> None:
    """By name of the file; nothing is written."""
    text = ask(keep(tmp_path / "results", result), "--output", tmp_path / "made", code=1)
    assert "box_all.parquet is not a readable result" in text
    assert reason in text
    assert not (tmp_path / "made").exists()


def test_nothing_is_overwritten_and_an_empty_folder_says_so(tmp_path: Path) -> None:
    """A second submission needs another folder; a folder without results names what it looked for."""
    (tmp_path / "made").mkdir()
    assert "exists already" in ask(keep(tmp_path / "results"), "--output", tmp_path / "made", code=1)
    with pytest.raises(ResultsError, match=r"MODEL/TASK/MODE\.parquet"):
        submission.found(tmp_path / "made")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # how huggingface_hub calls its HTTP client
@pytest.mark.parametrize("status", [409, 412])
def test_a_submission_reaches_the_hub_beside_those_of_others(
    tmp_path: Path, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Who is refused because somebody else wrote meanwhile tries again on top of the new commit."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the server speaks plain HTTP only
    monkeypatch.setattr("promptseg.files.hub.time.sleep", lambda _: None)
    hub_server.faults.append(Fault("POST .*/commit/main", times=2, reply=Reply(status)))
    text = ask(keep(tmp_path / "results"), "--output", tmp_path / "made", "--push", "lab/board")
    assert "of lab/board" in text
    digest = hashlib.sha256((tmp_path / "made" / "submission.json").read_bytes()).hexdigest()[:16]
    files = hub_server.repositories["dataset lab/board"].files
    assert set(files) == {f"submissions/{digest}/{name}" for name in ("submission.json", "results/m/t/box_all.parquet")}
    commits = [json.loads(r.body.splitlines()[0]) for r in hub_server.requests if "/commit/main" in r.path]
    assert len(commits) == 3
    assert all(len(commit["value"]["parentCommit"]) == 40 for commit in commits)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_hub_that_goes_on_refusing_is_an_error(
    tmp_path: Path, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The submission stays on disk; the message says what to do."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the server speaks plain HTTP only
    monkeypatch.setattr("promptseg.files.hub.time.sleep", lambda _: None)
    hub_server.faults.append(Fault("POST .*/commit/main", reply=Reply(412)))
    text = ask(keep(tmp_path / "results"), "--output", tmp_path / "made", "--push", "lab/board", code=1)
    assert "could not be uploaded" in text
    assert "Others write to it at the same time" in text
    assert len(hub_server.asked("/commit/main")) == 5
    assert (tmp_path / "made" / "submission.json").is_file()
