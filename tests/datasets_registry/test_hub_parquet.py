"""The loader of Parquet data sets, on small files written as the Hub's are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.hub_server import COMMIT, HubServer, Repository

from promptseg.datasets_registry import hub_parquet
from promptseg.errors import CaseError, IntegrityError, RegistryError, UnavailableError
from promptseg.preparation import fetch
from promptseg.samples import target_of
from promptseg.specs import DatasetSpec, Origin, TaskSpec

IDS = (2, 10, 6010)
SPEC = DatasetSpec(
    name="kidneys",
    modality="ultrasound",
    load="promptseg.datasets_registry.hub_parquet:load",
    tasks=(TaskSpec(name="kidneys", target="kidney"),),
    licence="GPL-2.0",
    origin=Origin(host="hub", repo="org/kidneys"),
    files=("*.parquet",),
    options={"image": "image", "mask": "mask", "id": "id"},
)


@pytest.fixture(autouse=True)
def _offline(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches and no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def png(array: npt.NDArray[np.uint8]) -> bytes:
    """Return a PNG file of (H, W) or (H, W, 3) uint8."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def pair(number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return a grey (20, 24) image with maximum 255, and its mask of 0 and 255."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 255, (20, 24), dtype=np.uint8)
    image[0, 0] = 255
    mask = np.zeros((20, 24), np.uint8)
    mask[3 : 4 + number % 7, 5:15] = 255
    return image, mask


def rows(ids: Sequence[Any] = IDS) -> dict[str, list[Any]]:
    """Return the columns of the Hub's file, images encoded."""
    pairs = [pair(int(number)) for number in ids]
    return {
        "id": list(ids),
        "image": [{"bytes": png(image), "path": None} for image, _ in pairs],
        "mask": [{"bytes": png(mask), "path": None} for _, mask in pairs],
    }


def write(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write a Parquet file with the Hub's Image features."""
    import datasets

    features = {name: datasets.Image() for name in ("image", "mask") if name in columns}
    other = {
        name: datasets.Value("int32" if isinstance(columns[name][0], int) else "string")
        for name in columns.keys() - features
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict(dict(columns), features=datasets.Features({**other, **features}))
    table.to_parquet(path)
    return path


def spec(**options: Any) -> DatasetSpec:
    """Return a data set of Parquet files with other columns."""
    return DatasetSpec(
        name="others",
        modality="ct",
        load="promptseg.datasets_registry.hub_parquet:load",
        tasks=(TaskSpec(name="others"),),
        licence="MIT",
        origin=Origin(host="hub", repo="org/others"),
        options=options,
    )


def test_what_the_hub_sent_is_read_offline(
    tmp_path: Path, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, pixels and masks are those of the files, read again without a request; the commit is the Hub's."""
    content = write(tmp_path / "train.parquet", rows()).read_bytes()
    hub_server.repositories["dataset org/kidneys"] = Repository(
        {"README.md": b"card", "data/train-00000-of-00001.parquet": content}
    )
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert fetch.pull_dataset(SPEC).to_pin == (f"revision {COMMIT} of org/kidneys",)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub_server.requests.clear()

    local = fetch.fetch_dataset(SPEC)
    assert local.revision == COMMIT
    samples = hub_parquet.load(SPEC, local.root)
    assert samples.ids() == ["0002", "0010", "6010"]
    for number in IDS:
        image, mask = pair(number)
        case = f"{number:04}"
        np.testing.assert_array_equal(samples.image(case), np.repeat(image[..., None], 3, axis=2))
        np.testing.assert_array_equal(target_of(SPEC.tasks[0], samples.labels(case)), mask > 0)
        assert samples.subject(case) is None
    with pytest.raises(CaseError, match="case '7': the data set has no such case"):
        samples.image("7")
    assert hub_server.requests == []


def test_a_folder_of_files_serves_after_a_pull(tmp_path: Path) -> None:
    """Files brought by hand are the same data set, and have the same fingerprint, as those from the Hub."""
    with pytest.raises(UnavailableError, match="promptseg pull kidneys --from PATH"):
        fetch.fetch_dataset(SPEC)
    given = write(tmp_path / "given/train-00000-of-00001.parquet", rows())
    there = hub_parquet.load(SPEC, given.parent)
    fetch.pull_dataset(SPEC, given.parent)
    here = hub_parquet.load(SPEC, fetch.fetch_dataset(SPEC).root)
    assert (here.ids(), here.fingerprint) == (there.ids(), there.fingerprint)


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    """Another image is another fingerprint, and so is another reading of the same files."""
    columns = rows()
    one = hub_parquet.load(SPEC, write(tmp_path / "a/x.parquet", columns).parent)
    columns["image"][0] = columns["image"][1]
    two = hub_parquet.load(SPEC, write(tmp_path / "b/x.parquet", columns).parent)
    three = hub_parquet.load(spec(), tmp_path / "a")
    assert len({one.fingerprint, two.fingerprint, three.fingerprint}) == 3


def test_missing_columns_are_named_with_those_found(tmp_path: Path) -> None:
    """A changed data set is an error before anything is read, not a KeyError in the middle."""
    columns = rows()
    write(tmp_path / "x.parquet", {"id": columns["id"], "image": columns["image"], "label": ["a"] * 3})
    with pytest.raises(IntegrityError, match=r"lacks the columns \['mask'\]; it has \['id', 'image', 'label'\]"):
        hub_parquet.load(SPEC, tmp_path)


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    """No folder, no file, a shard of a set that is not there, and a truncated file."""
    with pytest.raises(UnavailableError, match="does not exist; run `promptseg pull kidneys`"):
        hub_parquet.load(SPEC, tmp_path / "none")
    with pytest.raises(UnavailableError, match=r"no \.parquet file below"):
        hub_parquet.load(SPEC, tmp_path)
    whole = write(tmp_path / "train-00000-of-00002.parquet", rows())
    with pytest.raises(UnavailableError, match=r"1 of 2 files train-\*-of-00002"):
        hub_parquet.load(SPEC, tmp_path)
    (tmp_path / "train-00001-of-00002.parquet").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match=r"train-00001-of-00002\.parquet cannot be read as Parquet"):
        hub_parquet.load(SPEC, tmp_path)


def test_several_files_are_one_data_set(tmp_path: Path) -> None:
    """Shards are joined; an id in two of them is an error, as ids name cases."""
    write(tmp_path / "train-00000-of-00002.parquet", rows((5, 3)))
    write(tmp_path / "train-00001-of-00002.parquet", rows((40,)))
    samples = hub_parquet.load(SPEC, tmp_path)
    assert samples.ids() == ["03", "05", "40"]
    np.testing.assert_array_equal(samples.image("40")[..., 1], pair(40)[0])
    write(tmp_path / "train-00001-of-00002.parquet", rows((3,)))
    with pytest.raises(IntegrityError, match="1 ids occur more than once, for example"):
        hub_parquet.load(SPEC, tmp_path)


def test_other_columns_come_from_the_options(tmp_path: Path) -> None:
    """A spec names image, mask, id, patient and the rows to keep; without an id the row number is the id."""
    columns = rows((1, 2, 3))
    table = {
        "case": ["b (1)", "a (2)", "c"],
        "who": ["p", "q", "p"],
        "kind": ["tumour", "normal", "tumour"],
        "image": columns["image"],
        "mask": columns["mask"],
    }
    write(tmp_path / "x.parquet", table)
    options = {"id": "case", "subject": "who", "where": {"kind": ["tumour"]}}
    samples = hub_parquet.load(spec(**options), tmp_path)
    assert list(samples.ids()) == ["b (1)", "c"]
    assert [samples.subject(case) for case in samples.ids()] == ["p", "p"]
    np.testing.assert_array_equal(samples.image("c")[..., 0], pair(3)[0])
    np.testing.assert_array_equal(samples.labels("c") > 0, pair(3)[1] > 0)
    plain = hub_parquet.load(spec(), tmp_path)
    assert plain.ids() == ["0", "1", "2"]
    with pytest.raises(RegistryError, match=r"unknown options \['maks'\]"):
        hub_parquet.load(spec(maks="mask"), tmp_path)


def test_a_bad_row_is_a_case_error(tmp_path: Path) -> None:
    """One unreadable or missing image is reported by its id, and the others still load."""
    columns = rows()
    columns["image"][0] = {"bytes": b"not an image", "path": None}
    columns["mask"][1] = None
    samples = hub_parquet.load(SPEC, write(tmp_path / "x.parquet", columns).parent)
    with pytest.raises(CaseError, match="case '0002'"):
        samples.image("0002")
    with pytest.raises(CaseError, match="case '0010': column 'mask' holds NoneType, not image bytes"):
        samples.labels("0010")
    assert samples.image("6010").shape == (20, 24, 3)


def test_plain_byte_columns_are_read_too(tmp_path: Path) -> None:
    """Files without the Hub's feature description hold their images as plain bytes."""
    import pyarrow
    from pyarrow import parquet

    columns = rows()
    plain = {name: [value["bytes"] for value in columns[name]] for name in ("image", "mask")}
    parquet.write_table(pyarrow.table({"id": columns["id"], **plain}), tmp_path / "x.parquet")
    samples = hub_parquet.load(SPEC, tmp_path)
    np.testing.assert_array_equal(samples.image("0002")[..., 0], pair(2)[0])
