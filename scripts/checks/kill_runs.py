"""Kill runs with SIGKILL at random moments and check that nothing that was finished is lost.

    .venv/bin/python scripts/checks/kill_runs.py [--kills 50] [--seed 0]

In a temporary folder, two data sets of small pictures are evaluated by a slow model. What is killed is the run, the
controller of pytest-xdist or one of its workers, the driver of a run with Ray or one of its workers. Half of the
moments lie anywhere in the run, half near its end, where journals become results (of a Ray worker near its start).
After each kill every case whose line in a journal was complete before is looked for; then the same command goes on, and
is killed again. A run that lost a Ray worker must come to its end by itself. When a run ends, its rows, masks and board
are compared with those of a run in one process that nobody disturbed, and the folder is emptied. Half of the rounds
save masks. Exits with 1 if anything was lost. Runs with Ray share one cluster of two workers; where the extra ray is
not installed they are left out, and the script says so.
Linux only: it reads /proc. Takes half an hour on a busy machine of two cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from promptseg.results.masks import MASKS
from promptseg.results.parquet import read_parquet
from promptseg.results.store import JOURNALS, VERSIONS

IMAGES = 20
SECONDS = 0.1
MODES = "point_largest,box_all,clicks_first"
PATIENCE = 300.0  # seconds until a run counts as one that hangs
RAY_START = 5.0  # seconds that a Ray worker takes from its beginning to its first case, about
XDIST, RAY = ("-n", "2"), ("--seg-engine", "ray")
VICTIMS = {"run": (), "xdist controller": XDIST, "xdist worker": XDIST, "Ray driver": RAY, "Ray worker": RAY}
MODEL = f"""
import time
import numpy as np
from promptseg import Prediction

class Slow:
    def __init__(self, spec, files, runtime):
        self.spec = spec

    def embed(self, images):
        time.sleep({SECONDS})
        return list(images)

    def predict(self, requests):
        bright = [r.embedding[..., 0] > 127 for r in requests]
        return [Prediction(np.stack([b, ~b]), np.array([0.9, 0.1], dtype=np.float32)) for b in bright]

def load(spec, files, runtime):
    return Slow(spec, files, runtime)
"""
PROJECT = """
[models.slow]
adapter = "slow:load"
[datasets.left]
folder = "left"
modality = "phantom"
[datasets.right]
folder = "right"
modality = "phantom"
"""
# It ends when its input does.
CLUSTER = """
import sys, ray
cluster = ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(cluster.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""

Finished = set[tuple[str, str]]
"""(model/task/mode, case id) of each finished case."""


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: how many of each kind of process.
        rounds: runs that came to an end and were compared.
        kept: finished cases that were looked for after a kill, all kills together.
        problems: what was lost or differs.
    """

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


def make_project(folder: Path) -> None:
    """Write the model, the data sets and promptseg.toml."""
    (folder / "slow.py").write_text(MODEL)
    (folder / "promptseg.toml").write_text(PROJECT)
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\nseg_device = cpu\n")
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        for kind in ("images", "masks"):
            (folder / name / kind).mkdir(parents=True)
        for i in range(IMAGES):
            mask = np.zeros((24, 32), dtype=np.uint8)
            mask[2 : 5 + i % 19, 4 : 9 + i] = 1
            image = (60 + 120 * mask + rng.integers(0, 60, mask.shape)).astype(np.uint8)
            Image.fromarray(image).save(folder / name / "images" / f"{i:02}.png")
            Image.fromarray(mask).save(folder / name / "masks" / f"{i:02}.png")


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start the run. What it says is in the file ``output``."""
    command = [sys.executable, "-m", "pytest", "--pyargs", "promptseg.benchmark", "-q", "-p", "no:cacheprovider"]
    command += ["--seg-models", "slow", "--seg-tasks", "left,right", "--seg-modes", MODES, *more]
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)


@contextmanager
def ray_cluster(show: Callable[[str], None]) -> Iterator[int | None]:
    """Start a Ray cluster that runs join; yield its process, None where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        show("the extra ray is not installed: neither drivers nor workers of Ray are killed")
        yield None
        return
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", CLUSTER]
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as files,  # sockets need a short path
        patch.dict(os.environ, settings, RAY_TMPDIR=files),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as head,
    ):
        os.environ["RAY_ADDRESS"] = head.stdout.readline().strip() if head.stdout else ""
        if not os.environ["RAY_ADDRESS"]:
            raise RuntimeError("no Ray cluster could be started")
        yield head.pid


def finished(folder: Path) -> Finished:
    """Return what is in whole lines of journals and in results; never less than there is while runs go on."""
    found: Finished = set()
    results = folder / "leaderboard" / "results"
    for journal in results.glob(f"*/*/{JOURNALS}/*.journal"):
        with suppress(FileNotFoundError):  # it is in the results by now, which are read next
            for line in journal.read_bytes().split(b"\n")[:-1]:
                found.add((_cell(journal), json.loads(line)["case_id"]))
    while True:
        try:
            for path in results.glob(f"*/*/{VERSIONS}/*.parquet"):
                found |= {(_cell(path), row.case_id) for row in read_parquet(path).rows}
        except Exception as error:
            if isinstance(error.__cause__, FileNotFoundError):  # a newer one has just taken its place
                continue
            raise
        return found


def _cell(path: Path) -> str:
    *_, model, task, _, name = path.parts
    return f"{model}/{task}/{name.split('-')[0]}"


def content(folder: Path) -> dict[str, Any]:
    """Return all that a run leaves: rows without times, masks, and the board."""
    results = folder / "leaderboard" / "results"
    rows = {
        path.relative_to(results).as_posix(): [asdict(row) | {"seconds": 0} for row in read_parquet(path).rows]
        for path in sorted(results.glob("*/*/*.parquet"))
    }
    masks = {
        f"masks {_cell(path)}": pq.read_table(path).to_pylist()
        for path in sorted(results.glob(f"*/*/{MASKS}/*.parquet"))
    }
    left = {f"{path.name}, left over,": True for path in results.rglob("*.journal")}
    return {**rows, **masks, **left, "board": (folder / "leaderboard" / "LEADERBOARD.md").read_text()}


def workers(victim: str, run: int, cluster: int | None) -> list[int]:
    """Return the processes that evaluate for a run: its children, or what holds the model in the cluster."""
    if VICTIMS[victim] != RAY:
        return _children([run])
    below = _children([cluster] if cluster else [])  # raylet, whose children are the workers, and others
    return [pid for pid in _children(below) if _read(pid, "cmdline").startswith("ray::_Actor")]


def _children(pids: list[int]) -> list[int]:
    found = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in found if any(_stat(pid)[1:2] == [str(parent)] for parent in pids)]


def _alive(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"])


def _stat(pid: int) -> list[str]:
    """Return state, parent and so on; empty for a process that is gone."""
    return _read(pid, "stat").rpartition(")")[2].split()


def _read(pid: int, name: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text()
    return ""


def wait_for(what: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
    """Wait until something is so, or the run is over."""
    while running.poll() is None and not what():
        time.sleep(0.01)


def kill_once(
    folder: Path, victim: str, rng: np.random.Generator, tally: Tally, cluster: int | None, *more: str
) -> bool:
    """Run, kill at a random moment, and check; return whether the results are complete, killed or not."""
    running = start(folder, *more, *VICTIMS[victim])
    wait_for_moment(folder, victim, rng, running, cluster)
    before = finished(folder)
    evaluating = workers(victim, running.pid, cluster)
    targets = evaluating if victim.endswith("worker") else [running.pid]
    dead = bool(targets) and _kill(running, int(rng.choice(targets)))
    after = finished(folder)
    if dead:
        tally.kills[victim] += 1
        tally.kept += len(before)
        if lost := before - after:
            tally.problems.append(f"a killed {victim} lost {sorted(lost)}")
    complete = _end(running, tally) == 0
    if dead and victim == "Ray worker" and not complete:
        tally.problems.append(f"a run did not get over a killed {victim}: {_said(folder)}")
    if not (dead or complete):
        raise RuntimeError(f"a run that nobody killed failed: {_said(folder)}")
    while any(map(_alive, evaluating)):  # workers end by themselves when their controller is gone
        time.sleep(0.02)
    return complete


def wait_for_moment(
    folder: Path, victim: str, rng: np.random.Generator, running: subprocess.Popen[bytes], cluster: int | None
) -> None:
    """Wait for a moment anywhere in the run, or for one near its end; for a Ray worker anywhere, or near its start."""
    whole, already = 2 * IMAGES * len(MODES.split(",")), len(finished(folder))
    anywhere = rng.random() < 0.5
    if victim == "Ray worker" and not anywhere:
        wait_for(lambda: bool(workers(victim, running.pid, cluster)), running)
        time.sleep(rng.uniform(0, RAY_START))
    elif anywhere and victim != "Ray worker":
        wait_for(lambda: len(finished(folder)) > already, running)
        time.sleep(rng.uniform(0, (whole - already) / whole * 2 * IMAGES * SECONDS))
    else:  # by what is finished: how long Ray takes to start depends on the machine
        least = int(rng.integers(already, whole + 1)) if anywhere else whole - 3
        wait_for(lambda: len(finished(folder)) >= max(already + 1, least), running)
        time.sleep(rng.uniform(0, 0.2))


def _kill(running: subprocess.Popen[bytes], pid: int) -> bool:
    """Kill a process of the run; return whether it was still alive."""
    if running.poll() is not None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _end(running: subprocess.Popen[bytes], tally: Tally) -> int:
    """Wait for the end of a run and return its status; one that hangs is a problem, and killed."""
    try:
        return running.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        tally.problems.append(f"a run was still there after {PATIENCE:.0f} seconds")
        running.kill()
        return running.wait()


def _said(folder: Path) -> str:
    return (folder / "output").read_text()[-3000:]


def kill_runs(folder: Path, kills: int, seed: int, show: Callable[[str], None] = print) -> Tally:
    """Kill so many times in a project below ``folder``, and compare every run that came to its end."""
    make_project(folder)
    rng, tally = np.random.default_rng(seed), Tally()
    undisturbed: dict[tuple[str, ...], dict[str, Any]] = {}
    with ray_cluster(show) as cluster:
        victims = [victim for victim, how in VICTIMS.items() if cluster or how != RAY]
        while sum(tally.kills.values()) < kills:
            more = ("--seg-save-masks",) if tally.rounds % 2 else ()
            if more not in undisturbed:
                undisturbed[more] = _to_the_end(folder, *more)
            complete = False
            while not complete and sum(tally.kills.values()) < kills:
                victim = victims[sum(tally.kills.values()) % len(victims)]
                complete = kill_once(folder, victim, rng, tally, cluster, *more)
                count, problems = sum(tally.kills.values()), tally.problems or "ok"
                show(f"{count} kills, {tally.kept} finished cases looked for, {problems}")
            found, expected = _taken(folder) if complete else _to_the_end(folder, *more), undisturbed[more]
            tally.rounds += 1
            for key in sorted(found.keys() | expected.keys()):
                if found.get(key) != expected.get(key):
                    tally.problems.append(f"round {tally.rounds}: {key} is not that of a run that nobody disturbed")
    return tally


def _to_the_end(folder: Path, *more: str) -> dict[str, Any]:
    """Let the run end, return what it leaves, and empty the folder."""
    if start(folder, *more).wait() != 0:
        raise RuntimeError(f"the run in {folder} failed: {_said(folder)}")
    return _taken(folder)


def _taken(folder: Path) -> dict[str, Any]:
    found = content(folder)
    shutil.rmtree(folder / "leaderboard")
    return found


def main() -> int:
    """Kill, tell what happened, and return the exit status."""
    parser = argparse.ArgumentParser(description="Kill runs at random moments; nothing that was finished may be lost.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_runs(Path(folder), arguments.kills, arguments.seed)
    for problem in tally.problems:
        print(f"problem: {problem}")
    total = sum(tally.kills.values())
    kinds = ", ".join(f"{count} of a {victim}" for victim, count in sorted(tally.kills.items()))
    print(f"kills: {kinds}; {tally.kept} finished cases looked for")
    print(f"{tally.rounds} rounds compared with a run that nobody disturbed")
    print(f"{total} of {total} lost nothing" if not tally.problems else f"{len(tally.problems)} problems")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
