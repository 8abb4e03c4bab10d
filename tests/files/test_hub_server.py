"""What the Hub may answer: each fault by the real client against a server on this machine, and whole runs of a user."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hub_server import COMMIT, Fault, HubServer, Reply, Repository, git_sha1, refusal, sha256
from support.project import Project
from typer.testing import CliRunner, Result

from promptseg.cli import main
from promptseg.errors import IntegrityError, UnavailableError
from promptseg.files import hub
from promptseg.files import models as model_files
from promptseg.files.pulled import Pulled
from promptseg.preparation import fetch
from promptseg.specs import DatasetSpec, ModelSpec, Origin, TaskSpec, WeightFile

FILES = {
    "README.md": b"card",
    "data/train-00000-of-00002.parquet": b"one " * 100,
    "data/train-00001-of-00002.parquet": b"two " * 100,
    "labels.csv": b"0,kidney\n",
}
WANTED = [path for path in FILES if path != "README.md"]
LAST = sha256(FILES["data/train-00001-of-00002.parquet"])
LIMIT = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}


def data(revision: str | None = COMMIT) -> DatasetSpec:
    """Return a data set of two large files and a small one."""
    return DatasetSpec(
        name="shards",
        modality="ct",
        load="a:b",
        tasks=(TaskSpec(name="shards"),),
        licence="MIT",
        origin=Origin(host="hub", repo="org/shards", revision=revision),
        files=("data/*.parquet", "*.csv"),
    )


def model() -> ModelSpec:
    """Return a model of a small file, whose sha256 is not pinned."""
    return ModelSpec(
        name="small",
        family="sam",
        load="a:b",
        licence="MIT",
        accepts=frozenset({"points"}),
        origin=Origin(host="hub", repo="org/small", revision=COMMIT),
        weights=(WeightFile(role="checkpoint", path="w.txt"),),
    )


@pytest.fixture
def served(hub_server: HubServer) -> HubServer:
    """The Hub with the data set and the model."""
    hub_server.repositories["dataset org/shards"] = Repository(dict(FILES))
    hub_server.repositories["model org/small"] = Repository({"w.txt": b"weights"})
    return hub_server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have waited between its attempts, which it does not wait here."""
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


def parts(home: Path) -> list[Path]:
    """Return what is half written, in either cache, and lists of files that say a data set is complete."""
    return [*home.rglob("*.incomplete"), *home.glob("ours/datasets/*/*"), *home.glob("ours/tmp/*")]


def contents(pulled: Pulled) -> dict[str, bytes]:
    """Return path to content of what a pull brought."""
    return {path: file.read_bytes() for path, file in pulled.files.items()}


# --- refusals -----------------------------------------------------------------------------------------------

PULL = "promptseg pull shards"
FAULTS = {
    "gated": (Fault("/resolve/", reply=refusal(401, "GatedRepo", "Access is restricted")), ["is gated", PULL]),
    "gated, with a token": (Fault("/resolve/", reply=refusal(403, "GatedRepo", "Not yours")), ["is gated", PULL]),
    "wrong token": (
        Fault("/api/", reply=Reply(401, {"X-Error-Message": "Invalid credentials in Authorization header"})),
        ["does not let this machine read org/shards", "hf auth login", "HF_TOKEN", PULL],
    ),
    "forbidden": (
        Fault("/resolve/", reply=Reply(403, {"X-Error-Message": "Blocked by your organisation"})),
        ["does not let this machine read org/shards", "Blocked by your organisation", PULL],
    ),
    "no repository": (
        Fault("/api/", reply=refusal(404, "RepoNotFound", "Repository not found")),
        ["no dataset repository org/shards", "deleted, renamed or private", f"{PULL} --from PATH"],
    ),
    "no revision": (
        Fault("/api/", reply=refusal(404, "RevisionNotFound", "Invalid rev id")),
        [f"org/shards, but not the pinned commit {COMMIT}", f"{PULL} --from PATH"],
    ),
    "no file": (
        Fault(f"/resolve/{COMMIT}/labels.csv", reply=refusal(404, "EntryNotFound", "Entry not found")),
        ["not every pinned file", "labels.csv", f"{PULL} --from PATH"],
    ),
    "limited at once": (
        Fault("", reply=Reply(429, {"Retry-After": "300"})),
        ["429 Too Many Requests", "Wait 300 seconds", "hf auth login", "HF_TOKEN", PULL],
    ),
    "limited at the list": (
        Fault("/tree/", reply=Reply(429, LIMIT)),
        ["429 Too Many Requests", "Wait 55 seconds", PULL],
    ),
    "limited at a file": (Fault("/resolve/", reply=Reply(429)), ["429 Too Many Requests", "Wait some minutes", PULL]),
    "limited by the storage": (Fault("storage", reply=Reply(429)), ["429 Too Many Requests", PULL]),
    "broken at once": (Fault("", reply=Reply(500)), ["the Hub refused", "500 Internal Server Error", PULL]),
    "broken at the list": (Fault("/tree/", reply=Reply(503)), ["the Hub refused", "503 Service Unavailable", PULL]),
    "broken at a file": (Fault("/resolve/", reply=Reply(502)), ["the Hub refused", "502 Bad Gateway", PULL]),
    "broken storage": (Fault("storage", reply=Reply(500)), ["the Hub refused", "500 Internal Server Error", PULL]),
    "cut for ever": (Fault(f"storage GET /{LAST}", cut_at=0), ["cannot be reached", "RemoteProtocolError", PULL]),
    "no Hub at all": (
        Fault("/resolve/", reply=Reply(200, body=b"<html>")),
        ["cannot be reached", "X-Repo-Commit", PULL],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_leaves_nothing_and_is_over_when_it_is(
    fault: str, served: HubServer, caches: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the data set, what was found and what to do; no part counts as here; a later pull succeeds."""
    what, words = FAULTS[fault]
    served.faults = [what]
    with pytest.raises(UnavailableError, match=r"^shards: ") as caught:
        fetch.pull_dataset(data())
    assert [word for word in words if word not in str(caught.value)] == []
    assert not fetch.dataset_is_here(data())
    assert parts(caches) == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="HF_HUB_OFFLINE is set"):
        fetch.fetch_dataset(data())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    served.faults = []
    assert contents(fetch.pull_dataset(data())) == {path: FILES[path] for path in WANTED}
    assert fetch.dataset_is_here(data())


def test_a_slow_hub_is_not_waited_for(served: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first question has a short timeout and is not repeated."""
    monkeypatch.setattr(hub, "_PROBE_SECONDS", 0.2)
    served.faults = [Fault("/api/", stall=30)]
    with pytest.raises(UnavailableError, match=r"shards: .*the Hub cannot be reached: ReadTimeout"):
        fetch.fetch_dataset(data())
    assert len(served.requests) == 1


def test_a_commit_that_an_earlier_run_recorded_may_be_gone(served: HubServer, caches: Path) -> None:
    """An unpinned data set whose recorded commit the Hub no longer has says where the record is."""
    record = caches / "ours" / "revisions.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"hub:dataset:org/shards": "f" * 40}))
    with pytest.raises(
        UnavailableError, match=f"not the pinned commit {'f' * 40}, which an earlier run recorded"
    ) as caught:
        fetch.fetch_dataset(data(revision=None))
    assert str(record) in str(caught.value)
    record.unlink()
    assert fetch.pull_dataset(data(revision=None)).revision == COMMIT


# --- faults that pass ---------------------------------------------------------------------------------------


def test_the_wait_that_the_hub_asks_for_is_kept(served: HubServer, waits: list[float]) -> None:
    """429 with Retry-After, once: the client waits as long as it was told, and the pull succeeds."""
    served.faults = [Fault("/labels.csv", times=2, reply=Reply(429, {"Retry-After": "7"}))]
    assert len(fetch.pull_dataset(data()).files) == 3
    assert waits == [8.0]  # one second more than asked; the first refusal is followed by a second try at once


@pytest.mark.parametrize("fault", [{"cut_at": 100}, {"cut_at": 100, "stall": 30.0}])
def test_an_interrupted_file_is_resumed(
    fault: dict[str, Any], served: HubServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is cut or falls silent in the middle of a file: the rest is asked for, the whole is right."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    served.faults = [Fault(f"storage GET /{LAST}", times=1, **fault)]
    assert contents(fetch.pull_dataset(data())) == {path: FILES[path] for path in WANTED}
    ranges = [request.headers.get("range") for request in served.requests if request.path == f"/{LAST}"]
    assert ranges == [None, "bytes=100-"]


def test_what_another_program_left_is_no_whole_data_set(served: HubServer, waits: list[float]) -> None:
    """Where the Hub cannot list its files, a part that is in the cache already is not taken for all of them."""
    hub.download_file(hub.Repo("dataset", "org/shards", "shards"), COMMIT, "labels.csv")
    hub.download_file(hub.Repo("dataset", "org/shards", "shards"), COMMIT, "data/train-00000-of-00002.parquet")
    served.faults = [Fault("/tree/", reply=Reply(500))]
    for _ in range(2):
        with pytest.raises(
            UnavailableError, match=r"shards: 1 files of .* did not arrive, for example data/train-00001"
        ):
            fetch.fetch_dataset(data())
    served.faults = []
    assert contents(fetch.pull_dataset(data())) == {path: FILES[path] for path in WANTED}


# --- wrong bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"), [("data/train-00001-of-00002.parquet", b"owt " * 100), ("labels.csv", b"0,yendik\n")]
)
def test_wrong_bytes_are_refused_with_and_without_the_network(
    path: str, content: bytes, served: HubServer, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are checked by sha256, small ones by git's sha1; the remedy that the message names works."""
    served.faults = [Fault(f"GET .*({LAST if path.endswith('parquet') else path})", body=content)]
    stated = LAST if path.endswith("parquet") else git_sha1(FILES[path])
    for offline in ("", "1"):
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        with pytest.raises(IntegrityError, match=rf"^shards: .*{path} is not the file .* {stated}, found") as caught:
            fetch.fetch_dataset(data())
    assert parts(caches) == []
    served.faults = []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    remove = str(caught.value).split("Remove ")[1].split(" and run `promptseg pull shards`")[0]
    Path(remove).unlink()
    assert contents(fetch.pull_dataset(data())) == {path: FILES[path] for path in WANTED}


def test_a_small_weight_file_is_checked_by_what_git_calls_it(served: HubServer) -> None:
    """Without a pinned sha256, a model's small file must have the sha1 that the Hub stated."""
    served.faults = [Fault("GET /org/small/resolve", body=b"wieghts")]
    with pytest.raises(IntegrityError, match=f"expected git sha1 {git_sha1(b'weights')}, found {git_sha1(b'wieghts')}"):
        model_files.fetch_model(model())


# --- whole runs of a user -----------------------------------------------------------------------------------

KIDNEY = "Angelou0516/CT2USforKidneySeg"
CELL = ("-k", "box_fill and us_kidney and (box_all or box_largest)")


@pytest.fixture
def kidneys(hub_server: HubServer, tmp_path: Path) -> HubServer:
    """The Hub with the data set us_kidney, which no spec pins, of three images."""
    import datasets

    masks = [np.zeros((20, 24), np.uint8) for _ in range(3)]
    for number, mask in enumerate(masks):
        mask[3 : 8 + number, 5:15] = 255
    columns = {"id": [2, 10, 6010], "image": [255 - mask for mask in masks], "mask": masks}
    kinds = {"id": datasets.Value("int32"), "image": datasets.Image(), "mask": datasets.Image()}
    written = tmp_path / "train.parquet"
    datasets.Dataset.from_dict(columns, features=datasets.Features(kinds)).to_parquet(written)
    files = {"README.md": b"card", "data/train-00000-of-00001.parquet": written.read_bytes()}
    hub_server.repositories[f"dataset {KIDNEY}"] = Repository(files)
    return hub_server


def pull(name: str) -> Result:
    """Run ``promptseg pull`` in this process, where nothing is remembered of earlier failures."""
    hub._failed.clear()
    return CliRunner().invoke(main.app, ["pull", name], catch_exceptions=False)


def pull_apart(name: str) -> subprocess.CompletedProcess[str]:
    """Run ``promptseg pull`` in a process of its own, as a user does."""
    return subprocess.run([Path(sys.executable).with_name("promptseg"), "pull", name], capture_output=True, text=True)


def test_runs_download_a_data_set_once_and_score_it_offline_too(
    kidneys: HubServer, project: Project, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run asks for the newest commit and prints it; a later one without the network gives the same scores."""
    first = project.run(*CELL, "--seg-json", "first.json", code=0, apart=True)
    first.stdout.fnmatch_lines(
        ["cells: 2 scored*", f"note: us_kidney is not pinned; used: revision {COMMIT} of {KIDNEY}"]
    )
    assert kidneys.asked("GET /api")[0] == f"hub GET /api/datasets/{KIDNEY}"
    assert json.loads((caches / "ours/revisions.json").read_text()) == {f"hub:dataset:{KIDNEY}": COMMIT}
    kidneys.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    second = project.run(*CELL, "--seg-rerun", "--seg-json", "second.json", code=0, apart=True)
    second.stdout.fnmatch_lines(["cells: 2 scored*"])
    assert kidneys.requests == []
    scores = [json.loads((project.pytester.path / name).read_text()) for name in ("first.json", "second.json")]
    assert scores[0] == scores[1]


def test_a_run_skips_with_the_reason_until_it_is_over(kidneys: HubServer, project: Project, caches: Path) -> None:
    """A limit skips the cells after one question; with --seg-require they fail; when it is over, a pull succeeds."""
    kidneys.faults = [Fault("", reply=Reply(429, {"Retry-After": "300"}))]
    skipped = project.run(*CELL, "-rs", code=pytest.ExitCode.NO_TESTS_COLLECTED)
    skipped.stdout.fnmatch_lines(
        [
            "*the Hub limits how often*",
            "cells: 2 skipped",
            "*us_kidney: the Hub limits how often *Wait 300 seconds*promptseg pull us_kidney*",
        ]
    )
    assert len(kidneys.requests) == 1
    hub._failed.clear()  # as in a process that begins
    required = project.run(*CELL, "--seg-require", code=1)
    required.assert_outcomes(failed=2)
    assert parts(caches) == []
    kidneys.faults = []
    assert pull("us_kidney").exit_code == 0


def test_a_run_refuses_wrong_bytes(kidneys: HubServer, project: Project) -> None:
    """Data that is not what the Hub stated is a failure, not a skip, and not a score."""
    content = kidneys.repositories[f"dataset {KIDNEY}"].files["data/train-00000-of-00001.parquet"]
    kidneys.faults = [Fault("storage GET", body=content[:-1] + b"X")]
    result = project.run(*CELL, code=1)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([f"*us_kidney: *is not the file that was pinned: expected sha256 {sha256(content)}*"])


def test_the_command_pulls_what_runs_then_find(kidneys: HubServer, project: Project) -> None:
    """``promptseg pull`` tells what it brought and what to pin; a run asks the Hub no more."""
    done = pull_apart("us_kidney")
    assert (done.returncode, f"put into the spec: revision {COMMIT} of {KIDNEY}" in done.stdout) == (0, True), (
        done.stderr
    )
    kidneys.requests.clear()
    project.run(*CELL, code=0, apart=True).stdout.fnmatch_lines(["cells: 2 scored*"])
    assert kidneys.requests == []


def test_the_command_names_a_gate_and_the_token_opens_it(kidneys: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token the terms are named, with it the file comes; storage never sees the token."""
    kidneys.repositories[f"dataset {KIDNEY}"].readers = {"hf_mine"}
    refused = pull("us_kidney")
    assert refused.exit_code == 1
    assert f"is gated. Accept its terms on https://huggingface.co/datasets/{KIDNEY}" in refused.stderr
    assert "Traceback" not in refused.stderr
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert pull("us_kidney").exit_code == 0
    assert {request.headers.get("authorization") for request in kidneys.requests if request.server == "storage"} == {
        None
    }


def test_the_command_resumes_a_cut_connection(kidneys: HubServer) -> None:
    """A file that breaks off once is whole in the end."""
    kidneys.faults = [Fault("storage GET", times=1, cut_at=100)]
    done = pull("us_kidney")
    assert (done.exit_code, len(kidneys.asked("storage GET"))) == (0, 2), done.output


def test_the_recorded_commit_is_asked_for_where_the_hubs_cache_is_gone(kidneys: HubServer, caches: Path) -> None:
    """An unpinned data set stays with the commit of its first run: the next download asks for its 40 digits.

    It takes more than the loss of what was downloaded: the prepared form is all that is needed.
    """
    assert pull("us_kidney").exit_code == 0
    kidneys.requests.clear()
    shutil.rmtree(caches / "hf")
    assert pull("us_kidney").exit_code == 0
    assert kidneys.requests == []
    shutil.rmtree(caches / "ours/prepared")
    assert pull("us_kidney").exit_code == 0
    assert {COMMIT in request.path for request in kidneys.requests if request.server == "hub"} == {True}
