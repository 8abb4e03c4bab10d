"""How xdist distributes tests: the cells of one (model, data set) together, all other tests as usual."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from xdist.scheduler.load import LoadScheduling
from xdist.scheduler.loadgroup import LoadGroupScheduling


class _ByGroup(LoadGroupScheduling):  # type: ignore[misc] # xdist ships no types
    """xdist's scheduling by group, with (model, data set) as the group of a cell."""

    def __init__(self, config: pytest.Config, log: Any, group_of: Callable[[str], str | None]) -> None:
        super().__init__(config, log)
        self._group_of = group_of

    def _split_scope(self, nodeid: str) -> str:
        return self._group_of(nodeid) or str(super()._split_scope(nodeid))


class GroupScheduling:
    """Schedules by group where cells were collected, else as the user asked xdist to (load, loadgroup).

    xdist makes a scheduler before anything is collected. So this one keeps the workers until the first collection
    arrives, and from then on passes everything to the scheduler that fits it.
    """

    def __init__(self, config: pytest.Config, log: Any, group_of: Callable[[str], str | None]) -> None:
        self._config, self._log, self._group_of = config, log, group_of
        self._scheduler: Any = None
        self._waiting: list[Any] = []

    def add_node(self, node: Any) -> None:
        """Add a worker."""
        if self._scheduler is None:
            self._waiting.append(node)
        else:
            self._scheduler.add_node(node)

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Add what a worker collected; the first collection decides how tests are distributed."""
        if self._scheduler is None:
            if any(map(self._group_of, collection)):
                self._scheduler = _ByGroup(self._config, self._log, self._group_of)
            else:
                usual = LoadGroupScheduling if self._config.getoption("dist") == "loadgroup" else LoadScheduling
                self._scheduler = usual(self._config, self._log)
            for waiting in self._waiting:
                self._scheduler.add_node(waiting)
        self._scheduler.add_node_collection(node, collection)

    def remove_node(self, node: Any) -> str | None:
        """Remove a worker; return the test that it crashed in, if any."""
        if self._scheduler is None:
            self._waiting.remove(node)
            return None
        crashed: str | None = self._scheduler.remove_node(node)
        return crashed

    @property
    def nodes(self) -> list[Any]:
        """All workers."""
        return self._waiting if self._scheduler is None else list(self._scheduler.nodes)

    @property
    def collection_is_completed(self) -> bool:
        """Whether every worker has reported what it collected."""
        return self._scheduler is not None and bool(self._scheduler.collection_is_completed)

    @property
    def tests_finished(self) -> bool:
        """Whether every test has been run."""
        return self._scheduler is not None and bool(self._scheduler.tests_finished)

    def __getattr__(self, name: str) -> Any:
        """Return what the scheduler that was chosen has under this name, as xdist asks after the first collection."""
        return getattr(self._scheduler, name)
