"""A reward that random texts can earn, and an end of the build at a chosen moment.

AMPO_TEST_POOL_END=N: this process gets SIGKILL when it is about to put its N-th file of a shard in place, on rank 0.
"""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ampo_registry import Grade, GradeRequest, RewardSpec, hookimpl
from ampo_registry.specs import ComponentSpec


class Drawn(RewardSpec):
    """Correct by a checksum of text and truth, one in `one_in`; never if empty; a text with a 7 gets no verdict.

    With `hesitate`, a folder, none gets one when it is read for the first time.
    """

    type: Literal["drawn"] = "drawn"
    one_in: int = 2
    hesitate: str | None = None

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [self._one(request) for request in requests]

    def check_truth(self, answer: str) -> str | None:
        return None if answer else "it is empty"

    def _one(self, request: GradeRequest) -> Grade:
        if not request.uid or not request.messages or "prompt" not in request.extra or "target_lst" in request.extra:
            raise ValueError(f"not the whole question: {request}")
        if "7" in request.text:
            raise ValueError("sevens are beyond me")
        checksum = zlib.crc32(f"{request.answer}:{request.text}".encode())
        if self.hesitate is not None and not (seen := Path(self.hesitate) / str(checksum)).exists():
            seen.touch()
            raise ValueError("let me think")
        if dict(request.extra["extra_info"]).get("refused"):
            return self.combine(False, False)
        return self.combine(bool(request.text) and checksum % self.one_in == 0, False)


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    return [Drawn]


if (last := os.environ.get("AMPO_TEST_POOL_END")) and os.environ.get("RANK", "0") == "0":
    count, replace = 0, os.replace

    def ending(source: Any, target: Any) -> None:
        global count
        if os.fspath(target).endswith(".parquet"):
            count += 1
            if count == int(last):
                os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = ending
