"""What a plugin changes in the process is put back, named once, and seen by nobody else."""

# ruff: noqa: NPY002, S311, T201 - the functions that plugins call

from __future__ import annotations

import locale
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from promptseg.errors import ModelError
from promptseg.runner.ends import Plugin
from promptseg.runner.plugin_calls import PluginCalls
from promptseg.runner.process_state import settings

MODEL = Plugin("habit")


@pytest.fixture
def said() -> list[str]:
    """What the user would read."""
    return []


@pytest.fixture
def calls(said: list[str]) -> PluginCalls:
    """The calls of a run with seed 5."""
    return PluginCalls(5, said.append)


def _enter_inference() -> None:
    mode: Any = torch.inference_mode()
    mode.__enter__()
    _KEPT.append(mode)


_KEPT: list[Any] = []
HABITS: dict[str, Callable[[], object]] = {
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float16),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "autocast of torch on cpu": lambda: cast("Any", torch.autocast("cpu", torch.float16)).__enter__(),
    "torch's cache of autocast": lambda: torch.set_autocast_cache_enabled(False),
    "the inference and grad mode of torch": _enter_inference,
    "deterministic algorithms of torch": lambda: torch.use_deterministic_algorithms(True),
    "the precision of float32 in torch": lambda: torch.set_float32_matmul_precision("high"),
    "torch.backends.cudnn.deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "math attention of torch": lambda: torch.backends.cuda.enable_math_sdp(False),
    "the number of threads of torch": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "the flushing of denormal numbers": lambda: torch.set_flush_denormal(True),
    "NumPy's error handling": lambda: np.seterr(invalid="raise"),
    "NumPy's error callback": lambda: np.seterrcall(lambda *_: None),
    "NumPy's print options": lambda: np.set_printoptions(precision=2),
    "the optimised code of OpenCV": lambda: cv2.setUseOptimized(not cv2.useOptimized()),
    "the working directory": lambda: os.chdir("/"),
    "sys.stdin, sys.stdout or sys.stderr": lambda: setattr(sys, "stderr", None),
    "signal handlers": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "the alarm of the process": lambda: signal.alarm(600),
    "the locale": lambda: locale.setlocale(locale.LC_CTYPE, "C"),
}


@pytest.mark.parametrize("name", HABITS)
def test_a_change_is_put_back_and_named_once(name: str, calls: PluginCalls, said: list[str]) -> None:
    """By the name of the model and what it changed, where it changed it; a second time nobody needs to read it."""
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    before = {setting.name: setting.get() for setting in settings()}
    for what in ("load()", "embed() of 1 image"):
        calls.make(MODEL, what, HABITS[name])
    assert {setting.name: setting.get() for setting in settings()} == before
    [sentence] = said
    assert sentence.startswith(f"model 'habit' changed {name}")
    assert " in load(). It was put back" in sentence


def test_a_call_starts_from_the_state_of_the_run_whatever_was_left_before_it(calls: PluginCalls) -> None:
    """Also by threads that nobody waits for, or by a test between two cells, whose state is not touched either."""
    calls.make(MODEL, "load()", lambda: None)
    torch.set_default_dtype(torch.float64)
    try:
        assert calls.make(MODEL, "predict()", torch.get_default_dtype) == torch.float32
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_value_set_in_load_is_not_in_force_later(calls: PluginCalls) -> None:
    """A score must not depend on what a call before it has left; the notice says so."""
    calls.make(MODEL, "load()", lambda: torch.set_grad_enabled(False))
    assert calls.make(MODEL, "predict()", torch.is_grad_enabled)


def test_what_bears_on_its_own_code_alone_a_plugin_keeps_for_its_calls(calls: PluginCalls, said: list[str]) -> None:
    """Environment variables, warnings filters and limits: others do not see them, nor do later changes get lost."""

    def load() -> None:
        os.environ["HABIT_HOME"] = "here"
        del os.environ["HABIT_GONE"]
        warnings.filterwarnings("ignore", message="habit")
        sys.setrecursionlimit(sys.getrecursionlimit() + 1000)
        PIL.Image.MAX_IMAGE_PIXELS = None

    def seen() -> tuple[Any, ...]:
        return (
            os.environ.get("HABIT_HOME"),
            os.environ.get("HABIT_GONE"),
            os.environ.get("HABIT_TEST"),
            any("habit" in str(entry[1]) for entry in warnings.filters),
            sys.getrecursionlimit(),
            PIL.Image.MAX_IMAGE_PIXELS,
        )

    os.environ["HABIT_GONE"] = "no"
    try:
        before = seen()
        calls.make(MODEL, "load()", load)
        assert seen() == before
        os.environ["HABIT_TEST"] = "new"  # as a fixture of the user's sets it for one test
        assert calls.make(MODEL, "predict()", seen) == ("here", None, "new", True, before[4] + 1000, None)
        assert calls.make(Plugin("other"), "predict()", seen) == (None, "no", "new", *before[3:])
        assert os.environ["HABIT_GONE"] == "no"
    finally:
        del os.environ["HABIT_GONE"], os.environ["HABIT_TEST"]
    assert said == []


def _drawn() -> tuple[float, ...]:
    cv2_noise = np.zeros(1)
    cv2.randu(cv2_noise, np.zeros(1), np.ones(1))
    return random.random(), np.random.rand(), np.random.randn(), float(torch.rand(())), float(cv2_noise[0])


def test_random_generators_are_set_by_seed_and_model_and_put_back(calls: PluginCalls) -> None:
    """Whatever was drawn before: each call of a model draws the same, another model and another seed draw others."""
    np.random.seed(3)
    np.random.randn()  # half of a pair: the other half is kept
    states = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    drawn = calls.make(MODEL, "predict()", _drawn)
    random.random()
    assert calls.make(MODEL, "predict()", _drawn) == drawn
    assert not set(calls.make(Plugin("other"), "predict()", _drawn)) & set(drawn)
    assert not set(PluginCalls(6, print).make(MODEL, "predict()", _drawn)) & set(drawn)
    random.setstate(states[0])
    calls.make(MODEL, "predict()", _drawn)
    assert random.getstate() == states[0]
    numpy: Any = np.random.get_state(legacy=False)
    np.testing.assert_equal(numpy, states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_state_of_a_failed_call_is_put_back_too(calls: PluginCalls, said: list[str]) -> None:
    """An error does not leave more behind than an answer."""

    def fail() -> None:
        np.seterr(all="raise")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        calls.make(MODEL, "embed()", fail)
    assert np.geterr()["divide"] == "warn"
    assert len(said) == 1


def test_streams_stay_open(calls: PluginCalls, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that closes standard output, as code of scripts does, does not make the run dumb."""
    calls.make(MODEL, "load()", lambda: sys.stdout.close())
    print("still there")
    assert capsys.readouterr().out == "still there\n"
    assert "close" not in vars(sys.stdout)


def test_a_call_of_a_thread_that_was_given_up_changes_nothing_later(calls: PluginCalls) -> None:
    """Its end comes when another model is called: that one's state is its own."""
    began, release = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        release.wait(30)
        np.random.seed(0)

    thread = threading.Thread(target=lambda: calls.make(MODEL, "predict()", hang))

    def other() -> tuple[float, float]:
        first = random.random()
        release.set()
        thread.join()
        return first, random.random()

    with calls.running():
        expected = calls.make(Plugin("other"), "predict()", lambda: (random.random(), random.random()))
        thread.start()
        began.wait(30)
        assert calls.make(Plugin("other"), "predict()", other) == expected


def test_beside_the_model_only_the_state_of_the_thread_is_kept(calls: PluginCalls, said: list[str]) -> None:
    """The state of the process is the model's, which works at the same time."""

    def prepare() -> str:
        np.seterr(all="raise")
        torch.set_grad_enabled(False)
        return threading.current_thread().name

    names: list[Any] = []
    with calls.running():
        state = random.getstate()
        thread = threading.Thread(
            name="worker",
            target=lambda: names.append((calls.make_beside(MODEL, "prepare_image()", prepare), np.geterr()["over"])),
        )
        thread.start()
        thread.join()
        assert random.getstate() == state
    assert names == [("worker", "warn")]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("call", "touches"),
    [
        (lambda: np.zeros(3).sum(), False),
        (lambda: torch.zeros(3).sum(), False),
        (lambda: np.random.rand(), True),
        (lambda: torch.rand(1), True),
        (lambda: torch.set_num_threads(torch.get_num_threads() + 1), True),
    ],
    ids=["numpy", "torch", "draws by numpy", "draws by torch", "threads"],
)
def test_what_touches_the_process_is_seen(calls: PluginCalls, call: Callable[[], object], touches: bool) -> None:
    """Such a function cannot be called beside the model."""
    assert calls.touches_process(MODEL, "prepare_image()", call)[1] is touches


def test_changes_of_the_run_itself_stay(calls: PluginCalls, said: list[str]) -> None:
    """Its share of the cores holds in all calls, and is nobody's change."""
    n = torch.get_num_threads()
    try:
        with calls.running():
            calls.set_by_run(lambda: torch.set_num_threads(n + 1))
            assert calls.make(MODEL, "load()", torch.get_num_threads) == n + 1
        assert torch.get_num_threads() == n + 1
    finally:
        torch.set_num_threads(n)
    assert calls.make(MODEL, "predict()", torch.get_num_threads) == n + 1
    assert said == []


def test_the_message_says_what_differs_and_what_to_use(calls: PluginCalls, said: list[str]) -> None:
    """Of a group of values those that changed."""
    calls.make(MODEL, "load()", lambda: np.seterr(over="ignore"))
    assert said == [
        "model 'habit' changed NumPy's error handling (over warn to ignore) in load(). It was put back: every call "
        "starts from the state of the run. Where the plugin relies on this, its score is not the one that its author "
        "sees. What it needs it should set inside embed() and predict(): np.errstate(...)."
    ]


def test_a_folder_that_is_gone_is_no_error(calls: PluginCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that a plugin went to, and removed."""
    monkeypatch.chdir(tmp_path)

    def leave() -> None:
        (tmp_path / "new").mkdir()
        os.chdir("new")
        (tmp_path / "new").rmdir()

    calls.make(MODEL, "load()", leave)
    assert Path.cwd() == tmp_path


def test_errors_keep_their_kind(calls: PluginCalls) -> None:
    """Only what would end the run becomes another error; see test_ends.py."""
    with pytest.raises(KeyError):
        calls.make(MODEL, "load()", lambda: os.environ["HABIT_MISSING"])
    with pytest.raises(ModelError, match=r"model 'habit' called sys.exit\('bye'\) in load\(\)"):
        calls.make(MODEL, "load()", lambda: sys.exit("bye"))
