"""The published numbers: transcribed without a slip, and thresholds that follow from them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping

import pytest
from support.paths import SHARED

from promptseg import registry
from promptseg.leaderboard import paper
from promptseg.leaderboard.paper import GUIDES, MODELS, STATIC
from promptseg.specs import Cell, MaskChoice

TABLES = SHARED / "paper"
NAMES = [  # the project's names of the study's tasks, in the order of its Tables 1 and 2
    "mri_spine_gm",
    "mri_spine_cord",
    "mri_heart",
    "mri_prostate",
    "mri_brain_core",
    "mri_brain_edema",
    "mri_brain_enhancing",
    "mri_breast_whole",
    "mri_breast_fgt",
    "xray_chest",
    "xray_hip_ilium",
    "xray_hip_femur",
    "us_breast",
    "us_kidney",
    "us_muscle",
    "us_nerve",
    "us_ovarian_tumor",
    "ct_colon",
    "ct_hepatic_vessel",
    "ct_pancreas",
    "ct_spleen",
    "ct_liver",
    "ct_organ_liver",
    "ct_organ_bladder",
    "ct_organ_lung",
    "ct_organ_kidney",
    "ct_organ_bone",
    "pet_whole_body",
]
CURVES = {  # key of paper.toml -> file, column of the table of means
    "sam_first": ("sam", "SAM"),
    "sam_oracle": ("sam_oracle", "SAM (oracle)"),
    "ritm": ("ritm", "RITM"),
    "simpleclick": ("simpleclick", "SimpleClick"),
    "focalclick": ("focalclick", "FocalClick"),
}
DIGITS = 5.1e-7  # what rounding to six digits may change

published_tables = pytest.mark.skipif(not TABLES.is_dir(), reason=f"the published tables are not at {TABLES}")


def _rows(name: str) -> list[dict[str, str]]:
    with (TABLES / f"{name}.csv").open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def _values(task: str, key: str) -> tuple[float, ...]:
    return paper.tasks()[task].values[key]


def _means(key: str) -> list[float]:
    """Return the means over tasks, of each mode or click."""
    return [sum(column) / len(NAMES) for column in zip(*(_values(task, key) for task in NAMES), strict=True)]


# --- transcribed --------------------------------------------------------------------------------------------


def test_the_tasks_are_the_28() -> None:
    """Each has a value for every mode, click and method, all of them IoUs."""
    assert list(paper.tasks()) == NAMES
    for name, task in paper.tasks().items():
        lengths = {key: len(values) for key, values in task.values.items()}
        assert lengths == {"modes_first": 5, "modes_oracle": 5, **dict.fromkeys(CURVES, paper.CLICKS)}, name
        assert all(0 < value < 1 for values in task.values.values() for value in values), name


@pytest.mark.real
@published_tables
def test_numbers_of_the_modes_are_the_published_ones() -> None:
    """28 tasks, 5 modes, 2 choices of mask, and no row of the published table left over."""
    rows = {row["Dataset_names"]: row for row in _rows("sam_static_modes")}
    assert sorted(task.in_modes for task in paper.tasks().values()) == sorted(rows)
    for name, task in paper.tasks().items():
        columns = [title for title in rows[task.in_modes] if title.startswith("Mode ")]
        for key, oracle in (("modes_first", False), ("modes_oracle", True)):
            wanted = [float(rows[task.in_modes][title]) for title in columns if ("(oracle)" in title) == oracle]
            assert task.values[key] == pytest.approx(wanted, abs=DIGITS), name


@pytest.mark.real
@published_tables
@pytest.mark.parametrize("key", CURVES)
def test_curves_are_the_published_ones(key: str) -> None:
    """28 tasks, 9 clicks, each method, and no column of the published table left over."""
    rows = _rows(f"{CURVES[key][0]}_iou_per_click")
    assert sorted(task.in_clicks for task in paper.tasks().values()) == sorted(set(rows[0]) - {"Num of points"})
    for name, task in paper.tasks().items():
        assert task.values[key] == pytest.approx([float(row[task.in_clicks]) for row in rows], abs=DIGITS), name


@pytest.mark.real
@published_tables
@pytest.mark.parametrize("key", CURVES)
def test_published_means_are_those_of_the_tasks(key: str) -> None:
    """So each task counts the same, and no column was swapped with another."""
    wanted = [float(row[CURVES[key][1]]) for row in _rows("mean_iou_per_click")]
    assert _means(key) == pytest.approx(wanted, abs=DIGITS)


@pytest.mark.real
@published_tables
def test_numbers_of_masks_are_the_published_ones() -> None:
    """Each data set of Tables 1 and 2, with its number of masks."""
    text = (TABLES / "paper.txt").read_text(encoding="utf-8")
    rows = re.findall(r"^((?:MRI|Xray|US|CT|PET)-[\w-]+)\t.*\t([\d,]+)$", text, re.MULTILINE)
    wanted = {name: int(count.replace(",", "")) for name, count in rows}
    assert len(wanted) == 19
    assert {task.dataset: task.n_masks for task in paper.tasks().values()} == wanted


# --- looked up ----------------------------------------------------------------------------------------------


def test_a_published_number_by_hand() -> None:
    """A mode's value is the table's; a click mode's the mean of its nine."""
    kidney = Cell("sam_vit_h", "us_kidney", "box_each")
    assert paper.published(kidney, "first") == 0.772260
    assert paper.published(kidney, "oracle") == 0.866529
    clicks = Cell("sam_vit_h", "us_kidney", "clicks_first")
    curve = paper.curve(clicks, "first")
    assert curve is not None
    assert curve[0] == 0.554015
    assert paper.published(clicks, "first") == pytest.approx(sum(curve) / 9)


@pytest.mark.parametrize(
    ("cell", "select"),
    [
        (("sam_vit_h", "us_kidney", "box_each"), "confident"),
        (("sam_vit_h", "us_kidney", "clicks_confident"), "confident"),
        (("sam_vit_h", "us_kidney", "clicks_first"), "oracle"),
        (("sam_vit_h", "us_kidney", "noc"), "first"),
        (("sam_vit_b", "us_kidney", "box_each"), "first"),
        (("ritm_hrnet32", "us_kidney", "point_largest"), "first"),
        (("sam_vit_h", "phantom_ct", "box_each"), "first"),
    ],
)
def test_what_was_not_published_has_no_number(cell: tuple[str, str, str], select: MaskChoice) -> None:
    """Another choice of mask than the guide, another model, mode or task."""
    assert paper.published(Cell(*cell), select) is None


@pytest.mark.parametrize("mode", GUIDES)
def test_one_mask_is_the_first_the_confident_and_the_best(mode: str) -> None:
    """The curve of a method with one candidate is that of each click mode, under both names of its model."""
    cells = [Cell(model, "ct_liver", mode) for model in ("ritm_hrnet32", "ritm_hrnet32_paper2023")]
    assert [paper.curve(cell, GUIDES[mode]) for cell in cells] == [_values("ct_liver", "ritm")] * 2


# --- thresholds ---------------------------------------------------------------------------------------------


def test_every_published_number_is_a_threshold_that_ships() -> None:
    """Of SAM five modes and two guides, of six others three click modes, on 28 tasks."""
    found, shipped = paper.thresholds(), paper.shipped()
    assert len(found) == 28 * (5 + 2 + 6 * 3)
    assert {cell: shipped[cell] for cell in found} == found
    assert {cell.model for cell in found} == set(MODELS)


def test_thresholds_hold_a_mode_to_its_guide_and_name_their_source() -> None:
    """A static mode is held to candidate 0; no mode is one that the registry does not have."""
    modes = registry.build().modes
    for cell, threshold in paper.thresholds().items():
        assert threshold.select == (modes[cell.mode].get().guide or "first"), cell
        assert threshold.value == paper.published(cell, threshold.select), cell
        assert threshold.tolerance == 0.02
    found = paper.thresholds()
    assert found[Cell("sam_vit_h", "us_kidney", "box_each")].source == "paper, Fig. 2, mode 4, candidate 0"
    assert (
        found[Cell("sam_vit_h", "us_kidney", "clicks_oracle")].source
        == "paper, Fig. 5, SAM by oracle, mean of 9 clicks"
    )
    assert found[Cell("ritm_hrnet32", "us_kidney", "clicks_first")].source == (
        "paper, Fig. 5 and 17, RITM, mean of 9 clicks, of ritm_hrnet32_paper2023"
    )


def test_thresholds_speak_of_the_published_cases() -> None:
    """Of exactly so many where the data set has one task; else of whole data sets that are no larger."""
    kidney = paper.thresholds()[Cell("sam_vit_h", "us_kidney", "box_each")]
    assert (kidney.n, kidney.at_most) == (4586, None)
    spine = paper.thresholds()[Cell("sam_vit_h", "mri_spine_gm", "box_each")]
    assert (spine.n, spine.at_most) == (None, 551)


def test_the_tolerance_is_more_than_the_study_differs_from_itself() -> None:
    """Mode 1 and first click are one point: SAM's numbers differ by up to 0.015 where the column is no copy (D20)."""
    copied = ("mri_breast_whole", "mri_breast_fgt")
    gaps = [abs(_values(t, "modes_first")[0] - _values(t, "sam_first")[0]) for t in NAMES]
    gaps += [abs(_values(t, "modes_oracle")[0] - _values(t, "sam_oracle")[0]) for t in NAMES if t not in copied]
    assert max(gaps) == pytest.approx(0.015, abs=5e-4)
    assert max(gaps) < paper.TOLERANCE


# --- disagreements ------------------------------------------------------------------------------------------


def test_disagreements_are_numbered_and_about_what_exists() -> None:
    """D1, D2, ... without a gap; each says what is done here, and what at least one source says; names are known."""
    found = paper.disagreements()
    assert [d.name for d in found] == [f"D{i}" for i in range(1, len(found) + 1)]
    for d in found:
        assert d.here, d.name
        assert d.text or d.code or d.tables, d.name
        assert set(d.tasks) <= set(NAMES), d.name
        assert set(d.models) <= set(MODELS), d.name
        assert set(d.modes) <= {*STATIC, *GUIDES}, d.name


def _fallen(key: str) -> str:
    """Return in how many tasks the last click is more than 0.01 below the best."""
    return str(sum(max(_values(task, key)) - _values(task, key)[-1] > 0.01 for task in NAMES))


def _passes(key: str) -> int:
    """Return the first click after which a method's mean is above SAM's."""
    return next(i for i, (a, b) in enumerate(zip(_means(key), _means("sam_first"), strict=True), 1) if a > b)


def _leads(key: str) -> int:
    """Return in how many tasks SAM's first value is above that of each other method's first click."""
    rivals = ("ritm", "simpleclick", "focalclick")
    return sum(all(_values(t, key)[0] > _values(t, rival)[0] for rival in rivals) for t in NAMES)


def _highest(key: str) -> str:
    best = max(NAMES, key=lambda task: _values(task, key)[0])
    return f"{paper.tasks()[best].in_clicks} is, {_values(best, key)[0]:.4f}"


def _mode_4(task: str) -> str:
    return f"{_values(task, 'modes_first')[3]:.3f} and {_values(task, 'modes_oracle')[3]:.3f}"


CLAIMS: Mapping[str, list[Callable[[], str]]] = {
    "D2": [lambda: f"US-Muscle {_mode_4('us_muscle')}", lambda: f"US-Nerve {_mode_4('us_nerve')}"],
    "D3": [lambda: f"in {_fallen('sam_first')} of 28 tasks"],
    "D13": [lambda: _highest("sam_first"), lambda: _highest("modes_first")],
    "D14": [lambda: "{:,} to {:,} masks".format(*_extremes())],
    "D16": [
        lambda: f"at five SAM has {_means('sam_first')[4]:.4f}",
        lambda: f"RITM {_means('ritm')[4]:.4f}, SimpleClick {_means('simpleclick')[4]:.4f}",
    ],
    "D17": [lambda: f"{_means('sam_oracle')[0]:.4f} as first click, {_means('modes_oracle')[0]:.4f} as mode 1"],
    "D18": [
        lambda: f"{min(_values(task, 'modes_first')[0] for task in NAMES):.4f} as modes 1 and 2",
        lambda: f"{min(_values(task, 'sam_first')[0] for task in NAMES):.4f} as first click",
    ],
    "D20": [
        lambda: (
            f"{_values('mri_breast_whole', 'modes_first')[0]:.3f} and, by oracle, "
            f"{_values('mri_breast_whole', 'modes_oracle')[0]:.3f}"
        ),
        lambda: f"in {_leads('modes_oracle')} of 28 tasks at one point, not in {_leads('sam_oracle')}",
    ],
    "D21": [
        lambda: f"{_values('mri_spine_gm', 'sam_oracle')[0]:.5f} at the first click",
        lambda: f"below the {_values('mri_spine_gm', 'sam_first')[0]:.5f} of candidate 0",
    ],
}


def _extremes() -> tuple[int, int]:
    masks = [task.n_masks for task in paper.tasks().values()]
    return min(masks), max(masks)


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_disagreement_says_of_the_tables_is_so(name: str) -> None:
    """Each number in it is computed again from the table."""
    [found] = [d for d in paper.disagreements() if d.name == name]
    for claim in CLAIMS[name]:
        assert claim() in found.tables


def test_other_methods_pass_sam_at_six_and_nine_clicks() -> None:
    """D16: RITM and SimpleClick at six, FocalClick at nine; D3: RITM never falls behind its own best."""
    assert [_passes(key) for key in ("ritm", "simpleclick", "focalclick")] == [6, 6, 9]
    assert _fallen("ritm") == "0"


def test_where_the_text_and_the_tables_agree() -> None:
    """SAM leads at one point in 24 tasks, mode 4 has 0.6542 and is best, and the range is 0.9118 to 0.1136."""
    assert _leads("sam_first") == 24
    modes = _means("modes_first")
    assert max(modes) == modes[3] == pytest.approx(0.6542, abs=5e-5)
    assert max(_values(task, "modes_first")[3] for task in NAMES) == pytest.approx(0.9118, abs=5e-5)
    assert [round(_means(key)[0], 4) for key in ("sam_first", "focalclick", "simpleclick", "ritm")] == [
        0.4595,
        0.2240,
        0.1910,
        0.1322,
    ]


def test_the_oracle_columns_of_mri_breast_are_copies() -> None:
    """D20: equal at all nine clicks for the breast and its tissue, and for no other task."""
    equal = [task for task in NAMES if _values(task, "sam_first") == _values(task, "sam_oracle")]
    assert equal == ["mri_breast_whole", "mri_breast_fgt"]
    lost = sum(_values(task, "modes_oracle")[0] - _values(task, "sam_oracle")[0] for task in equal) / len(NAMES)
    assert 0.8 < lost / (_means("modes_oracle")[0] - _means("sam_oracle")[0]) < 1  # D17: most of the difference


def test_the_oracle_is_below_the_first_once() -> None:
    """D21: at the first click of one task, and in no mode."""
    below = [t for t in NAMES if _values(t, "sam_oracle")[0] < _values(t, "sam_first")[0]]
    assert below == ["mri_spine_gm"]
    pairs = [zip(_values(t, "modes_first"), _values(t, "modes_oracle"), strict=True) for t in NAMES]
    assert all(first <= oracle for pair in pairs for first, oracle in pair)


def test_what_a_disagreement_touches() -> None:
    """All that it names must fit; what it does not name is no condition."""
    named = {d.name: d for d in paper.disagreements()}
    cell = Cell("sam_vit_h", "mri_breast_fgt", "clicks_oracle")
    touching = {name for name, d in named.items() if d.touches(cell)}
    assert {"D1", "D2", "D3", "D11", "D20"} <= touching
    assert not {"D4", "D5", "D8", "D15", "D21", "D22"} & touching
