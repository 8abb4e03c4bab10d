"""Command line and ini options, read once into one frozen `Options`."""

from __future__ import annotations

import importlib.util
import math
import pickle
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from promptseg.errors import package_needed
from promptseg.runner.options import DTYPES, ENGINES, FAST_PATHS, CacheLimit, Options
from promptseg.session import root
from promptseg.specs import SELECTS, STRATA, Stratum

_SENT = "promptseg_options"  # key of what a worker of xdist gets
_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([MGT]B)", re.IGNORECASE)
_EMBEDDINGS_LIMIT = 50 * 10**9  # those of SAM for 12,000 images


class Setting(NamedTuple):
    """One option: ``--seg-NAME`` and its ini twin ``seg_NAME``."""

    name: str
    convert: Callable[[str], Any]
    metavar: str
    help: str
    implied: str = ""  # what the option means without a value; empty where it needs one
    takes_path: bool = False  # a value after a blank may move pytest's root, so all texts write it with an equals sign

    @property
    def usage(self) -> str:
        """The option as it is written in texts."""
        value = f"[={self.metavar}]" if self.implied else f"{'=' if self.takes_path else ' '}{self.metavar}"
        return f"--seg-{self.name}{value}".rstrip()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError("a comma-separated list of names")
    return names


def _fast(text: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in text.split(","))
    if not names <= set(FAST_PATHS):
        raise ValueError(f"a comma-separated list of some of {', '.join(FAST_PATHS)}")
    return names


def _space(text: str) -> CacheLimit:
    folder, _, size = text.rpartition(",")
    if not folder:
        return CacheLimit(Path(text), _EMBEDDINGS_LIMIT)
    found = _SIZE.fullmatch(size.strip())
    if found is None or float(found[1]) == 0:
        raise ValueError("a folder, or a folder and its limit, as in embeddings,100GB")
    return CacheLimit(Path(folder.strip()), int(float(found[1]) * _UNITS[found[2].upper()]))


def _at_least(minimum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise ValueError(f"a whole number of at least {minimum}")
        return number

    return convert


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return convert


def strata_of(text: str) -> tuple[Stratum, ...]:
    """Return the kinds of strata in a comma-separated list. Raises `ValueError` that says what is allowed."""
    names = {name.strip() for name in text.split(",")}
    if not names <= set(STRATA):
        raise ValueError(f"a comma-separated list of {' and '.join(STRATA)}")
    return tuple(kind for kind in STRATA if kind in names)


def _number(is_allowed: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan  # which nothing allows
        if not is_allowed(number):
            raise ValueError(wanted)
        return number

    return convert


_iou = _number(lambda number: 0 <= number <= 1, "a number from 0 to 1")
_confidence = _number(lambda number: 0.5 <= number < 1, "a confidence from 0.5 to below 1, such as 0.99")
_seconds = _number(lambda number: 0 < number <= threading.TIMEOUT_MAX, "a number of seconds above 0")  # a clock's limit


def _yes_no(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("true or false")
    return text.lower() == "true"


SETTINGS = (
    Setting("models", _names, "A,B", "evaluate these models (comma-separated names; also runs what needs a download)"),
    Setting("tasks", _names, "A,B", "evaluate these tasks"),
    Setting("modes", _names, "A,B", "evaluate these prompt modes"),
    Setting("limit", _at_least(1), "N", "evaluate N cases of each task: a stable sample"),
    Setting(
        "until-sure",
        _confidence,
        "C",
        "stop each cell as soon as its verdict is settled with confidence C (default: 0.99)",
        implied="0.99",
    ),
    Setting("seed", _at_least(0), "N", "seed of the prompts (default: 0)"),
    Setting(
        "sample-seed", _at_least(0), "N", "seed of the choice of cases for --seg-limit (default: that of the prompts)"
    ),
    Setting("select", _one_of(SELECTS), "CHOICE", "the mask that counts: first, confident (default) or oracle"),
    Setting("engine", _one_of(ENGINES), "ENGINE", "local (default), or ray: the workers of a Ray cluster evaluate"),
    Setting("device", str, "DEVICE", "device as torch names it, or auto (default): cuda where there is one"),
    Setting("dtype", _one_of(DTYPES), "DTYPE", "float32 (default), bfloat16 or float16"),
    Setting("fast", _fast, "A,B", "fast paths, held against float32: sdpa, compile, tf32, ... (docs/fast-paths.md)"),
    Setting("precision-bound", _iou, "X", "how far a fast path may be from the masks of float32 (default: 0.01)"),
    Setting(
        "embedding-cache",
        _space,
        "DIR[,SIZE]",
        "keep embeddings in DIR between runs, up to SIZE (default: 50GB)",
        takes_path=True,
    ),
    Setting(
        "batch-size", _at_least(1), "N", "images encoded together (default: 1 on a CPU; on a GPU as memory allows)"
    ),
    Setting("max-errors", _at_least(0), "N", "cases that may fail before their cell fails (default: 0)"),
    Setting("timeout", _seconds, "SECONDS", "give a model up that takes longer for one call (default: wait for ever)"),
    Setting("rerun", _yes_no, "", "evaluate again what stored results already answer"),
    Setting("require", _yes_no, "", "fail, instead of skip, where weights or data cannot be had"),
    Setting("save-masks", _yes_no, "", "keep all candidate masks beside the results, as COCO's RLE"),
    Setting("results", Path, "DIR", "results folder (default: leaderboard/results)", takes_path=True),
    Setting("json", Path, "PATH", "write the scores of this run to PATH", takes_path=True),
    Setting("plan", _yes_no, "", "say what would be evaluated and downloaded, and do neither"),
    Setting("thresholds", Path, "PATH", "thresholds of your own (TOML), on top of those that ship", takes_path=True),
    Setting(
        "baseline",
        str,
        "REF",
        "fail cells that got worse than in this baseline: a name, or a results folder",
        takes_path=True,
    ),
    Setting("max-drop", _iou, "X", "mean drop of IoU against the baseline that is tolerated (default: 0.01)"),
    Setting("strata", strata_of, "A,B", "gates of their own against the baseline, by size and by parts of the objects"),
)


def _attribute(name: str) -> str:
    return name.replace("-", "_")


def add(parser: pytest.Parser) -> None:
    """Register every setting as a command line option and as an ini value."""
    group = parser.getgroup("promptseg", "evaluation of promptable segmentation models")
    for setting in SETTINGS:
        destination = f"seg_{_attribute(setting.name)}"
        if setting.convert is _yes_no:
            how: dict[str, Any] = {"action": "store_const", "const": "true"}
        elif setting.implied:
            how = {"metavar": setting.metavar, "nargs": "?", "const": setting.implied}
        else:
            how = {"metavar": setting.metavar}
        group.addoption(f"--seg-{setting.name}", dest=destination, help=setting.help, **how)
        parser.addini(destination, f"{setting.help} (as --seg-{setting.name})", default=None)


def refuse_moved(config: pytest.Config, parser: pytest.Parser) -> None:
    """Refuse a command in which the value of one of the options would change pytest's root or ini file.

    Raises:
        pytest.UsageError: with the command to paste.
    """
    taking = {f"--seg-{s.name}": s for s in SETTINGS if s.convert is not _yes_no and not s.implied}
    root.refuse_moved(config, parser, taking, lambda option, text: _is_path(taking[option], text))


def _is_path(setting: Setting, text: str) -> bool:
    """Whether a run writes, or reads, a file or a folder of just this name."""
    return setting.convert is Path or (setting.convert is _space and "," not in text)


def read(config: pytest.Config) -> Options:
    """Return the options: command line first, then ini, then defaults. Ini paths are relative to the root.

    Raises:
        pytest.UsageError: a value that cannot be used; says which option, what was found and what is allowed.
    """
    project = root.project_root(config)
    values: dict[str, Any] = {"root": project}
    for setting in SETTINGS:
        name = _attribute(setting.name)
        flag, base = f"--seg-{setting.name}", config.invocation_params.dir
        text = config.getoption(f"seg_{name}")
        if text is None:
            flag, base = f"ini value seg_{name}", project
            text = config.getini(f"seg_{name}") or None  # pytest has "" for an ini value that is not set
        if text is not None:
            values[name] = _converted(setting, flag, str(text), base)
    values.setdefault("results", project / Options.results)
    if values.get("save_masks") and importlib.util.find_spec("pycocotools") is None:
        raise pytest.UsageError(package_needed("--seg-save-masks", "pycocotools", "masks"))
    if values.get("until_sure") and values.get("strata"):
        raise pytest.UsageError("--seg-until-sure and --seg-strata exclude each other: strata are cut from all cases.")
    if values.get("engine") == "ray":
        _check_ray(config, values)
    for name in ("max-drop", "strata"):  # in an ini file they wait for a run that names a baseline
        if config.getoption(f"seg_{_attribute(name)}") is not None and not values.get("baseline"):
            raise pytest.UsageError(f"--seg-{name} is of gates against a baseline: name it with --seg-baseline.")
    return Options(**values)


def send(options: Options, node: Any) -> None:
    """Add the options to what a worker of xdist gets, unless it has another folder, or another machine, of its own."""
    spec = node.gateway.spec
    if spec.popen and not spec.chdir:
        node.workerinput[_SENT] = pickle.dumps(options)


def received(config: pytest.Config) -> Options | None:
    """Return the options that the controller of xdist sent; None in other processes."""
    sent = getattr(config, "workerinput", {}).get(_SENT)
    return None if sent is None else pickle.loads(sent)  # noqa: S301 - our own controller's


def _check_ray(config: pytest.Config, values: Mapping[str, Any]) -> None:
    if importlib.util.find_spec("ray") is None:
        raise pytest.UsageError(package_needed("--seg-engine ray", "ray", "ray"))
    if config.getoption("dist", "no") != "no" or hasattr(config, "workerinput"):
        raise pytest.UsageError(
            "--seg-engine ray spreads the cases over workers by itself, and xdist's processes would take them from one "
            "another: leave -n out."
        )
    if values.get("until_sure"):
        raise pytest.UsageError(
            "--seg-until-sure looks at one case after the other, --seg-engine ray evaluates many at once: use one."
        )


def _converted(setting: Setting, flag: str, text: str, base: Path) -> Any:
    if not text:  # as an unset shell variable gives it
        raise pytest.UsageError(f"{flag} must not be empty; leave it out for the default.")
    try:
        value = setting.convert(text)
    except ValueError as error:
        raise pytest.UsageError(f"{flag} must be {error}, not {text!r}.") from error
    if isinstance(value, CacheLimit):
        return value._replace(folder=base / value.folder.expanduser())
    return base / value.expanduser() if isinstance(value, Path) else value
