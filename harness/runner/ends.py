"""How calls into plugins end: a plugin that would end the process, or the run, ends its own call as an error instead.

Functions that end a process at once (`os._exit`, `os.abort`, `os.exec*`, signals to itself) raise while a plugin is
called, in the threads that call it. Exceptions that are no `Exception` (``SystemExit``, ``KeyboardInterrupt`` of the
plugin's own, ...) become errors that name the plugin. A child that a plugin forked ends where it would go on as a
second run. What ends the process from C cannot be caught: see `promptseg.results.running`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any, TypeVar

from promptseg.errors import BrokenPluginError, NoAnswerError, PromptsegError
from promptseg.runner.process_state import handlers, is_main_thread

T = TypeVar("T")
_exit_at_once = os._exit
_ENDING = ("_exit", "abort", "execv", "execve", "kill", "killpg")
_HARMLESS = tuple(
    getattr(signal, name) for name in ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH") if hasattr(signal, name)
)


@dataclass(frozen=True)
class Plugin:
    """Who is called.

    Attributes:
        name: as registered.
        kind: ``model`` or ``data set``.
    """

    name: str
    kind: str = "model"

    def __str__(self) -> str:
        """Return how messages name it."""
        return f"{self.kind} {self.name!r}"

    def error(self, message: str) -> PromptsegError:
        """Return the error for what it did."""
        return NoAnswerError(message) if self.kind == "model" else BrokenPluginError(message)


class _EndOfProcess(BaseException):
    """Raised in place of the end of the process; an ``except Exception`` of the plugin's lets it pass."""


@dataclass
class _Calls(threading.local):
    """How many calls into plugins this thread is in."""

    depth: int = 0


_calls = _Calls()


@dataclass
class _Replaced:
    """The functions of `os` and `signal` that end a process, replaced as long as any thread calls a plugin."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    usual: dict[tuple[Any, str], Any] = field(default_factory=dict)

    def replace(self) -> None:
        """Replace them, unless they are."""
        with self.lock:
            self.users += 1
            if self.users > 1:
                return
            for module, name in [*((os, name) for name in _ENDING), (signal, "raise_signal")]:
                if hasattr(module, name):
                    usual = getattr(module, name)
                    self.usual[module, name] = usual
                    setattr(module, name, _refusing(f"{module.__name__}.{name}", usual, os.getpid()))

    def put_back(self) -> None:
        """Put them back, if this was the last call."""
        with self.lock:
            self.users -= 1
            if self.users == 0:
                for (module, name), usual in self.usual.items():
                    setattr(module, name, usual)
                self.usual.clear()


_replaced = _Replaced()


def _refusing(name: str, usual: Callable[..., Any], process: int) -> Callable[..., Any]:
    """Return a function that raises where ``usual`` would end this process, and else does the same."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        # A child of the plugin's own may end as it likes, and so may threads of others, such as those of a time limit.
        if os.getpid() == process and _calls.depth and _ends_this_process(name, arguments):
            raise _EndOfProcess(f"{name}({', '.join(map(repr, arguments))})")
        return usual(*arguments, **options)

    return refuse


def _ends_this_process(name: str, arguments: tuple[Any, ...]) -> bool:
    if name == "signal.raise_signal":
        return bool(arguments) and _is_deadly(arguments[0])
    if name not in ("os.kill", "os.killpg"):
        return True
    if len(arguments) != 2 or not _is_deadly(arguments[1]):
        return False
    group = os.getpgrp()
    return arguments[0] in ((group,) if name == "os.killpg" else (os.getpid(), 0, -1, -group))


def _is_deadly(number: int) -> bool:
    """Whether a signal ends the process, or the run: those with a handler of somebody's do what that handler does."""
    if number == 0 or number in _HARMLESS:
        return False
    if number == signal.SIGINT:
        return True
    try:
        return signal.getsignal(number) in (signal.SIG_DFL, None)
    except ValueError:  # no signal at all: os.kill says so
        return False


def called(plugin: Plugin, what: str, call: Callable[[], T]) -> T:
    """Return what a call into a plugin returns.

    Args:
        plugin: who is called.
        what: which call, for messages: ``load()``.
        call: makes it.

    Raises:
        NoAnswerError, BrokenPluginError: the plugin would have ended the process or the run.
        Exception: what the plugin raised; a Ctrl-C, and what signal handlers of others raise, come through too.
    """
    process = os.getpid()
    _calls.depth += 1
    _replaced.replace()
    try:
        return call()
    except Exception as error:
        if not isinstance(error, StopIteration):  # which would end a loop of ours in silence
            raise
        problem = _in_words(error, what)
    except BaseException as error:
        if _is_from_outside(error):
            raise
        problem = _in_words(error, what)
    finally:
        if os.getpid() != process:
            _exit_at_once(1)  # a child of the plugin's, which would go on here as a second run
        _replaced.put_back()
        _calls.depth -= 1
    raise plugin.error(f"{plugin} {problem}")  # apart from the exception, whose frames hold much memory


def _in_words(error: BaseException, what: str) -> str:
    if isinstance(error, _EndOfProcess):
        return f"called {error} in {what}, which would have ended the whole run: raise an exception that says why."
    if isinstance(error, SystemExit):
        return (
            f"called sys.exit({error.code!r}) in {what}, which would have ended the whole run: raise an exception that "
            "says why. An argument parser does so too: sys.argv is pytest's, not the plugin's."
        )
    return f"raised {type(error).__name__} in {what} ({str(error)!r}): raise an Exception, which fails one case alone."


def _is_from_outside(error: BaseException) -> bool:
    """Whether a handler of a signal raised an exception: of Ctrl-C, or of a time limit that the user has set."""
    handler_codes = {code for handler in handlers() if (code := _code_of(handler)) is not None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handler_codes:
            return True
        trace = trace.tb_next
    if not isinstance(error, KeyboardInterrupt) or not is_main_thread():
        return False
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler  # which leaves no trace: see `interruptible`


def _code_of(handler: object) -> CodeType | None:
    code = getattr(handler, "__code__", None) or getattr(getattr(handler, "__func__", None), "__code__", None)
    return code if isinstance(code, CodeType) else None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a Ctrl-C be told from a KeyboardInterrupt that a plugin raises itself, within the block.

    Python's own handler leaves no trace of where the exception came from.
    """
    usual = signal.getsignal(signal.SIGINT)
    if not is_main_thread() or usual is not signal.default_int_handler:
        yield
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True  # pytest shows where the run was interrupted
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is on_interrupt:
            signal.signal(signal.SIGINT, usual)
