"""The Hub, by the real huggingface_hub client against a small server that speaks its protocol on this machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.hub_server import COMMIT, Fault, HubServer, Repository, refusal

from promptseg.errors import IntegrityError, UnavailableError
from promptseg.files import models as model_files
from promptseg.files.datasets import LocalData
from promptseg.preparation import fetch
from promptseg.specs import DatasetSpec, ModelSpec, Origin, TaskSpec, WeightFile

WEIGHTS = b"weights " * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def files(hub_server: HubServer) -> dict[str, bytes]:
    """The files of a model and of a data set on the Hub."""
    files = {"w/model.bin": WEIGHTS, "README.md": b"card", "data/train-00000-of-00001.parquet": b"PAR1"}
    hub_server.repositories = {"model org/thing": Repository(files), "dataset org/things": Repository(files)}
    return files


def model(
    revision: str | None = COMMIT, sha256: str | None = SHA256, path: str = "w/model.bin", *, gated: bool = False
) -> ModelSpec:
    """Return a model of one file on the Hub."""
    return ModelSpec(
        name="thing",
        family="sam",
        load="a:b",
        licence="MIT",
        accepts=frozenset({"points"}),
        origin=Origin(host="hub", repo="org/thing", revision=revision, gated=gated),
        weights=(WeightFile(role="checkpoint", path=path, sha256=sha256),),
    )


def data(revision: str | None = COMMIT) -> DatasetSpec:
    """Return a data set of Parquet files on the Hub."""
    return DatasetSpec(
        name="things",
        modality="ct",
        load="a:b",
        tasks=(TaskSpec(name="things"),),
        licence="MIT",
        origin=Origin(host="hub", repo="org/things", revision=revision),
        files=("*.parquet",),
    )


def warm(home: Path, folder: str, files: dict[str, bytes], *, main: bool = True) -> Path:
    """Lay out a Hub cache as huggingface_hub does; return the snapshot."""
    base = home / "hub" / folder
    snapshot = base / "snapshots" / COMMIT
    (base / "blobs").mkdir(parents=True)
    for name, content in files.items():
        blob = base / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        (base / "refs").mkdir()
        (base / "refs" / "main").write_text(COMMIT)
    return snapshot


# --- what is asked, brought and kept ------------------------------------------------------------------------


def test_a_pinned_file_is_downloaded_once_and_then_found_without_asking(
    hub_server: HubServer, files: dict[str, bytes]
) -> None:
    """The first fetch asks for the pinned commit and for nothing else, the second one asks nobody."""
    assert not model_files.model_is_here(model())
    local = model_files.fetch_model(model())
    assert local.files["checkpoint"].read_bytes() == WEIGHTS
    assert (local.revision, dict(local.sha256)) == (COMMIT, {"checkpoint": SHA256})
    assert hub_server.asked() == [
        f"hub GET /api/models/org/thing/revision/{COMMIT}",
        f"hub HEAD /org/thing/resolve/{COMMIT}/w/model.bin",
        f"storage GET /{SHA256}",
    ]
    hub_server.requests.clear()
    assert model_files.fetch_model(model()) == local
    assert model_files.model_is_here(model())
    assert hub_server.requests == []


def test_an_unpinned_revision_is_recorded_and_printed(
    hub_server: HubServer, files: dict[str, bytes], caches: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What an unpinned spec resolved to is kept for later runs and told to the user, with the sha256."""
    with caplog.at_level(logging.WARNING):
        pulled = model_files.pull_model(model(revision=None, sha256=None))
    assert pulled.to_pin == (f"revision {COMMIT} of org/thing", f"sha256 {SHA256} of w/model.bin")
    assert f"pin this revision: {COMMIT} of org/thing" in caplog.text
    assert json.loads((caches / "ours" / "revisions.json").read_text()) == {"hub:model:org/thing": COMMIT}
    hub_server.close()
    assert model_files.fetch_model(model(revision=None)).revision == COMMIT


def test_a_data_set_is_downloaded_by_its_patterns(hub_server: HubServer, files: dict[str, bytes]) -> None:
    """Only matching files are brought, at the commit; afterwards the network is not needed."""
    assert not fetch.dataset_is_here(data())
    pulled = fetch.pull_dataset(data(revision=None))
    assert list(pulled.files) == ["data/train-00000-of-00001.parquet"]
    assert pulled.to_pin == (f"revision {COMMIT} of org/things",)
    assert hub_server.asked("GET /api") == [
        "hub GET /api/datasets/org/things",
        f"hub GET /api/datasets/org/things/tree/{COMMIT}?recursive=true&expand=false",
    ]
    root = fetch.fetch_dataset(data()).root
    assert root is not None
    assert root.name == COMMIT
    assert not (root / "README.md").exists()
    hub_server.requests.clear()
    assert fetch.fetch_dataset(data(revision=None)).revision == COMMIT
    assert fetch.dataset_is_here(data())
    assert hub_server.requests == []
    (root / "data/train-00000-of-00001.parquet").unlink()
    assert not fetch.dataset_is_here(data())


def test_a_token_opens_a_gated_repository_and_stays_with_the_hub(
    hub_server: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_TOKEN is sent with every question to the Hub, and never to the storage that it redirects to."""
    hub_server.repositories["dataset org/things"].readers = {"hf_mine"}
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert len(fetch.pull_dataset(data()).files) == 1
    sent = {(request.server, request.headers.get("authorization")) for request in hub_server.requests}
    assert sent == {("hub", "Bearer hf_mine"), ("storage", None)}


def test_a_renamed_repository_answers_under_its_old_name(hub_server: HubServer, files: dict[str, bytes]) -> None:
    """The Hub redirects to the new name, for questions and for files."""
    hub_server.repositories["dataset org/moved"] = hub_server.repositories.pop("dataset org/things")
    hub_server.renamed["org/things"] = "org/moved"
    assert fetch.pull_dataset(data()).revision == COMMIT
    assert hub_server.asked("HEAD /datasets/org/moved/resolve/")


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_wrong_bytes_are_refused(files: dict[str, bytes]) -> None:
    """A file whose sha256 differs from the pin is named with both sums, and is still there to be looked at."""
    files["w/model.bin"] = b"other weights"
    for _ in range(2):
        with pytest.raises(IntegrityError, match="expected sha256") as caught:
            model_files.fetch_model(model())
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(b"other weights").hexdigest() in str(caught.value)
    assert "Nothing was replaced" in str(caught.value)


def test_bytes_differing_from_what_the_hub_promised_are_refused(hub_server: HubServer, files: dict[str, bytes]) -> None:
    """Even without a pin, a large file must have the sha256 that the Hub gave it."""
    hub_server.faults = [Fault("storage GET", body=WEIGHTS[:-1] + b"X")]
    with pytest.raises(IntegrityError, match=f"expected sha256 {SHA256}"):
        model_files.fetch_model(model(sha256=None))


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "GatedRepo", ["is gated", "https://huggingface.co/org/thing", "hf auth login", "HF_TOKEN"]),
        (404, "EntryNotFound", ["not every pinned file", "promptseg pull thing --from PATH"]),
        (404, "RevisionNotFound", ["not the pinned commit"]),
    ],
)
def test_a_refused_download_says_what_to_do(
    hub_server: HubServer, files: dict[str, bytes], status: int, code: str, words: list[str]
) -> None:
    """Gated and gone files are skips that name the page, the login and the command."""
    hub_server.faults = [Fault("/resolve/", reply=refusal(status, code, "no"))]
    with pytest.raises(UnavailableError) as caught:
        model_files.fetch_model(model())
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_missing_repository_is_gone_or_gated(hub_server: HubServer) -> None:
    """The Hub hides what one may not see: a spec that knows of the gate asks for the terms instead."""
    with pytest.raises(UnavailableError, match="no model repository org/thing that this machine may see"):
        model_files.fetch_model(model())
    with pytest.raises(UnavailableError, match="is gated"):
        model_files.fetch_model(model(gated=True))


def test_a_failure_is_remembered_until_a_pull(hub_server: HubServer, files: dict[str, bytes]) -> None:
    """The next cell is told at once; a pull tries again."""
    hub_server.faults = [Fault("", times=1, reply=refusal(404, "RepoNotFound", "no"))]
    for _ in range(2):
        with pytest.raises(UnavailableError, match="no model repository"):
            model_files.fetch_model(model())
    assert len(hub_server.requests) == 1
    assert model_files.pull_model(model()).revision == COMMIT


def test_without_a_network_the_skip_comes_at_once(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection names the command that fetches, within two seconds."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"cannot be reached.*promptseg pull thing`.*--from PATH"):
        model_files.fetch_model(model())
    with pytest.raises(UnavailableError, match="promptseg pull things"):
        fetch.fetch_dataset(data())
    assert time.monotonic() - start < 2


def test_a_warm_cache_serves_an_unpinned_model_offline(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HF_HUB_OFFLINE and no record, the commit that the cache calls main is used and recorded."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="HF_HUB_OFFLINE is set"):
        model_files.fetch_model(model(revision=None))
    snapshot = warm(caches / "hf", "models--org--thing", {"w/model.bin": WEIGHTS})
    local = model_files.fetch_model(model(revision=None))
    assert local.files["checkpoint"] == snapshot / "w/model.bin"
    assert local.revision == COMMIT
    (caches / "hf/hub/models--org--thing/refs/main").write_text("f" * 40)
    assert model_files.fetch_model(model(revision=None)).revision == COMMIT


def test_a_damaged_data_set_file_is_refused(hub_server: HubServer, files: dict[str, bytes]) -> None:
    """A data set has no pinned sums; the Hub's own are checked when a file is brought."""
    hub_server.faults = [Fault("storage GET", body=b"RAP1")]
    with pytest.raises(IntegrityError, match="not the file that was pinned"):
        fetch.fetch_dataset(data())


def test_patterns_that_match_nothing_are_named(files: dict[str, bytes]) -> None:
    """A repository without the wanted files is no empty data set."""
    del files["data/train-00000-of-00001.parquet"]
    with pytest.raises(UnavailableError, match=r"holds no file that matches \*\.parquet"):
        fetch.fetch_dataset(data())


def test_a_warm_data_set_is_used_when_the_network_is_down(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that another program brought serve as they are."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    snapshot = warm(caches / "hf", "datasets--org--things", {"data/a.parquet": b"PAR1"})
    assert fetch.dataset_is_here(data(revision=None))
    assert fetch.fetch_dataset(data(revision=None)) == LocalData(snapshot, COMMIT)
    assert fetch.fetch_dataset(data()) == LocalData(snapshot, COMMIT)


def test_the_cache_is_where_the_client_has_it(tmp_path: Path) -> None:
    """Our answer without an import is huggingface_hub's own, for every variable that moves it."""
    code = (
        "from promptseg.files import hub; mine = hub.cache_root(); off = hub.is_offline()\n"
        "import sys; assert 'huggingface_hub' not in sys.modules\n"
        "from huggingface_hub import constants as c; from pathlib import Path\n"
        "assert mine == Path(c.HF_HUB_CACHE), (mine, c.HF_HUB_CACHE)\n"
        "assert off == c.HF_HUB_OFFLINE, (off, c.HF_HUB_OFFLINE)\n"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "HUGGING"))}
    for extra in ({}, {"HF_HOME": "~/x"}, {"HF_HUB_CACHE": "/x", "HF_HUB_OFFLINE": "1"}, {"XDG_CACHE_HOME": "/y"}):
        subprocess.run([sys.executable, "-c", code], env=clean | extra, check=True)
