"""Candidate masks on disk: COCO's form, merged and resumed as results are; and the option that keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from support.project import Project

from promptseg.errors import ResultsError
from promptseg.results.masks import MaskStore, SavedMask, encoded
from promptseg.segmenter import Prediction
from promptseg.specs import Cell

pytest.importorskip("pycocotools")

CELL, FINGERPRINT = Cell("m", "t", "noc"), "ab" * 32
MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9))


def answer(*rows: str, scores: list[float] | None = None) -> Prediction:
    """Return a prediction of 1 x N masks: ``#`` is True."""
    masks = np.array([[[pixel == "#" for pixel in row]] for row in rows])
    return Prediction(masks, None if scores is None else np.array(scores, dtype=np.float32))


def told(store: MaskStore) -> dict[str, list[list[bool]]]:
    """Return the stored masks of 1 x N pixels by case."""
    found: dict[str, list[list[bool]]] = {}
    for saved in store.read(CELL, FINGERPRINT):
        found.setdefault(saved.case_id, []).append(saved.mask()[0].tolist())
    return found


@pytest.fixture
def store(tmp_path: Path) -> MaskStore:
    """Return the masks of an empty results folder; what it tells is an error."""

    def fail(text: str) -> None:
        raise AssertionError(text)

    return MaskStore(tmp_path, fail)


@settings(deadline=None)
@given(MASKS)
def test_masks_come_back_as_they_were(masks: npt.NDArray[np.bool_]) -> None:
    """Any shape, empty and full ones too, and in the form that COCO's tools read."""
    from pycocotools import mask as coco

    saved = encoded("a", 0, [Prediction(masks)])
    for one, before in zip(saved, masks, strict=True):
        assert np.array_equal(one.mask(), before)
        assert coco.area({"size": [one.height, one.width], "counts": one.counts}) == before.sum()


def test_each_candidate_of_each_prompt_is_named() -> None:
    """Boxes that are decoded one by one keep their masks apart, with the estimate of each."""
    saved = encoded("a", 3, [answer("#.", ".#", scores=[0.5, 0.25]), answer("##")])
    assert [(s.click, s.prompt, s.candidate, s.predicted_iou) for s in saved] == [
        (3, 0, 0, 0.5),
        (3, 0, 1, 0.25),
        (3, 1, 0, None),
    ]


def test_masks_of_several_processes_become_one_file(store: MaskStore, tmp_path: Path) -> None:
    """Journals are merged with what was stored before, sorted, and dropped; older versions too."""
    store.journal(CELL, FINGERPRINT).append("b", encoded("b", 0, [answer("#.")]))
    store.save(CELL, FINGERPRINT)
    store.journal(CELL, FINGERPRINT).append("a", encoded("a", 0, [answer("##", "..")]))
    store.journal(CELL, FINGERPRINT).append("c", encoded("c", 0, [answer(".#")]))
    assert store.cases(CELL, FINGERPRINT) == {"a", "b", "c"}
    store.save(CELL, FINGERPRINT)
    assert told(store) == {"a": [[True, True], [False, False]], "b": [[True, False]], "c": [[False, True]]}
    (path,) = (tmp_path / "m" / "t" / ".masks").iterdir()
    assert path.name == f"noc-{FINGERPRINT[:16]}.000001.parquet"
    assert pq.read_table(path).column_names == list(SavedMask.__slots__)


def test_a_case_that_is_saved_again_replaces_the_older_masks(store: MaskStore) -> None:
    """As its rows do."""
    for row in ("#.", ".#"):
        store.journal(CELL, FINGERPRINT).append("a", encoded("a", 0, [answer(row)]))
        store.save(CELL, FINGERPRINT)
    assert told(store) == {"a": [[False, True]]}


def test_a_line_cut_short_is_no_case(store: MaskStore, tmp_path: Path) -> None:
    """Kill -9 in the middle of a write loses that case and no other."""
    journal = store.journal(CELL, FINGERPRINT)
    journal.append("a", encoded("a", 0, [answer("#.")]))
    journal.append("b", encoded("b", 0, [answer("#.")]))
    (path,) = (tmp_path / "m" / "t" / ".masks").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert store.cases(CELL, FINGERPRINT) == {"a"}


def test_a_file_that_cannot_be_read_is_named(store: MaskStore) -> None:
    """It is never overwritten: it may hold what cannot be made again."""
    store.journal(CELL, FINGERPRINT).append("a", encoded("a", 0, [answer("#.")]))
    store.save(CELL, FINGERPRINT)
    (path,) = store.versions(CELL, FINGERPRINT)
    path.write_bytes(b"noise")
    with pytest.raises(ResultsError, match="cannot be read"):
        store.cases(CELL, FINGERPRINT)


def saved_by(project: Project, mode: str) -> list[SavedMask]:
    """Return what a run of the project saved in one mode."""
    results = project.pytester.path / "leaderboard" / "results"
    about = pq.read_schema(results / "bright" / "squares" / f"{mode}.parquet").metadata[b"promptseg"]
    cell = Cell("bright", "squares", mode)
    return MaskStore(results, print).read(cell, json.loads(about)["fingerprint"])


RUN = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_each,clicks_first", "--seg-save-masks")


def test_the_option_keeps_every_candidate_of_every_row(project: Project) -> None:
    """Two candidates for each box, and for each of nine clicks; without the option nothing is kept."""
    project.run(*RUN[:-1])
    assert saved_by(project, "box_each") == []
    project.run(*RUN)
    static, clicks = saved_by(project, "box_each"), saved_by(project, "clicks_first")
    assert [(s.case_id, s.click, s.prompt, s.candidate) for s in static[:3]] == [
        ("case_00", 0, 0, 0),
        ("case_00", 0, 0, 1),
        ("case_01", 0, 0, 0),
    ]
    assert (len(static), len(clicks)) == (10 * 2, 10 * 9 * 2)
    assert static[1].mask().all()
    assert [s.predicted_iou for s in static[:2]] == pytest.approx([0.9, 0.1])


def test_only_cases_without_masks_are_evaluated_again(project: Project) -> None:
    """Results of a run without the option give no masks; those of a sample are there already."""
    project.run(*RUN, "--seg-limit", "4")
    project.calls("embed")
    project.run(*RUN)
    assert len(project.calls("embed")) == 6
    project.run(*RUN)
    assert project.calls("embed") == []
    assert len({saved.case_id for saved in saved_by(project, "box_each")}) == 10


def test_scores_are_the_same_with_and_without(project: Project) -> None:
    """Keeping masks is not another result: the scores agree and nothing is evaluated twice."""
    with_masks = project.scores(*RUN)
    project.calls("embed")
    assert project.scores(*RUN[:-1]) == with_masks
    assert project.calls("embed") == []


def test_without_its_package_the_option_is_a_usage_error(project: Project) -> None:
    """Said before anything is evaluated, with the command that helps."""
    project.pytester.makeconftest(
        """
        import importlib.util
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: None if name == "pycocotools" else real(name, *more)
        """
    )
    result = project.pytester.runpytest_subprocess("-p", "no:cacheprovider", *RUN)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--seg-save-masks needs the package pycocotools: pip install 'pytest-promptseg?masks?'*"]
    )


def test_masks_of_some_cases_are_read_alone(store: MaskStore) -> None:
    """Whoever wants to look at a few cases need not decode those of a whole data set."""
    for case in "cab":
        store.journal(CELL, FINGERPRINT).append(case, encoded(case, 0, [answer("#.", ".#")]))
    store.save(CELL, FINGERPRINT)
    found = store.read(CELL, FINGERPRINT, ["c", "b", "z"])
    assert [(s.case_id, s.candidate) for s in found] == [("b", 0), ("b", 1), ("c", 0), ("c", 1)]
    assert store.read(CELL, FINGERPRINT, []) == []
