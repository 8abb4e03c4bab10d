"""The state of a process beside its variables, which one plugin could leave to the next: how to read and set it.

Each `Setting` is one piece of it. Those of the run have the same value at the begin of every call into a plugin; those
of the plugin (environment variables, warnings filters, ...) bear on nothing but its own code, and are in force during
its own calls alone. Libraries are looked at where they are loaded; none is imported here for that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import importlib.util
import locale
import multiprocessing
import operator
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import cv2
import numpy as np
import PIL.Image

Scope = Literal["thread", "process", "main thread"]
_DENORMAL = 5e-324  # the smallest float above 0, which a processor that flushes denormal numbers takes for 0


def _itself(_: Any, value: Any) -> Any:
    return value


@dataclass(frozen=True, eq=False)
class Setting:
    """One piece of the state.

    Attributes:
        name: what users call it.
        get, put: read and set it, in this thread or in the process.
        scope: where it holds; ``main thread`` is of the process, and can be set from that thread alone.
        instead: what a plugin can use in its calls that relies on a value of its own; empty where there is nothing.
        is_shown: whether its values mean something to a reader.
        is_numeric: whether scores may depend on it: it has one value throughout a run. Others are put back to what they
            were, which a test or a fixture of the user's may have set.
        is_own: whether a plugin keeps its own value during its calls.
        change: returns what a call changed, of the values before and after it; of a plugin's own settings.
        changed: returns a value with a change made; of a plugin's own settings.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]
    scope: Scope = "process"
    instead: str = ""
    is_shown: bool = True
    is_numeric: bool = False
    is_own: bool = False
    change: Callable[[Any, Any], Any] = _itself
    changed: Callable[[Any, Any], Any] = _itself


# ------------------------------------------------------------------------------------------------ Python


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return ""


def _change_directory(folder: str) -> None:
    with contextlib.suppress(OSError):  # it was removed meanwhile
        os.chdir(folder)


def _streams() -> tuple[object, object, object]:
    return sys.stdin, sys.stdout, sys.stderr


def _put_streams(streams: tuple[Any, Any, Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


_signal: Any = importlib.import_module("_signal")  # beneath `signal`, which makes an enum of every handler: slow
_SIGNALS = tuple(sorted(map(int, signal.valid_signals())))


def handlers() -> tuple[Any, ...]:
    """Return the handler of every signal; None for one that Python did not install."""
    return tuple(map(_signal.getsignal, _SIGNALS))


def _put_handlers(wanted: Sequence[Any]) -> None:
    for number, handler in zip(_SIGNALS, wanted, strict=True):
        if handler is not None and _signal.getsignal(number) != handler:
            _signal.signal(number, handler)


def _alarm_is_set() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _put_alarm(is_set: Any) -> None:
    if not is_set:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _put_locale(name: str) -> None:
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, name)


def _put_argv(argv: Sequence[str]) -> None:
    sys.argv[:] = argv


def _put_gc(enabled: Any) -> None:
    (gc.enable if enabled else gc.disable)()


def _put_start_method(method: str | None) -> None:
    multiprocessing.set_start_method(method, force=True)


def _environment() -> dict[Any, Any]:
    """Return the variables as the system has them: to decode all of them takes long, and nobody reads them."""
    return dict(vars(os.environ)["_data"])


def _put_environment(wanted: dict[Any, Any]) -> None:
    now = _environment()
    for name in now.keys() - wanted.keys():
        del os.environ[os.fsdecode(name)]
    for name, value in wanted.items():
        if now.get(name) != value:
            os.environ[os.fsdecode(name)] = os.fsdecode(value)


def _environment_change(before: dict[Any, Any], after: dict[Any, Any]) -> dict[Any, Any]:
    return {name: after.get(name) for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _changed_environment(now: dict[Any, Any], change: dict[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in {**now, **change}.items() if value is not None}


_Filters = tuple[list[Any], tuple[Any, ...]]


def _filters() -> _Filters:
    """Return the list and what is in it: `warnings.catch_warnings` puts another list in its place."""
    found: Any = warnings.filters
    return found, tuple(found)


def _put_filters(wanted: _Filters) -> None:
    warnings.resetwarnings()  # in the list that is there; it is also how Python learns that filters have changed
    which: Any = wanted[0]
    which[:] = wanted[1]
    warnings.filters = which


def _filters_change(before: _Filters, after: _Filters) -> tuple[Any, ...]:
    return tuple(entry for entry in after[1] if entry not in before[1])


def _changed_filters(now: _Filters, change: tuple[Any, ...]) -> _Filters:
    return now[0], (*change, *(entry for entry in now[1] if entry not in change))


def _put_pixels(limit: int | None) -> None:
    PIL.Image.MAX_IMAGE_PIXELS = limit


def _python() -> Iterator[Setting]:
    yield Setting(
        "the working directory",
        _working_directory,
        _change_directory,
        instead="absolute paths",
    )
    yield Setting("sys.stdin, sys.stdout or sys.stderr", _streams, _put_streams, is_shown=False)
    yield Setting("signal handlers", handlers, _put_handlers, scope="main thread", is_shown=False)
    yield Setting("the alarm of the process", _alarm_is_set, _put_alarm, scope="main thread", is_shown=False)
    yield Setting("the locale", lambda: locale.setlocale(locale.LC_ALL), _put_locale)
    yield Setting("Python's garbage collection", gc.isenabled, _put_gc)
    yield Setting(
        "environment variables",
        _environment,
        _put_environment,
        is_own=True,
        change=_environment_change,
        changed=_changed_environment,
    )
    yield Setting(
        "warnings filters", _filters, _put_filters, is_own=True, change=_filters_change, changed=_changed_filters
    )
    yield Setting("sys.argv", lambda: tuple(sys.argv), _put_argv, is_own=True)
    yield Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, is_own=True)
    yield Setting("Pillow's limit of pixels", lambda: PIL.Image.MAX_IMAGE_PIXELS, _put_pixels, is_own=True)
    yield Setting(
        "the start method of multiprocessing",
        lambda: multiprocessing.get_start_method(allow_none=True),
        _put_start_method,
        is_own=True,
    )


# ------------------------------------------------------------------------------------------------ NumPy, OpenCV


def _put_errors(wanted: dict[str, Any]) -> None:
    np.seterr(**wanted)


def _put_printing(wanted: Any) -> None:
    np.set_printoptions(**wanted)


def _arrays() -> Iterator[Setting]:
    errors = "np.errstate(...)"
    yield Setting("NumPy's error handling", np.geterr, _put_errors, scope="thread", instead=errors)
    yield Setting("NumPy's error callback", np.geterrcall, np.seterrcall, scope="thread", instead=errors)
    yield Setting("NumPy's print options", np.get_printoptions, _put_printing, scope="thread", is_shown=False)
    yield Setting("the number of threads of OpenCV", cv2.getNumThreads, cv2.setNumThreads)
    yield Setting("the optimised code of OpenCV", cv2.useOptimized, cv2.setUseOptimized)


# ------------------------------------------------------------------------------------------------ torch


def _attribute(owner: Any, name: str, label: str, instead: str = "") -> Setting:
    path, _, last = name.rpartition(".")
    holder = operator.attrgetter(path)(owner) if path else owner
    return Setting(label, lambda: getattr(holder, last), lambda value: setattr(holder, last, value), instead=instead)


def _torch(torch: Any) -> Iterator[Setting]:
    yield from _modes(torch)
    yield Setting(
        "torch's default dtype",
        torch.get_default_dtype,
        torch.set_default_dtype,
        instead="a dtype for every tensor that is made",
    )
    yield Setting(
        "the number of threads of torch",
        torch.get_num_threads,
        torch.set_num_threads,
    )
    yield Setting(
        "deterministic algorithms of torch",
        lambda: {
            "mode": torch.are_deterministic_algorithms_enabled(),
            "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        },
        lambda value: torch.use_deterministic_algorithms(**value),
    )
    yield _precision(torch)
    for name in ("enabled", "benchmark", "deterministic"):
        label = f"torch.backends.cudnn.{name}"
        yield _attribute(torch.backends.cudnn, name, label, "torch.backends.cudnn.flags(...)")
    for name in ("fp16", "bf16"):
        flag = f"allow_{name}_reduced_precision_reduction"
        yield _attribute(torch.backends, f"cuda.matmul.{flag}", f"torch.backends.cuda.matmul.{flag}")
    for name in ("flash", "mem_efficient", "math", "cudnn"):
        yield Setting(
            f"{name} attention of torch",
            getattr(torch.backends.cuda, f"{name}_sdp_enabled"),
            getattr(torch.backends.cuda, f"enable_{name}_sdp"),
            instead="torch.nn.attention.sdpa_kernel(...)",
        )


def _modes(torch: Any) -> Iterator[Setting]:
    """Yield what torch has for each thread."""

    def modes() -> dict[str, bool]:
        return {"inference": torch.is_inference_mode_enabled(), "grad": torch.is_grad_enabled()}

    def put_modes(wanted: dict[str, bool]) -> None:
        if torch.is_inference_mode_enabled() != wanted["inference"]:
            mode = torch.inference_mode(wanted["inference"])  # no other way to set it, and nobody will leave this one:
            mode.__enter__()
            _entered.append(mode)  # without it the mode would end here
        torch.set_grad_enabled(wanted["grad"])

    def device() -> Any:
        try:
            return torch.empty(0).device  # a tenth of the time of get_default_device()
        except (RuntimeError, AssertionError):  # one that this machine does not have
            return torch.get_default_device()

    def put_device(device: Any) -> None:
        torch.set_default_device(None if device.type == "cpu" else device)

    yield Setting(
        "the inference and grad mode of torch",
        modes,
        put_modes,
        scope="thread",
        instead="torch.inference_mode() or torch.no_grad()",
    )
    yield from (_autocast(torch, kind) for kind in ("cpu", "cuda"))
    yield Setting(
        "torch's cache of autocast",
        torch.is_autocast_cache_enabled,
        torch.set_autocast_cache_enabled,
        scope="thread",
        instead="torch.autocast(...)",
    )
    yield Setting(
        "torch's default device",
        device,
        put_device,
        scope="thread",
        instead="runtime.device for every tensor that is made",
    )
    yield Setting(
        "the flushing of denormal numbers", lambda: _DENORMAL * 1.0 == 0.0, torch.set_flush_denormal, scope="thread"
    )


_entered: list[Any] = []


def _autocast(torch: Any, kind: str) -> Setting:
    def get() -> dict[str, Any]:
        return {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}

    def put(wanted: dict[str, Any]) -> None:
        torch.set_autocast_dtype(kind, wanted["dtype"])
        torch.set_autocast_enabled(kind, wanted["enabled"])
        if wanted["enabled"]:
            return
        while (depth := torch.autocast_decrement_nesting()) > 0:  # contexts that were entered and never left
            pass
        if depth < 0:
            torch.autocast_increment_nesting()
        torch.clear_autocast_cache()  # copies of their weights

    instead = "torch.autocast(...) for runtime.dtype"
    return Setting(f"autocast of torch on {kind}", get, put, scope="thread", instead=instead)


def _precision(torch: Any) -> Setting:
    """Return how float32 products are rounded: torch has an older and a newer interface to that.

    What others inherit from comes first, so that they have their value by the time they are looked at.
    """
    backends, matmul = torch.backends, "matmul"
    groups = ("", "cuda.matmul.", "cudnn.", "cudnn.conv.", "cudnn.rnn.", "mkldnn.", "mkldnn.matmul.", "mkldnn.conv.")
    names = [f"{group}fp32_precision" for group in (*groups, "mkldnn.rnn.")]
    if not hasattr(backends, "fp32_precision"):  # torch before 2.9
        names = ["cuda.matmul.allow_tf32", "cudnn.allow_tf32"]
    attributes = {name: _attribute(backends, name, name) for name in names}

    def get_matmul() -> str | None:
        try:
            return str(torch.get_float32_matmul_precision())
        except RuntimeError:  # set by the newer interface to something that the older one cannot say
            return None

    def get() -> dict[str, Any]:
        return {matmul: get_matmul(), **{name: attribute.get() for name, attribute in attributes.items()}}

    def put(wanted: dict[str, Any]) -> None:
        if wanted[matmul] is not None and get_matmul() != wanted[matmul]:
            torch.set_float32_matmul_precision(wanted[matmul])
        for name, attribute in attributes.items():
            if attribute.get() != wanted[name]:
                attribute.put(wanted[name])

    return Setting("the precision of float32 in torch", get, put)


# ------------------------------------------------------------------------------------------------ all of it


def _numeric(found: Iterator[Setting]) -> tuple[Setting, ...]:
    return tuple(dataclasses.replace(setting, is_numeric=True) for setting in found)


_BASE = (*_python(), *_numeric(_arrays()))
_all: list[tuple[Setting, ...]] = []  # one, with those of torch, once it is loaded


def settings() -> tuple[Setting, ...]:
    """Return what this process has by now: the same object as long as no further library is loaded."""
    if not _all:
        torch = sys.modules.get("torch")
        if torch is None or _is_loading(torch):
            return _BASE
        _all.append((*_BASE, *_numeric(_torch(torch))))
    return _all[0]


@cache
def in_reach(found: tuple[Setting, ...], *, whole: bool, main: bool) -> tuple[Setting, ...]:
    """Return what a call can be given, and what can be put back after it.

    Args:
        found: all settings.
        whole: whether the process is the call's alone; else only what each thread has for itself.
        main: whether it is made by the main thread.
    """
    if not whole:
        return tuple(setting for setting in found if setting.scope == "thread")
    return found if main else tuple(setting for setting in found if setting.scope != "main thread")


def _is_loading(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))


class AfterTorch:
    """An import hook that calls ``then`` as soon as torch has been loaded, before anybody can change its defaults."""

    def __init__(self, then: Callable[[Sequence[Setting]], object]) -> None:
        self._then = then

    def watch(self) -> None:
        """Wait for torch, unless it is loaded already."""
        if "torch" not in sys.modules:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return nothing but for torch: its usual spec, whose loader calls back."""
        if name != "torch":
            return None
        self.forget()
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        usual = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            usual(module)
            self._then(_numeric(_torch(module)))

        loader.exec_module = exec_module
        return spec

    def forget(self) -> None:
        """Wait no longer."""
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)


def is_main_thread() -> bool:
    """Whether this is the thread in which Python runs signal handlers."""
    return threading.current_thread() is threading.main_thread()
