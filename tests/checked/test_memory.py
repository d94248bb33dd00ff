"""What a component remembers comes back from a checkpoint as it was, or the component is told of."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ampo_core.checked.call import PluginFault
from ampo_core.checked.component import memory_of


class Bandit:
    """Remembers what it is told."""

    type = "bandit"

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"pulls": {1: 3}}, "gave the key 1 at pulls; expected what is the same once JSON"),
        ({None: 1}, "gave the key None; expected"),
        ({"a": 1, "arms": [{"span": (0, 1)}]}, "gave tuple (0, 1) at arms.0.span; expected"),
        ({"x": object()}, "expected a mapping in JSON types, its numbers finite"),
        ([1], "gave list [1]; expected a mapping"),
    ],
    ids=["number-key", "none-key", "tuple", "object", "list"],
)
def test_a_memory_that_a_checkpoint_would_change_is_refused(state: Any, found: str) -> None:
    with pytest.raises(PluginFault, match=rf"^selector bandit \(Bandit\.state_dict, .*{re.escape(found)}"):
        memory_of(Bandit(state), "selector")


def test_a_memory_in_json_types_is_taken() -> None:
    state = {"pulls": {"1": 3}, "spans": [[0, 1.5, None, True]]}
    assert memory_of(Bandit(state)) is state
