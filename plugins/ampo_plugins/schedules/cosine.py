"""Schedule `cosine`: half a cosine wave between two numbers, flat at both ends (SGDR, arXiv 1608.03983)."""

from __future__ import annotations

import math
from typing import Literal

from ampo_plugins.schedules.ramp import Ramp


class Cosine(Ramp):
    """Half a cosine wave from one number to another: slow at both ends."""

    type: Literal["cosine"] = "cosine"

    def bent(self, share: float) -> float:
        """(1 − cos πx)/2."""
        return (1.0 - math.cos(math.pi * share)) / 2.0
