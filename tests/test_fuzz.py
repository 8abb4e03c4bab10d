"""Damaged and made-up files: a right answer or a clear error, never a wrong number. See scripts/checks/fuzz.py."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.script_modules import load_script

from promptseg.errors import ResultsError
from promptseg.registry import config
from promptseg.results.masks import MaskStore, encoded
from promptseg.results.parquet import read_parquet
from promptseg.results.store import JOURNALS, ResultStore
from promptseg.segmenter import Prediction
from promptseg.verdicts import thresholds

pytest.importorskip("pycocotools")
fuzz = load_script("fuzz")

SEEDS = {name: begin() for name, (_, begin) in fuzz.TARGETS.items()}
HEADS = [
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"II*\x00",
    b"MM\x00*",
    b"BM",
    b"GIF89a",
    b"P5\n",
    b"RIFF\x10\x00\x00\x00WEBP",
]


@pytest.fixture(autouse=True)
def _pillow_may_warn() -> Any:
    """Pillow warns about tags and sizes of damaged files before it refuses them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_what_was_written_is_read(target: str) -> None:
    """Else the tests below would damage what nobody reads. Some of the pictures are no masks, such as JPEG."""
    answers = [fuzz.survives(target, data) for data in SEEDS[target]]
    assert sum(answers) >= (10 if target == "mask" else len(answers))


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_file_that_ends_early_is_refused_or_clean(target: str) -> None:
    """Cut after every byte; of the long ones after some."""
    for data in SEEDS[target]:
        for size in range(0, len(data), 1 + len(data) // 400):
            fuzz.survives(target, data[:size])


@pytest.mark.parametrize("target", fuzz.TARGETS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_clean(target: str, data: st.DataObject) -> None:
    """Some bytes are others, a part is missing, or something was put between."""
    file = bytearray(data.draw(st.sampled_from(SEEDS[target])))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(file)))
        file[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    fuzz.survives(target, bytes(file))


@pytest.mark.parametrize("target", ["image", "mask"])
@settings(max_examples=100, deadline=None)
@given(head=st.sampled_from(HEADS), rest=st.binary(max_size=200))
def test_made_up_images_are_refused_or_clean(target: str, head: bytes, rest: bytes) -> None:
    """The first bytes of a format, and nothing of it behind them."""
    fuzz.survives(target, head + rest)


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=4,
)
KEYS = st.sampled_from([*config.DATASET_KEYS, *config.MODEL_KEYS, *thresholds._KEYS, *thresholds._OPTIONAL])


def toml(value: object) -> str:
    """Return a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return json.dumps(value).replace("\x7f", "")


@pytest.mark.parametrize(
    ("target", "tables"), [("config", ["datasets.a", "models.b"]), ("thresholds", ["sam.us.box_all"])]
)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_settings_of_any_type_are_refused_or_clean(target: str, tables: list[str], data: st.DataObject) -> None:
    """TOML that can be parsed, with known keys that hold anything."""
    lines = []
    for table in tables:
        lines.append(f"[{table}]")
        content = data.draw(st.dictionaries(KEYS, VALUES, max_size=6))
        lines += [f"{key} = {toml(value)}" for key, value in content.items()]
    fuzz.survives(target, "\n".join(lines).encode("utf-8", "surrogatepass"))


# --- never a wrong number -----------------------------------------------------------------------------------


def flipped(data: bytes, step: int) -> list[bytes]:
    """Return the file with one bit turned, for every ``step``-th byte in turn."""
    found = []
    for place in range(0, len(data), step):
        copy = bytearray(data)
        copy[place] ^= 1 << place % 8
        found.append(bytes(copy))
    return found


def test_a_turned_bit_in_a_result_never_changes_a_number(tmp_path: Path) -> None:
    """The file is refused, or the bit was in something that nobody reads."""
    path = tmp_path / "r.parquet"
    refused = 0
    for data in flipped(SEEDS["result"][0], 7):
        path.write_bytes(data)
        try:
            assert read_parquet(path) == fuzz.RESULT
        except ResultsError as error:
            assert str(path) in str(error)  # noqa: PT017 - whether it is refused depends on the place
            refused += 1
    assert refused > 100


def test_a_turned_bit_in_a_journal_costs_a_case_and_is_told(tmp_path: Path) -> None:
    """The other line is read; what is read is what was written."""
    data = SEEDS["journal"][0]
    for damaged in flipped(data, 3):
        told: list[str] = []
        store = ResultStore(tmp_path, told.append)
        journal = store.path(fuzz.CELL).parent / JOURNALS / f"{fuzz.CELL.mode}-{fuzz.FINGERPRINT[:16]}.1-2.journal"
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_bytes(damaged)
        found = store.finished_cases(fuzz.CELL, fuzz.FINGERPRINT)
        whole = {row.case_id: row for row in fuzz.RESULT.rows}
        assert all(rows == (whole[case_id],) for case_id, rows in found.items())
        assert len(found) == 1 or (len(found) == 0 and damaged.count(b"\n") < 2)
        assert len(told) == 1 or damaged.count(b"\n") < 2


def test_a_turned_bit_in_a_file_of_masks_never_changes_a_mask(tmp_path: Path) -> None:
    """The file is refused by name, or the bit was in something that nobody reads."""
    import numpy as np

    store = MaskStore(tmp_path, lambda text: pytest.fail(text))
    masks = np.arange(60).reshape(3, 4, 5) % 7 < 3
    store.journal(fuzz.CELL, fuzz.FINGERPRINT).append("a", encoded("a", 0, [Prediction(masks)]))
    store.save(fuzz.CELL, fuzz.FINGERPRINT)
    (path,) = store.versions(fuzz.CELL, fuzz.FINGERPRINT)
    before = store.read(fuzz.CELL, fuzz.FINGERPRINT)
    refused = 0
    for data in flipped(path.read_bytes(), 5):
        path.write_bytes(data)
        try:
            assert store.read(fuzz.CELL, fuzz.FINGERPRINT) == before
        except ResultsError as error:
            assert f"{path} cannot be read" in str(error)  # noqa: PT017 - whether it is refused depends on the place
            refused += 1
    assert refused > 50


# --- what was found -----------------------------------------------------------------------------------------

FOUND: list[tuple[str, bytes]] = [
    ("config", b"a = " + b"[" * 3000),
    ("thresholds", b"a = " + b"[" * 3000),
    ("journal", b"[" * 100_000 + b"\n"),
    ("rle", b"\x04\x05"),
    ("rle", b"\x04\x0500"),
]


@pytest.mark.parametrize(("target", "data"), FOUND)
def test_what_was_found_stays_mended(target: str, data: bytes) -> None:
    """Each of these once came out as another exception, or as pixels that nobody had set."""
    assert fuzz.survives(target, data) == (target == "journal")  # there a line is left aside, and told


def test_the_search_itself_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seconds of it, where atheris is installed."""
    pytest.importorskip("atheris")
    monkeypatch.setattr("sys.argv", ["fuzz.py", "rle", "--seconds", "2"])
    assert fuzz.main() == 0
    assert "rle: " in capsys.readouterr().out
