"""Several processes on one machine, each with its share of it; the GPUs are pretended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from promptseg.runner import devices
from promptseg.runner.devices import WorkerSlot


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch believe in two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_each_worker_has_a_gpu_of_its_own(two_gpus: None, wanted: str) -> None:
    """In turn where there are fewer of them than workers, one that replaces a crashed worker included."""
    assert [WorkerSlot(i, 3).device(wanted) for i in (0, 1, 2, 3)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


@pytest.mark.parametrize(("wanted", "device"), [("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_a_chosen_device_is_kept(two_gpus: None, wanted: str, device: str) -> None:
    """What the user names is what is used, by every worker."""
    assert {WorkerSlot(i, 2).device(wanted) for i in (0, 1)} == {device}


def test_a_process_alone_says_cuda_as_ever(two_gpus: None) -> None:
    """Torch's current device, which the user may have chosen by other means."""
    assert WorkerSlot().device("auto") == "cuda"


@pytest.mark.parametrize(
    ("workerinput", "process"),
    [({}, WorkerSlot(0, 1)), ({"workerid": "gw3", "workercount": 4}, WorkerSlot(3, 4))],
)
def test_xdist_tells_which_worker_this_is(workerinput: dict[str, object], process: WorkerSlot) -> None:
    """By the name and the number that xdist gives to its workers."""
    assert devices.of_worker(workerinput) == process


def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes on eight cores have two threads each; one that is alone keeps torch's own choice."""
    taken: list[int] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    WorkerSlot().take_cores()
    assert (taken, os.environ["OMP_NUM_THREADS"]) == ([], "7")
    WorkerSlot(1, 4).take_cores()
    assert (taken, os.environ["OMP_NUM_THREADS"]) == ([2], "2")


def test_cores_are_shared_without_importing_torch(tmp_path: Path) -> None:
    """A model may do without it; where it is imported later, by the model or after it, it has as many threads."""
    code = """
import os, sys
os.environ.pop("OMP_NUM_THREADS", None)
os.cpu_count = lambda: 2
from promptseg.runner.devices import WorkerSlot
WorkerSlot(0, 2).take_cores()
assert "torch" not in sys.modules
import torch
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
