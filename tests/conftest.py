"""What several test files share: a small project for tests of the plugin, empty caches, and a Hub on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.blocks import volume
from support.hub_server import HubServer, running
from support.inside import libraries
from support.project import ADAPTERS, Project

from promptseg.files import hub

# What a module makes once, and takes seconds: a Ray cluster, a browser and its pages, packages, small models, claims.
_MADE_ONCE = {"cluster", "browser", "wheel", "outside", "broken", "official", "pair", "evaluated", "honest"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of a module that share what is expensive to make be one group: ``-n 2 --dist loadgroup``."""
    for item in items:
        if isinstance(item, pytest.Function) and not _MADE_ONCE.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def _light_processes() -> Iterator[None]:
    """Let runs of pytest that tests start leave out what they have no use for: loading Hypothesis takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio")
        yield


@pytest.fixture
def loaded() -> Iterator[dict[str, ModuleType]]:
    """Return a dict of modules that are loaded again at the end of the test, should it have unloaded them."""
    found: dict[str, ModuleType] = {}
    yield found
    sys.modules.update(found)


@pytest.fixture
def pytester(loaded: dict[str, ModuleType], pytester: pytest.Pytester) -> Iterator[pytest.Pytester]:
    """Return pytest's fixture, at whose end only the test's own modules are unloaded.

    By itself it unloads all that the test was the first to import, libraries too. Imported again, they are a second
    copy, whose classes those who hold the first do not know: matplotlib refuses its own GridSpec.
    """
    yield pytester
    loaded.update(libraries(pytester.path))


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """Return a project with ten images in the data set ``squares`` and the model ``bright``."""
    pytester.makepyfile(adapters=ADAPTERS)
    pytester.makeini("[pytest]\npythonpath = .\nseg_device = cpu\n")
    made = Project(pytester)
    made.add_images("squares", 10)
    made.configure()
    return made


@pytest.fixture
def block_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with six volumes of the data set ``blocks``; the cache is this test's own."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("READ_LOG", str(tmp_path / "read.log"))
    (tmp_path / "read.log").touch()
    folder = tmp_path / "source"
    folder.mkdir()
    for kind in range(6):
        (folder / f"volume_{kind}.npy").write_bytes(volume(kind))
    return folder


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, ours and the Hub's, and no memory of earlier failures."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")  # else it first asks the Hub which programs may drive it
    monkeypatch.setattr(hub, "_failed", {})
    # huggingface_hub reads these at its import, which an earlier test may have caused while they were otherwise.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    return tmp_path


@pytest.fixture
def hub_server(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on this machine that the client is pointed to, here and in processes that are started."""
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server
