"""The engine ``ray`` on a real cluster of two workers on this machine, compared with runs without it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from support.script_modules import load_script

from promptseg import registry
from promptseg.errors import BrokenPluginError, ConfigError, UnavailableError
from promptseg.results import fingerprints, provenance
from promptseg.results.masks import MaskStore, SavedMask
from promptseg.results.rows import CellResult
from promptseg.results.store import ResultStore, read_all
from promptseg.runner import groups
from promptseg.runner.devices import device_name
from promptseg.runner.options import Options
from promptseg.runner.run import open_run
from promptseg.session import command_line
from promptseg.specs import Cell

# Ray itself is imported late: it reads at its import how to prove to a cluster who it is.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")

N_IMAGES = 14
EMPTY = (2, 7)  # images without the object

# Answers with the bright pixels and with all pixels; an image's first pixel is its number. Its options tell at which
# image the process dies: of a kill from outside, once (a file remembers it), or each time.
ADAPTER = """
import math, os, subprocess, time
from pathlib import Path
import numpy as np
from promptseg import Prediction
from promptseg.errors import UnavailableError


class Fragile:
    def __init__(self, spec, files, runtime):
        self.spec, self.options = spec, spec.options
        if self.options.get("absent", os.getpid()) != os.getpid():
            raise UnavailableError("not for you")

    def embed(self, images):
        time.sleep(self.options.get("sleep", 0))
        for image in images:
            self.live_or_die(math.ceil(int(image[0, 0, 0]) * 220 / 255))
        return list(images)

    def live_or_die(self, number):
        with open(self.options["log"], "a") as log:
            log.write(f"{number}\\n")
        if number == self.options.get("dies_at"):
            subprocess.run(["kill", "-KILL", str(os.getpid())], check=True)  # nothing in this process could stop it
        once = Path(self.options["log"] + ".killed")
        if number == self.options.get("killed_at") and not once.exists():
            once.touch()
            subprocess.run(["kill", "-KILL", str(os.getpid())], check=True)

    def predict(self, requests):
        return [self.answer(r.embedding[..., 0] > 127) for r in requests]

    def answer(self, bright):
        return Prediction(np.stack([bright, np.ones_like(bright)]), np.array([0.9, 0.1], dtype=np.float32))


def load(spec, files, runtime):
    return Fragile(spec, files, runtime)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a project with images, a configuration and an adapter that this process and the workers import."""
    made = tmp_path_factory.mktemp("project")
    (made / "fragile.py").write_text(ADAPTER)
    for kind in ("images", "masks"):
        (made / "squares" / kind).mkdir(parents=True)
    for i in range(N_IMAGES):
        mask = np.zeros((32, 48), dtype=np.uint8)
        if i not in EMPTY:
            mask[4 : 12 + i % 9, 6 : 20 + i % 13] = 1
        image = 40 + 180 * mask
        image[-1, -1] = 220  # so that images without the object are as bright
        image[0, 0], image[4 : 5 + i % 3, 6:10] = i, 30
        Image.fromarray(image).save(made / "squares" / "images" / f"case_{i:02}.png")
        Image.fromarray(mask).save(made / "squares" / "masks" / f"case_{i:02}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(made)
        yield made


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[None]:
    """Start a cluster of two workers, and point this process to it."""
    with load_script("kill_runs").ray_cluster(print):
        yield


class Runs:
    """Evaluations of one test, each in a results folder of its own."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch = folder, scratch

    def configure(self, **command_line: Any) -> None:
        """Write promptseg.toml; ``options`` are those of the model ``fragile``."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in {"log": str(self.log), **command_line}.items()]
        (self._folder / "promptseg.toml").write_text(
            '[datasets.squares]\nfolder = "squares"\nmodality = "phantom"\n'
            '[models.fragile]\nadapter = "fragile:load"\n[models.fragile.options]\n' + "\n".join(lines)
        )

    @property
    def log(self) -> Path:
        """Where the model writes down which images it has seen."""
        return self._scratch / "log"

    def seen(self) -> list[int]:
        """Return the numbers of the images that the model has encoded, and forget them."""
        numbers = sorted(map(int, self.log.read_text().split()))
        self.log.unlink()
        return numbers

    def results(self, engine: str) -> Path:
        """Return the results folder of an engine."""
        return self._scratch / engine

    def evaluate(self, engine: str, cells: Sequence[Cell], **command_line: Any) -> dict[Cell, CellResult]:
        """Evaluate all cells in this process; return what is stored then."""
        known = registry.build(self._folder / "promptseg.toml")
        chosen = Options(root=self._folder, engine=engine, device="cpu", results=self.results(engine), **command_line)
        evaluation = open_run(chosen, known, cells)
        try:
            scores = {cell: evaluation.score(cell) for cell in cells}
        finally:
            evaluation.close()
        store = ResultStore(self.results(engine))
        found = {cell: store.load(cell, score.fingerprint) for cell, score in scores.items()}
        return {cell: result for cell, result in found.items() if result is not None}


@pytest.fixture
def runs(cluster: None, folder: Path, tmp_path: Path) -> Runs:
    """Return what evaluates in this process and on the cluster."""
    made = Runs(folder, tmp_path)
    made.configure()
    return made


def fragile(*names: str) -> list[Cell]:
    """Return cells of the model ``fragile``."""
    return [Cell("fragile", "squares", name) for name in names]


MODES = ("box_each", "clicks_oracle", "point_largest")


def assert_same(one: dict[Cell, CellResult], other: dict[Cell, CellResult]) -> None:
    """Compare all but the seconds, and the provenance of the parts that results depend on."""
    assert one.keys() == other.keys()
    assert one
    for cell in one:
        assert one[cell].fingerprint == other[cell].fingerprint
        assert one[cell].n_examined == other[cell].n_examined
        rows, others = ([asdict(row) for row in result.rows] for result in (one[cell], other[cell]))
        assert len(rows) == len(others) > 0
        for row, same in zip(rows, others, strict=True):
            for name in row.keys() - {"seconds"}:
                expected = same[name]
                assert row[name] == (pytest.approx(expected, abs=1e-6) if _is_number(expected) else expected), name


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, list) and all(isinstance(v, float) for v in value))


def test_without_its_package_the_engine_is_a_usage_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anything is evaluated, with the command that helps."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else real(name, *more))
    with pytest.raises(pytest.UsageError, match=r"needs the package ray: pip install 'pytest-promptseg\[ray\]'"):
        command_line.read(pytester.parseconfig("--seg-engine", "ray"))


def test_processes_of_xdist_are_refused_beside_it(pytester: pytest.Pytester) -> None:
    """Each would take the workers from the others; the message says what to leave out."""
    result = pytester.runpytest_inprocess("-n", "2", "--seg-engine", "ray")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--seg-engine ray spreads the cases over workers by itself*leave -n out."])


def test_devices_and_addresses_that_cannot_be_had_are_refused(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU where there is none, one GPU for all, Ray's client."""
    from promptseg.runner.ray_engine import Cluster

    joined = Cluster(Options())
    assert (joined.device("auto"), joined.device("cpu")) == ("cpu", "cpu")
    with pytest.raises(ConfigError, match="--seg-device cuda: the Ray cluster has no GPU"):
        joined.device("cuda")
    with pytest.raises(ConfigError, match=r"--seg-device cuda:1 does not work .* choose auto, cuda or cpu"):
        joined.device("cuda:1")
    joined.close()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"no Ray cluster can be reached \(RAY_ADDRESS=127.0.0.1:1\).*refused"):
        Cluster(Options())
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS is ray://head:10001.*ray job submit"):
        Cluster(Options())


def test_rows_are_those_of_a_run_without_it(runs: Runs) -> None:
    """Floors and a classical model on a phantom and on a folder with images of other tasks, in three modes."""
    names = [("point_disc", m) for m in MODES[1:]] + [("region_growing", m) for m in MODES]
    cells = [*(Cell(model, "phantom_ct", m) for model, m in names), *fragile(*MODES)]
    remote = runs.evaluate("ray", cells)
    assert_same(remote, runs.evaluate("local", cells))
    assert {len(remote[cell].rows) for cell in fragile("box_each")} == {N_IMAGES - len(EMPTY)}
    about = remote[cells[0]].provenance.as_json()
    assert about["engine"].pop("version") == version("ray")
    name = device_name("cpu")
    assert about["engine"] == {"name": "ray", "workers": 2, "nodes": 1, "devices": [name], "lost": 0}
    assert about["device_name"] == name
    assert about["versions"] == provenance.versions()


def test_a_limit_takes_the_same_cases_and_a_later_run_the_rest(runs: Runs) -> None:
    """Images without the object do not count, and nothing is evaluated twice; masks are kept as well."""
    cells = fragile("box_each", "point_largest")
    assert_same(
        runs.evaluate("ray", cells, limit=5, save_masks=True), runs.evaluate("local", cells, limit=5, save_masks=True)
    )
    assert masks(runs, "ray", cells) == masks(runs, "local", cells)
    runs.seen()
    assert_same(runs.evaluate("ray", cells, save_masks=True), runs.evaluate("local", cells, save_masks=True))
    assert masks(runs, "ray", cells) == masks(runs, "local", cells)
    assert len(runs.seen()) == 2 * (N_IMAGES - len(EMPTY) - 5)


def masks(runs: Runs, engine: str, cells: Sequence[Cell]) -> list[list[SavedMask]]:
    """Return the stored masks of each cell; two for each case at least."""
    store = MaskStore(runs.results(engine), print)
    latest = {result.cell: result for _, result in read_all(runs.results(engine))}
    found = [store.read(cell, latest[cell].fingerprint) for cell in cells]
    assert [len(some) for some in found] == [2 * len(latest[cell].rows) for cell in cells]
    return found


def test_a_killed_worker_loses_nothing(runs: Runs) -> None:
    """SIGKILL in the middle: its cases are done by others, each counted once."""
    runs.configure(killed_at=9)
    remote = runs.evaluate("ray", fragile(*MODES))
    assert_same(remote, runs.evaluate("local", fragile(*MODES)))
    assert remote[fragile(*MODES)[0]].provenance.as_json()["engine"]["lost"] == 1


def test_a_case_that_kills_its_worker_fails_by_name(runs: Runs) -> None:
    """After three deaths alone with it; all other cases are evaluated."""
    runs.configure(dies_at=5)
    [result] = runs.evaluate("ray", fragile("box_each"), max_errors=1).values()
    runs.configure()
    [healthy] = runs.evaluate("local", fragile("box_each")).values()
    assert {row.case_id: row.error.split(" while")[0] for row in result.rows if row.error} == {
        "case_05": "its worker died 3 times"
    }
    assert [row.case_id for row in result.rows] == [row.case_id for row in healthy.rows]
    ious = {row.case_id: row.iou_oracle for row in healthy.rows if row.case_id != "case_05"}
    assert {row.case_id: row.iou_oracle for row in result.rows if not row.error} == ious


def test_a_worker_that_is_not_what_the_driver_is_is_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other code, or another version of a library: the message names each, with both values."""
    monkeypatch.setattr(fingerprints, "PROTOCOL_VERSION", 2)
    monkeypatch.setattr(provenance, "versions", lambda: {"numpy": "1.0.0+cpu"})
    with pytest.raises(ConfigError) as caught:
        runs.evaluate("ray", fragile("box_each"))
    message = str(caught.value)
    assert "protocol is ['paper', 1] there, ['paper', 2] here" in message
    assert f"version of numpy is {np.__version__} there, 1.0.0 here" in message
    assert "the same environment" in message


def test_a_reduced_dtype_is_guarded_by_a_worker(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The model is compared with float32 where it runs, not in the driver; results record the agreement."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    [result] = runs.evaluate("ray", [Cell("region_growing", "phantom_ct", "box_all")], dtype="bfloat16").values()
    assert result.provenance.as_json()["precision"]["n"] == 8
    assert result.provenance.as_json()["precision"]["disagreement"] == {"first": 0.0, "confident": 0.0, "oracle": 0.0}
    assert result.provenance.as_json()["engine"]["name"] == "ray"


def test_early_stopping_is_refused_beside_it(pytester: pytest.Pytester) -> None:
    """It looks at one case after the other."""
    result = pytester.runpytest_inprocess("--seg-until-sure", "--seg-engine", "ray")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--seg-until-sure looks at one case after the other*"])


def test_an_error_of_a_worker_keeps_its_kind_and_names_its_node(runs: Runs) -> None:
    """What one node lacks makes the cells skip or fail as it would here; the message says which node it is."""
    runs.configure(absent=os.getpid())
    with pytest.raises(UnavailableError, match=f"fragile on squares failed on node {platform.node()}: not for you"):
        runs.evaluate("ray", fragile("box_each"))


def test_workers_that_keep_dying_fail_the_group(cluster: None) -> None:
    """Their pending shards are kept for others, until ten have died with nothing finished in between."""
    from ray.exceptions import ActorDiedError

    from promptseg.evaluation.jobs import Finished
    from promptseg.runner import ray_engine
    from promptseg.runner.shards import Case, Shard, Shards

    named = SimpleNamespace(name="some")
    group = cast(groups.ModelOnDataset, SimpleNamespace(model=named, dataset=named))
    shards = Shards([], 1, 1)
    evaluation = ray_engine._Evaluation(cast(Any, None), {}, Finished([]), group, shards, lambda _: None, n_workers=1)

    def die() -> None:
        dead = ray_engine._WorkerState(None, None)
        dead.pending.append((None, Shard((Case("a", (0,)), Case("b", (0,))))))
        evaluation._on_worker_lost(dead, ActorDiedError())

    for _ in range(10):
        die()
    assert shards.take() == Shard((Case("a", (0,)),))
    with pytest.raises(BrokenPluginError, match=r"11 workers died .* some on some .* nothing was finished in between"):
        die()


def test_cases_that_a_killed_run_has_finished_become_a_result_that_tells_the_device(runs: Runs) -> None:
    """Killed between the last case and its result: nothing is evaluated, and the device is that of the workers."""
    [cell] = fragile("box_each")
    whole = runs.evaluate("ray", [cell])
    shutil.rmtree(runs.results("ray"))
    journal = ResultStore(runs.results("ray")).journal(cell, whole[cell].fingerprint)
    for case_id in (f"case_{i:02}" for i in range(N_IMAGES)):
        journal.append(case_id, [row for row in whole[cell].rows if row.case_id == case_id])
    runs.seen()
    again = runs.evaluate("ray", [cell])
    assert not runs.log.exists()
    assert_same(again, whole)
    for key in ("device_name", "versions"):
        assert again[cell].provenance.json[key] == whole[cell].provenance.json[key]


def test_a_driver_that_is_killed_leaves_finished_cases_and_no_workers(runs: Runs, folder: Path) -> None:
    """With a cluster of its own: kill -9 of pytest ends that too, and the next run evaluates only the rest."""
    runs.configure(sleep=0.3)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS" and not k.startswith("PYTEST")}
    cells = ("--seg-models", "fragile", "--seg-tasks", "squares", "--seg-modes", "box_each", "--seg-device", "cpu")
    command = ["-m", "pytest", "--pyargs", "promptseg.benchmark", "-p", "no:cacheprovider", "--seg-engine", "ray"]
    driver = subprocess.Popen(
        [sys.executable, *command, *cells, f"--seg-results={runs.results('ray')}"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with driver:
        wait_for(lambda: len(finished(runs.results("ray"))) >= 3, 120)
        started = [pid for pid in descendants(driver.pid) if not command_of(pid).endswith("Agent")]
        agents = set(descendants(driver.pid)) - set(started)
        driver.kill()
    try:
        wait_for(lambda: not any(map(alive, started)), 60)
    finally:  # Ray's own agents take a minute or two to find out that they are alone
        for pid in filter(alive, [*agents, *started]):
            os.kill(pid, signal.SIGKILL)
    kept = finished(runs.results("ray"))
    assert 3 <= len(kept) < N_IMAGES
    runs.seen()
    remote = runs.evaluate("ray", fragile("box_each"))
    assert len(runs.seen()) == N_IMAGES - len(EMPTY) - len([name for name, rows in kept.items() if rows])
    assert_same(remote, runs.evaluate("local", fragile("box_each")))


def finished(results: Path) -> dict[str, int]:
    """Return the cases in journals with their number of rows."""
    lines = [
        line for path in results.glob("*/*/.journals/*.journal") for line in path.read_text().splitlines(keepends=True)
    ]
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return {entry["case_id"]: len(entry["rows"]) for entry in entries}


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; fail when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def stat(pid: int) -> list[str]:
    """Return state and parent of a process, and so on, from /proc; empty where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def command_of(pid: int) -> str:
    """Return the command line of a process, empty where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0 ")
    return ""


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    return stat(pid)[:1] not in ([], ["Z"])


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    parents = {int(path.name): stat(int(path.name))[1:2] for path in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == [str(one)]]
    return found
