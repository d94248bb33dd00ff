"""Schedule `linear`: a straight line between two numbers."""

from __future__ import annotations

from typing import Literal

from ampo_plugins.schedules.ramp import Ramp


class Linear(Ramp):
    """A straight line from one number to another."""

    type: Literal["linear"] = "linear"
