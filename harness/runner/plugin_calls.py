"""Calls into plugins: every one starts from the state of the run, and what it changes is put back after it.

So no model changes another's score, and none its own from call to call. Random generators are set from the seed of the
run and the plugin's name before a call. A plugin that changed what matters is named once, with what it can do instead:
a value that it set in ``load()`` is not in force when it is called again, as it would be in a script of its author's.

Functions that worker threads call while the model works (``prepare_image``) could neither be given the state of the
process nor have it put back: it is everybody's. They are called by the model's own thread at first, and go to the
workers once that has shown that they touch nothing but what each thread has for itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import cv2
import numpy as np

from promptseg.runner import ends
from promptseg.runner.ends import Plugin
from promptseg.runner.process_state import AfterTorch, Setting, in_reach, is_main_thread, settings

T = TypeVar("T")


class PluginCalls:
    """Makes the calls into plugins of one process.

    Args:
        seed: of the run.
        notify: called with a sentence about each plugin that changed what matters.
    """

    def __init__(self, seed: int, notify: Callable[[str], None]) -> None:
        self._seed = seed
        self._notify = notify
        self._wanted: dict[str, Any] = {}  # by the name of the setting
        self._found: dict[str, Any] = {}
        self._own: dict[Plugin, dict[str, Any]] = {}
        self._named: set[tuple[Plugin, str]] = set()
        self._known: tuple[Setting, ...] = ()
        self._newest: object = None
        self._depth = 0

    # --- the state of the run -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the state of the run within the block; afterwards all is as it was found.

        The state of NumPy's generator is kept here: to save it takes longer than a call of a small model.
        """
        if self._depth:
            yield
            return
        drawn = np.random.get_state(legacy=False)  # noqa: NPY002 - the one that any code may draw from
        watch = AfterTorch(self._begin)
        watch.watch()
        self._depth += 1
        try:
            with ends.interruptible():  # outermost: its handler of Ctrl-C is one of those that are found
                try:
                    self._begin(in_reach(settings(), whole=True, main=is_main_thread()))
                    yield
                finally:
                    self._end()
        finally:
            self._depth -= 1
            watch.forget()
            np.random.set_state(drawn)  # noqa: NPY002

    def _begin(self, found: Iterable[Setting]) -> None:
        """Note what is found, and give what bears on numbers the value that it had when the run first saw it."""
        self._known = settings()
        for setting in found:
            value = self._found[setting.name] = setting.get()
            if not setting.is_numeric:
                self._wanted[setting.name] = value
            elif self._wanted.setdefault(setting.name, value) != value:
                setting.put(self._wanted[setting.name])

    def _end(self) -> None:
        """Put back what was found, also what threads of a reader or of a call without end have changed meanwhile."""
        for setting in in_reach(settings(), whole=True, main=is_main_thread()):
            if not setting.is_own and setting.name in self._found and setting.get() != self._found[setting.name]:
                setting.put(self._found[setting.name])
        self._found.clear()

    def set_by_run(self, change: Callable[[], None]) -> None:
        """Make a change of the run's own to the state, such as its share of the processor's cores."""
        before = {setting.name: setting.get() for setting in settings() if setting.is_numeric}
        change()
        for setting in settings():
            if setting.is_numeric and before.get(setting.name) != (value := setting.get()):
                self._wanted[setting.name] = self._found[setting.name] = value

    # --- calls ------------------------------------------------------------------------------------------------

    def make(self, plugin: Plugin, what: str, call: Callable[[], T]) -> T:
        """Return what a call returns that nothing else goes on beside, but for reading and scoring.

        Args:
            plugin: who is called.
            what: which call, for messages.
            call: makes it.

        Raises:
            Exception: see `promptseg.runner.ends.called`.
        """
        with self.running():
            return ends.called(plugin, what, lambda: self._made(plugin, what, call))

    def _made(self, plugin: Plugin, what: str, call: Callable[[], T]) -> T:
        entered = self._enter(plugin, whole=True)
        try:
            return call()
        finally:
            self._leave(entered, what)

    def make_beside(self, plugin: Plugin, what: str, call: Callable[[], T]) -> T:
        """Return what a call returns that other threads make while the model works: only their own state is kept."""

        def made() -> T:
            entered = self._enter(plugin, whole=False)
            try:
                return call()
            finally:
                self._leave(entered, what)

        return ends.called(plugin, what, made)

    def touches_process(self, plugin: Plugin, what: str, call: Callable[[], T]) -> tuple[T, bool]:
        """Make a call as `make`, and return also whether it changed or drew on what the whole process shares."""
        shared = [setting for setting in settings() if setting.scope == "process"]

        def watched() -> tuple[T, bool]:
            before, drawn = [setting.get() for setting in shared], _drawn()
            value = call()
            return value, drawn != _drawn() or before != [setting.get() for setting in shared]

        return self.make(plugin, what, watched)

    def _enter(self, plugin: Plugin, *, whole: bool) -> _Entered:
        known = settings()
        chosen = in_reach(known, whole=whole, main=is_main_thread())
        if known is not self._known:  # the run itself has loaded a library
            self._begin(setting for setting in chosen if setting.name not in self._wanted)
        own = self._own.get(plugin, {})
        before = [setting.get() for setting in chosen]
        wanted = [self._start(setting, found, own) for setting, found in zip(chosen, before, strict=True)]
        if wanted != before:
            _put(chosen, before, wanted)
        entered = _Entered(plugin, known, chosen, before, wanted)
        if whole:
            self._newest = entered
            entered.generators = _Generators.seeded(self._seed, plugin.name)
            entered.streams = _StayOpen.of_process()
        return entered

    def _start(self, setting: Setting, found: Any, own: Mapping[str, Any]) -> Any:
        """Return the value that a call starts from."""
        if not setting.is_own:
            return self._wanted[setting.name]
        return setting.changed(found, own[setting.name]) if setting.name in own else found

    def _leave(self, entered: _Entered, what: str) -> None:
        if entered.streams is not None:
            entered.streams.end()
        chosen, before, wanted = entered.chosen, entered.before, entered.wanted
        if entered.generators is not None:
            if self._newest is not entered:  # a time limit has given it up, and the process is another's
                return
            entered.generators.put_back()
            if settings() is not entered.known:  # the call has loaded a library
                chosen = in_reach(settings(), whole=True, main=is_main_thread())
                new = chosen[len(wanted) :]
                self._begin(setting for setting in new if setting.name not in self._wanted)
                before, wanted = (
                    [*values, *(self._wanted[setting.name] for setting in new)] for values in (before, wanted)
                )
        after = [setting.get() for setting in chosen]
        if after == wanted == before:
            return
        changes = []
        for setting, old, start, new_value in zip(chosen, before, wanted, after, strict=True):
            if setting.is_own:
                self._keep_own(entered.plugin, setting, old, new_value)
            elif new_value != start:
                changes.append(_Change(setting, start, new_value))
        left = (old if setting.is_own else start for setting, old, start in zip(chosen, before, wanted, strict=True))
        _put(chosen, after, list(left))
        self._name(entered.plugin, what, changes)

    def _keep_own(self, plugin: Plugin, setting: Setting, before: Any, after: Any) -> None:
        own = self._own.setdefault(plugin, {})
        own.pop(setting.name, None)
        if after != before:
            own[setting.name] = setting.change(before, after)

    def _name(self, plugin: Plugin, what: str, changes: Sequence[_Change]) -> None:
        """Name a plugin, and what it changed that it has not been named for."""
        new = [change for change in changes if (plugin, change.setting.name) not in self._named]
        if not new:
            return
        self._named |= {(plugin, change.setting.name) for change in new}
        remedies = dict.fromkeys(change.setting.instead for change in new if change.setting.instead)
        instead = (
            f" What it needs it should set inside embed() and predict(): {', '.join(remedies)}." if remedies else ""
        )
        self._notify(
            f"{plugin} changed {', '.join(map(str, new))} in {what}. It was put back: every call starts from the state "
            f"of the run. Where the plugin relies on this, its score is not the one that its author sees.{instead}"
        )


def _put(chosen: Sequence[Setting], now: Sequence[Any], values: Sequence[Any]) -> None:
    """Set what differs."""
    for setting, found, value in zip(chosen, now, values, strict=True):
        if found != value:
            setting.put(value)


@dataclass(eq=False)
class _Entered:
    """A call that has begun: the values of the chosen settings before it, and those that it starts from."""

    plugin: Plugin
    known: tuple[Setting, ...]
    chosen: tuple[Setting, ...]
    before: list[Any]
    wanted: list[Any]
    generators: _Generators | None = None
    streams: _StayOpen | None = None


@dataclass(frozen=True)
class _Change:
    setting: Setting
    wanted: Any
    found: Any

    def __str__(self) -> str:
        """Return how a message names it: of many values those that differ."""
        name, wanted, found = self.setting.name, self.wanted, self.found
        if not self.setting.is_shown:
            return name
        if not isinstance(wanted, dict) or not isinstance(found, dict):
            return f"{name} ({_short(wanted)} to {_short(found)})"
        parts = (f"{key} {wanted[key]} to {found.get(key)}" for key in wanted if wanted[key] != found.get(key))
        return f"{name} ({', '.join(parts)})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# ------------------------------------------------------------------------------------------------ random generators


_numpy: Any = np.random  # its types leave out what exchanges the generator


@dataclass
class _Generators:
    """The generators that any code may draw from, as they were before a call."""

    python: Any
    numpy: Any
    torch: Any
    cuda: Any

    @classmethod
    def seeded(cls, seed: int, name: str) -> _Generators:
        """Set all of them for a call; return what was there."""
        number = _number(seed, name)
        saved = cls(random.getstate(), _numpy.get_bit_generator(), None, None)
        random.setstate(_python_state(number))
        _numpy.set_bit_generator(_bits())
        np.random.seed(number)  # noqa: NPY002
        cv2.setRNGSeed(number >> 1)
        torch = sys.modules.get("torch")
        if torch is not None and _has_generator(torch):
            saved.torch = torch.get_rng_state()
            torch.default_generator.manual_seed(number)
            if torch.cuda.is_initialized():
                saved.cuda = torch.cuda.get_rng_state_all()
                torch.cuda.manual_seed_all(number)
        return saved

    def put_back(self) -> None:
        """Let all of them go on where they were."""
        random.setstate(self.python)
        _numpy.set_bit_generator(self.numpy)
        if self.torch is not None:
            torch = sys.modules["torch"]
            torch.set_rng_state(self.torch)
            if self.cuda is not None:
                torch.cuda.set_rng_state_all(self.cuda)


def _number(seed: int, name: str) -> int:
    """Return 32 bits that are the same for a run's seed and a plugin's name in every process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


@cache
def _python_state(number: int) -> Any:
    return random.Random(number).getstate()  # noqa: S311 - nothing to keep secret


@cache
def _bits() -> Any:
    """Return the generator that NumPy's functions use during calls: to exchange it is faster than to save its state."""
    return np.random.MT19937()


def _drawn() -> Any:
    """Return what changes when any of the generators is drawn from."""
    torch = sys.modules.get("torch")
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    drawn = {"numpy": (state["state"]["pos"], state["state"]["key"].tobytes(), state["has_gauss"])}
    of_torch = torch.get_rng_state().numpy().tobytes() if torch is not None and _has_generator(torch) else None
    return random.getstate(), drawn, of_torch


def _has_generator(torch: Any) -> bool:
    return hasattr(torch, "default_generator")  # else it is still being loaded


# ------------------------------------------------------------------------------------------------ streams


@dataclass
class _StayOpen:
    """The streams of the process, which a call may replace or flush but not close: nobody could open them again."""

    streams: list[Any]

    @classmethod
    def of_process(cls) -> _StayOpen:
        """Begin for those that there are."""
        kept = []
        streams: tuple[Any, ...] = (sys.stdin, sys.stdout, sys.stderr)
        for stream in streams:
            with contextlib.suppress(AttributeError, TypeError):
                stream.close = _do_nothing
                kept.append(stream)
        return cls(kept)

    def end(self) -> None:
        """Let others close them again."""
        for stream in self.streams:
            with contextlib.suppress(AttributeError):
                del stream.close


def _do_nothing() -> None:
    """Stand for ``close``."""
