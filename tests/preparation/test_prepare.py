"""From files to the prepared form: the same bytes in every run, nothing lost by a kill, nothing bad left out."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from support import blocks
from support.blocks import SPEC, volume
from support.paths import ROOT

from promptseg.data import prepared
from promptseg.errors import CaseError, IntegrityError, UnavailableError
from promptseg.preparation import fetch, parts, run
from promptseg.preparation.cases import Slice, Unit
from promptseg.preparation.tree import Tree


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return path to content of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def written() -> dict[str, bytes]:
    """Return the prepared form that is in the cache."""
    return bytes_of(prepared.folder(SPEC))


def take_log(tmp_path: Path) -> list[str]:
    """Return the units that were read since the last call."""
    names = (tmp_path / "read.log").read_text().split()
    (tmp_path / "read.log").write_text("")
    return sorted(names)


def test_rows_are_the_slices_with_an_object_of_a_task(block_files: Path) -> None:
    """Empty slices and those with other labels alone are left out; columns hold what the layout told."""
    record = run.prepare(SPEC, block_files)
    [shard] = (prepared.folder(SPEC) / "data").glob("*.parquet")
    rows = datasets.Dataset.from_parquet(str(shard))
    assert record.n_cases == len(rows) == 12
    assert rows["case_id"][:3] == ["volume_0_2", "volume_0_3", "volume_1_2"]
    first = rows[0]
    assert (first["subject_id"], first["slice_index"], first["spacing_mm"]) == ("volume_0", 2, [0.5, 0.25])
    assert (first["labels"], json.loads(first["metadata"])) == ([1, 4], {"volume": "volume_0"})
    mask = np.asarray(first["mask"])
    assert np.array_equal(mask, np.load(io.BytesIO(volume(0)))[2])
    assert np.array_equal(np.asarray(first["image"]), mask * 50 + 12)


def test_it_is_a_folder_that_datasets_opens(block_files: Path, tmp_path: Path) -> None:
    """``load_dataset`` finds the split and decodes the images."""
    run.prepare(SPEC, block_files)
    opened = datasets.load_dataset(str(prepared.folder(SPEC)), split="test", cache_dir=str(tmp_path / "hf"))
    assert len(opened) == 12
    assert opened[0]["image"].size == (16, 12)


def test_samples_are_what_was_prepared(block_files: Path) -> None:
    """Ids, patients, label maps and images come back; 255 would stay 255."""
    data, samples = (run.prepare(SPEC, block_files), fetch.open_samples(SPEC)[1])
    assert len(samples.ids()) == data.n_cases
    assert samples.subject("volume_3_2") == "volume_3"
    assert sorted(np.unique(samples.labels("volume_4_3"))) == [0, 2, 4]
    assert samples.image("volume_4_3").shape == (12, 16, 3)
    assert samples.fingerprint == data.content


def test_twice_is_the_same_bytes(block_files: Path) -> None:
    """Nothing of the run, its date or its threads is in the files."""
    run.prepare(SPEC, block_files)
    first = written()
    run.prepare(SPEC, block_files)
    assert written() == first
    assert [name for name in first if name.endswith(".parquet")]


def test_an_archive_is_the_same_as_its_folder(block_files: Path, tmp_path: Path) -> None:
    """The fingerprint speaks of the files, not of how they lay."""
    record = run.prepare(SPEC, block_files)
    archive = tmp_path / "blocks.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(block_files.iterdir()):
            file.write(path, f"deep/er/{path.name}")
    assert run.prepare(SPEC, archive) == record


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_killed_run_goes_on(block_files: Path, tmp_path: Path, after: int) -> None:
    """What was finished is not read again, and the bytes are those of an undisturbed run."""
    run.prepare(SPEC, block_files)
    whole = written()
    code = f"""
    import sys
    sys.path.insert(0, {str(ROOT / "tests")!r})
    from pathlib import Path
    from support.blocks import SPEC
    from promptseg.preparation import run
    run._MOST_WORKERS = 1
    run.prepare(SPEC, Path({str(block_files)!r}))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    for path in prepared.folder(SPEC).parent.glob("*"):
        path.rename(tmp_path / path.name)
    take_log(tmp_path)
    environment = {"PROMPTSEG_CACHE": str(tmp_path / "cache"), "READ_LOG": str(tmp_path / "read.log"), "PATH": ""}
    killed = subprocess.run(command, env={**environment, "DIE_AFTER": str(after)}, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    assert prepared.find(SPEC) is None
    assert len(take_log(tmp_path)) == after + 1
    subprocess.run(command, env=environment, check=True)
    assert take_log(tmp_path) == [f"volume_{kind}" for kind in range(after, 6)]
    assert written() == whole
    assert not list(prepared.folder(SPEC).parent.glob("*.parts"))


def test_one_bad_volume_is_named_and_the_rest_is_there(block_files: Path, tmp_path: Path) -> None:
    """It stands as a case that fails; mended, it alone is read again, and all is as if it had never been bad."""
    run.prepare(SPEC, block_files)
    whole = written()
    take_log(tmp_path)
    (block_files / "volume_2.npy").write_bytes(volume(2)[:-7])
    record = run.prepare(SPEC, block_files)
    take_log(tmp_path)
    assert list(record.failed) == ["volume_2"]
    assert record.n_cases == 10
    samples = fetch.open_samples(SPEC)[1]
    assert "volume_2" in samples.ids()
    with pytest.raises(CaseError, match="volume_2"):
        samples.labels("volume_2")
    (block_files / "volume_2.npy").write_bytes(volume(2))
    assert run.prepare(SPEC, block_files).failed == {}
    assert take_log(tmp_path) == ["volume_2"]
    assert written() == whole


def test_unknown_label_ids_end_it(block_files: Path) -> None:
    """Another edition of a data set is not scored as if it were this one; nothing is written."""
    labels = np.zeros((2, 12, 16), np.uint8)
    labels[1, 2, 2:6] = (1, 2, 7, 9)
    np.save(block_files / "volume_3.npy", labels)
    with pytest.raises(IntegrityError, match=r"blocks: the mask of volume_3_1 holds the label ids \[7, 9\]") as caught:
        run.prepare(SPEC, block_files)
    assert "knows [1, 2, 3, 4]" in str(caught.value)
    assert prepared.find(SPEC) is None
    assert [path.name for path in prepared.folder(SPEC).parent.iterdir() if path.is_dir()] == []


def test_a_wrong_folder_is_told_from_the_right_one(tmp_path: Path, block_files: Path) -> None:
    """The message says what was expected and what is there."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("none")
    with pytest.raises(IntegrityError, match=r"does not hold blocks: expected NAME.npy \(arrays\); found notes.txt"):
        run.prepare(SPEC, other)
    with pytest.raises(IntegrityError, match=r"found notes.txt. If these are files of it, give a folder further up\."):
        run.prepare(SPEC, other)
    assert prepared.find(SPEC) is None


def test_a_unit_that_is_there_twice_is_an_error(block_files: Path) -> None:
    """A data set beside its own archive would be counted twice."""
    (block_files / "again").mkdir()
    (block_files / "again" / "volume_1.npy").write_bytes(volume(1))
    with pytest.raises(IntegrityError, match=r"'volume_1'.*Keep one"):
        run.prepare(SPEC, block_files)


def test_a_disk_that_is_full_for_a_reader_ends_it(monkeypatch: pytest.MonkeyPatch, block_files: Path) -> None:
    """It is no fault of the volume that was being read, which is read when there is room again."""

    def full(_tree: Tree, _options: object) -> list[Unit]:
        def read() -> Iterator[Slice]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return [Unit(name="volume_0", paths=("volume_0.npy",), read=read)]

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "read", full)
        with pytest.raises(UnavailableError, match=r"blocks: no space left .*PROMPTSEG_CACHE"):
            run.prepare(SPEC, block_files)
    assert run.prepare(SPEC, block_files).failed == {}


def test_nothing_readable_writes_nothing(block_files: Path) -> None:
    """The first reason is told."""
    for path in block_files.iterdir():
        path.write_bytes(b"not an array")
    with pytest.raises(IntegrityError, match="nothing to write: 6 could not be read, first volume_0: "):
        run.prepare(SPEC, block_files)
    assert prepared.find(SPEC) is None


def test_a_missing_path_is_told(tmp_path: Path, block_files: Path) -> None:
    """Before anything is made."""
    with pytest.raises(UnavailableError, match="nowhere does not exist"):
        fetch.prepare_dataset(SPEC, tmp_path / "nowhere")


def test_another_recipe_is_another_preparation(block_files: Path) -> None:
    """A new version or other label ids do not use what an older spec made."""
    run.prepare(SPEC, block_files)
    assert prepared.find(SPEC) is not None
    assert prepared.find(replace(SPEC, version=2)) is None
    assert prepared.find(replace(SPEC, other_labels=(4, 5))) is None


def test_a_shard_that_was_changed_is_found(block_files: Path) -> None:
    """Its sha256 is compared when it is opened; a shorter one is not even found."""
    run.prepare(SPEC, block_files)
    [shard] = (prepared.folder(SPEC) / "data").glob("*.parquet")
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"blocks: .*is not the file that was pinned"):
        fetch.open_samples(SPEC)
    shard.write_bytes(content[:-1])
    assert prepared.find(SPEC) is None


def test_what_a_person_must_download_is_told(block_files: Path) -> None:
    """Without an origin: the page, what to do there, and the command."""
    with pytest.raises(UnavailableError) as caught:
        fetch.fetch_dataset(SPEC)
    message = str(caught.value)
    assert "https://example.org/blocks: Sign the form, download blocks.zip." in message
    assert "`promptseg data prepare blocks --from PATH`" in message
    assert message.endswith("Licence: CC0-1.0.")


def test_many_units_share_parts(monkeypatch: pytest.MonkeyPatch, block_files: Path) -> None:
    """At most so many files on the way; the result does not depend on it."""
    run.prepare(SPEC, block_files)
    whole = written()
    monkeypatch.setattr(parts, "_MOST_PARTS", 2)
    run.prepare(SPEC, block_files)
    assert parts.part_size(6) == 3
    first = {name: content for name, content in whole.items() if name.endswith("parquet")}
    tables = [parts.read_done(prepared.folder(SPEC) / name) for name in first]
    assert tables == [None]  # a shard is no part
    assert set(written()) == set(whole)
    assert fetch.open_samples(SPEC)[1].fingerprint == json.loads(whole["prepared.json"])["content"]


def test_shards_are_numbered(monkeypatch: pytest.MonkeyPatch, block_files: Path) -> None:
    """Large data sets are several files, which are read as one."""
    monkeypatch.setattr(parts, "_SHARD_BYTES", 1)
    record = run.prepare(SPEC, block_files)
    assert sorted(record.files) == [f"data/test-{index:05}-of-00006.parquet" for index in range(6)]
    assert len(fetch.open_samples(SPEC)[1].ids()) == 12


def test_the_prepared_form_can_be_prepared_from(block_files: Path, tmp_path: Path) -> None:
    """A copy from another machine, or from one's own repository, gives the same content."""
    first = run.prepare(SPEC, block_files)
    copy = tmp_path / "copy"
    prepared.folder(SPEC).rename(copy)
    again = run.prepare(SPEC, copy)
    assert (again.content, again.layout) == (first.content, "prepared form")
    with pytest.raises(IntegrityError, match="does not hold other"):
        run.prepare(replace(SPEC, name="other"), copy)


def test_a_copy_of_another_recipe_is_refused(block_files: Path, tmp_path: Path) -> None:
    """What an older version made does not pass for what this one would make."""
    run.prepare(SPEC, block_files)
    copy = prepared.folder(SPEC).rename(tmp_path / "copy")
    with pytest.raises(IntegrityError, match=r"test-00000-of-00001\.parquet was prepared by another recipe .* blocks"):
        run.prepare(replace(SPEC, version=2), copy)
    assert prepared.find(replace(SPEC, version=2)) is None


def test_a_copy_without_all_of_its_files_is_refused(
    monkeypatch: pytest.MonkeyPatch, block_files: Path, tmp_path: Path
) -> None:
    """Half a data set is not silently the whole."""
    monkeypatch.setattr(parts, "_SHARD_BYTES", 1)
    run.prepare(SPEC, block_files)
    copy = prepared.folder(SPEC).rename(tmp_path / "copy")
    (copy / "data/test-00002-of-00006.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"5 of 6 files data/test-\*-of-00006\.parquet are there"):
        run.prepare(SPEC, copy)
    assert prepared.find(SPEC) is None


def test_a_copy_keeps_what_could_not_be_read(block_files: Path, tmp_path: Path) -> None:
    """A volume that failed on one machine is not lost without a word on the next."""
    (block_files / "volume_2.npy").write_bytes(b"broken")
    first = run.prepare(SPEC, block_files)
    copy = prepared.folder(SPEC).rename(tmp_path / "copy")
    again = run.prepare(SPEC, copy)
    assert list(first.failed) == ["volume_2"]
    assert (again.failed, again.content) == (first.failed, first.content)
    (copy / prepared.RECORD).write_text("[]")
    assert run.prepare(SPEC, copy).failed == {}


def _look() -> int:
    """Read every case of the data set, and return how many there are."""
    samples = fetch.open_samples(SPEC)[1]
    return len([(samples.labels(case_id), samples.image(case_id)) for case_id in samples.ids()])


@pytest.mark.parametrize("damage", ["empty", "cut", "listing"])
def test_a_damaged_copy_in_the_cache_is_named_and_made_again(block_files: Path, damage: str) -> None:
    """The library `datasets` keeps copies of Parquet files; the message says that they can be removed, and it is so."""
    run.prepare(SPEC, block_files)
    assert _look() == 12
    copies = Path(os.environ["PROMPTSEG_CACHE"]) / "arrow"
    [path] = copies.rglob("dataset_info.json" if damage == "listing" else "*.arrow")
    content = path.read_bytes()
    path.write_bytes(b"{" if damage == "listing" else content[: 0 if damage == "empty" else len(content) // 2])
    with pytest.raises(
        IntegrityError, match=f"blocks: the Parquet files in .*, or the copy of them .*Remove {copies}: "
    ):
        _look()
    shutil.rmtree(copies)
    assert _look() == 12


@pytest.mark.parametrize(
    "change",
    [{"files": []}, {"files": {}}, {"files": {"data/x": 5}}, {"failed": []}, {"unknown": 1}],
    ids=["files_a_list", "no_files", "file_a_number", "failed_a_list", "unknown"],
)
def test_a_damaged_record_is_none(block_files: Path, change: dict[str, object]) -> None:
    """The data set then counts as not prepared, and preparing it again mends it."""
    run.prepare(SPEC, block_files)
    path = prepared.folder(SPEC) / prepared.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UnavailableError, match="blocks is not on this machine"):
        _look()
    run.prepare(SPEC, block_files)
    assert _look() == 12
