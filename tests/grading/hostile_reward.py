"""A reward that does to its worker what the response says."""

import os
import time
from typing import Literal

from ampo_registry import Grade, GradeRequest, RewardSpec


class Hostile(RewardSpec):
    type: Literal["hostile"] = "hostile"
    start: str = ""
    broken_canary: bool = False
    tries: str = ""
    """A file that grows by a byte with each try at "second"."""

    def build(self, context):
        if self.start:
            raise OSError(self.start)
        return self

    def grade(self, requests):
        return [self._one(request) for request in requests]

    def check_truth(self, answer):
        if answer == "sleep":
            time.sleep(60)
        if answer == "raise":
            raise ValueError("bad truth")
        if answer.startswith("second") and self._first_try():
            time.sleep(60)
        return None if answer.removeprefix("second ") else "empty"

    def note_truth(self, answer):
        return "it is odd" if answer == "odd" else None

    def canaries(self):
        return ((GradeRequest("yes", "yes"), not self.broken_canary), (GradeRequest("no", "yes"), False))

    def _first_try(self):
        with open(self.tries, "ab") as file:
            file.write(b".")
            return file.tell() == 1

    def _one(self, request):
        match request.text.removeprefix("<answer>").removesuffix("</answer>"):
            case "sleep":
                time.sleep(60)
            case "second" if self._first_try():
                time.sleep(60)
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
            case "pid":
                return Grade(reward=float(os.getpid()), correct=True, formatted=False)
        return self.combine(request.text == request.answer, False)


class BadBase(BaseException):
    def __init__(self, text):
        super().__init__(text)
        self.unpicklable = lambda: None
