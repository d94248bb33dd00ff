"""Functions as people bring them from verl and TRL, and some that go wrong."""

from __future__ import annotations

import re


def gsm8k_score(solution_str, ground_truth, method="strict", format_score=0.0, score=1.0):
    """As verl's own for GSM8K: fewer arguments than verl gives."""
    found = re.findall(r"#### (-?[0-9.,]+)", solution_str)
    if not found:
        return 0
    return score if found[-1].replace(",", "") == ground_truth else format_score


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **reward_kwargs):
    """As verl's documentation shows it, with numbers beside the score."""
    right = solution_str.strip() == ground_truth
    numbers = {"acc": right, "length": len(solution_str), "pred": solution_str, "nothing": None}
    return {"score": 1.0 if right else -1.0, **numbers}


def everything(data_source, solution_str, ground_truth, extra_info, row, messages, finish_reason, least=0):
    """Says what it was given."""
    given = (data_source, solution_str, ground_truth, extra_info, row, messages, finish_reason, least)
    raise ValueError(repr(given))


def accuracy(completions, solution, log_extra=None, **kwargs):
    """As TRL's accuracy_reward: a column by name, None where it has no verdict."""
    contents = [completion[0]["content"] for completion in completions]
    pairs = zip(contents, solution, strict=True)
    return [None if not truth else float(truth in content) for content, truth in pairs]


def columns(prompts, completions, ground_truth, **kwargs):
    """Says what it was given."""
    raise ValueError(repr((prompts, completions, ground_truth, sorted(kwargs.items()))))


def longer(completions):
    """For texts."""
    return [float(len(re.findall(r"\w+", completion))) for completion in completions]


async def awaited(completions, **kwargs):
    """TRL runs these too."""
    return [1.0 for _ in completions]


class Judge:
    """A function that is an object."""

    def __call__(self, solution_str, ground_truth):
        return solution_str == ground_truth


judge = Judge()


def as_said(solution_str):
    """What the response says, as Python."""
    import numpy

    said = {"none": None, "text": "1.0", "nan": float("nan"), "list": [0.5, 1], "half": 0.5, "array": numpy.float32(1)}
    said |= {"huge": 10**400, "endless": 10**5000, "one": numpy.array([0.5]), "two": numpy.array([0.5, 1.0])}
    said |= {"beside": {"score": 1, "acc": float("nan")}, "beside two": {"score": 1, "acc": numpy.array([1, 2])}}
    return said.get(solution_str, {"acc": 1})


def as_list(completions):
    """What the response says, for TRL."""
    import numpy
    import torch

    said = {"array": numpy.array([0.5]), "tensor": torch.tensor([0.5]), "scalars": [torch.tensor(0.5)]}
    said |= {"scalar": torch.tensor(0.5), "several": torch.tensor([0.5, 1.0])}
    if (found := said.get(completions[0][0]["content"])) is not None:
        return found
    return {"two": [1.0, 1.0], "number": 1.0, "none": [None], "text": "1"}[completions[0][0]["content"]]


def reward(solution_str):
    """A name that metrics of the core begin with."""
    return {"score": 1.0, "acc": 1}


def fails(solution_str):
    """Raises."""
    if solution_str == "memory":
        raise MemoryError
    return 1 / 0


def by_position(solution_str, ground_truth, /):
    return 1.0


def wants_tokenizer(solution_str, tokenizer):
    return 1.0


def wants_ids(completions, completion_ids):
    return [1.0]


def wants_answer(answer):
    return 1.0
