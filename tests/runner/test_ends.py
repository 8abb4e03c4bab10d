"""No plugin ends the run, or the process: what would do so fails its own call, by name."""

# ruff: noqa: S606 - what plugins call; it must be looked up at that time

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from promptseg.errors import BrokenPluginError, ModelError
from promptseg.runner.ends import Plugin, called, interruptible

MODEL = Plugin("quitter")


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: os._exit(0), r"called os._exit\(0\)"),
        (lambda: os.abort(), r"called os.abort\(\)"),
        (lambda: os.execlp(sys.executable, "python", "-c", "pass"), r"called os.execv\("),
        (lambda: os.execve(sys.executable, ["python"], {}), r"called os.execve\("),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"called os.kill\("),
        (lambda: os.kill(0, signal.SIGTERM), r"called os.kill\("),
        (lambda: os.killpg(os.getpgrp(), signal.SIGKILL), r"called os.killpg\("),
        (lambda: signal.raise_signal(signal.SIGABRT), r"called signal.raise_signal\("),
        (lambda: sys.exit(), r"called sys.exit\(None\)"),
        (lambda: _raise(SystemExit("usage: x")), r"called sys.exit\('usage: x'\)"),
        (lambda: next(iter(())), r"raised StopIteration"),
        (lambda: _raise(GeneratorExit()), r"raised GeneratorExit"),
        (lambda: pytest.skip("no device"), r"raised Skipped"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_end_is_an_error_that_names_the_model_and_the_call(call: Callable[[], object], words: str) -> None:
    """Whether Python calls it an exception or the system ends the process."""
    with pytest.raises(ModelError, match=rf"model 'quitter' {words}.* in predict\(\) of 2 prompts"):
        called(MODEL, "predict() of 2 prompts", call)
    assert os._exit.__module__ == "posix"


def test_a_handler_of_the_plugin_is_its_own_affair() -> None:
    """A signal to itself that some code of its handles ends nothing; nor does asking whether it runs."""
    seen: list[int] = []

    def poke() -> None:
        usual = signal.signal(signal.SIGUSR2, lambda number, _: seen.append(number))
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), 0)
        signal.signal(signal.SIGUSR2, usual)

    called(MODEL, "load()", poke)
    assert seen == [signal.SIGUSR2]


def test_children_and_other_threads_end_as_they_like() -> None:
    """A process that the plugin started, a child that it forked and watches, and a thread that keeps a time limit."""

    def work() -> int:
        assert subprocess.run([sys.executable, "-c", "import os; os._exit(5)"], check=False).returncode == 5
        child = os.fork()
        if child == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert called(MODEL, "load()", work) == 7
    ended: list[Any] = []
    usual, os._exit = os._exit, ended.append  # type: ignore[assignment]
    try:
        thread = threading.Thread(target=lambda: os._exit(3))
        called(MODEL, "load()", thread.start)
        thread.join()
    finally:
        os._exit = usual
    assert ended == [3]


def test_a_child_that_comes_back_ends_there() -> None:
    """Else it would go on as a second run, on the same journals."""
    children: list[int] = []

    def fork() -> str:
        child = os.fork()
        if child:
            children.append(child)
        return "parent" if child else "child"

    assert called(MODEL, "predict()", fork) == "parent"
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1


@pytest.fixture
def usual_interrupt() -> Iterator[None]:
    """Let a Ctrl-C interrupt: a shell starts what runs in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_interrupt")
def test_ctrl_c_comes_through_and_an_exception_of_the_same_kind_does_not() -> None:
    """The user's interrupts the run; a plugin's own fails its call."""

    def interrupt() -> None:
        signal.default_int_handler(signal.SIGINT, None)

    with interruptible():
        with pytest.raises(ModelError, match=r"model 'quitter' raised KeyboardInterrupt in load\(\)"):
            called(MODEL, "load()", interrupt)
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            called(MODEL, "load()", lambda: threading.Event().wait(30))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_time_limit_of_the_user_comes_through() -> None:
    """Plugins of pytest end a test by what their handler of a signal raises."""

    def too_late(*_: object) -> None:
        pytest.fail("too late")

    usual = signal.signal(signal.SIGALRM, too_late)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(pytest.fail.Exception, match="too late"):
            called(MODEL, "load()", lambda: threading.Event().wait(30))
    finally:
        signal.signal(signal.SIGALRM, usual)


def test_a_data_set_is_named_as_one() -> None:
    """Its error is that of a broken plugin."""
    with pytest.raises(BrokenPluginError, match=r"data set 'rows' called os._exit\(1\) in image\(\)"):
        called(Plugin("rows", "data set"), "image()", lambda: os._exit(1))
