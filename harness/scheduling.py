"""How xdist distributes cells: those of one (model, data set) together, all other tests one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist ships no types
    """xdist's scheduling by scope, with a (model, data set) or a single test as the scope."""

    def __init__(self, config: pytest.Config, log: Any, group_of: Callable[[str], str | None]) -> None:
        super().__init__(config, log)
        self._group_of = group_of

    def _split_scope(self, nodeid: str) -> str:
        return self._group_of(nodeid) or nodeid
