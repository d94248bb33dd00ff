"""A reward that does to its worker what the response says."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal

from ampo_registry import Grade, GradeRequest, RewardSpec


class Hostile(RewardSpec):
    type: Literal["hostile"] = "hostile"
    start: str = ""
    broken_canary: bool = False
    tries: str = ""
    """A file that grows by a byte with each try at what fails at first."""

    def build(self, context):
        if self.start:
            raise OSError(self.start)
        return self

    def grade(self, requests):
        if requests[0].text == "bare":
            return self.combine(True, True)
        found = [self._one(request) for request in requests]
        return found[0] if isinstance(found[0], list) else found

    def check_truth(self, answer):
        if answer == "spin":
            work(60)
        if answer == "raise":
            raise ValueError("bad truth")
        if answer.startswith("second") and self._first_try():
            work(60)
        if answer == "false":
            return False
        return None if answer.removeprefix("second ") else "empty"

    def note_truth(self, answer):
        return {"odd": "it is odd", "blank": ""}.get(answer)

    def formatted(self, text):
        if text == "raise unformatted":
            raise ValueError("no format")
        return "yes" if text == "raise formatting" else super().formatted(text)

    def canaries(self):
        return ((GradeRequest("yes", "yes"), not self.broken_canary), (GradeRequest("no", "yes"), False))

    def _first_try(self):
        with open(self.tries, "ab") as file:
            file.write(b".")
            return file.tell() == 1

    def _one(self, request):
        match request.text.removeprefix("<answer>").removesuffix("</answer>"):
            case "spin":
                work(60)
            case "sleep":
                time.sleep(60)
            case "nap":
                time.sleep(1.0)
                Path(self.tries).write_bytes(b".")
            case "work":
                work(0.2)
            case "second" if self._first_try():
                work(60)
            case "second killed" if self._first_try():
                os.kill(os.getpid(), signal.SIGKILL)
            case "second memory" if self._first_try():
                raise MemoryError
            case "die":
                os._exit(7)
            case "raise":
                raise ValueError("no idea")
            case "base":
                raise BadBase("not even an Exception")
            case "memory":
                bytearray(6 * 2**30)
            case "nan":
                return Grade(reward=float("nan"), correct=True, formatted=True)
            case "none":
                return None
            case "two":
                return [self.combine(True, True)] * 2
            case "int":
                return Grade(1.0, 1, True)
            case "bool":
                return Grade(True, True, True)
            case "status":
                return Grade(1.0, True, True, "fine")
            case "list":
                return Grade(1.0, True, True, numbers=[])
            case "exit":
                sys.exit(0)
            case "interrupt":
                raise KeyboardInterrupt
            case "raise unformatted" | "raise formatting":
                raise ValueError("no idea")
            case "row":
                return Grade(float(request.extra["points"]), request.finish_reason == "stop", True)
            case "number":
                return Grade(0.5, False, False, numbers=json.loads(request.answer))
            case "pid":
                return Grade(reward=float(os.getpid()), correct=True, formatted=False)
        return self.combine(request.text == request.answer, False)


def work(seconds):
    """Use so many seconds of CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


class BadBase(BaseException):
    def __init__(self, text):
        super().__init__(text)
        self.unpicklable = lambda: None
