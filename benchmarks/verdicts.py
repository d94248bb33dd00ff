"""Ways to write a right answer, and which of them `math_verify` refuses; wrong answers, and which it accepts.

    python benchmarks/verdicts.py                                   # the 65 rows of tests/golden/data
    python benchmarks/verdicts.py ../shared/data/*.parquet          # the authors' evaluation files

Each ground truth is written in every way that applies to it, inside answer tags, and graded twice: as the released
program reads answers (all options of `math_verify` off) and with the defaults. A mutant is a wrong answer made from
a ground truth: its sign, a digit or its power of ten changed, or the truth of another question. The table gives the
share of right answers that is refused and the number of mutants that are accepted; below it stand the mutants that
the defaults accept and the released program does not.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import GradeRequest
from rich.console import Console
from rich.table import Table

from ampo_core.grading.grader import Grader

SAMPLE = Path(__file__).parents[1] / "tests" / "golden" / "data" / "sample.jsonl"
RELEASED = {"normalise": False, "exact_numbers": False, "one_answer": False, "skip_thoughts": False}
_EXPONENT = re.compile(r"(?<![\w.])(\d+(?:\.\d*)?|\.\d+)e([-+]?\d+)(?!\w)")
_DEGREES = re.compile(r"\^(?:\\circ|\{\\circ\})")


def power_of_ten(truth: str) -> str:
    return _EXPONENT.sub(lambda found: f"{found[1]} \\times 10^{{{int(found[2])}}}", truth)


def full_width(truth: str) -> str:
    return re.sub(r"\d", lambda digit: chr(ord(digit[0]) + 0xFEE0), truth)


VARIANTS: dict[str, Callable[[str], str]] = {
    "as it stands": str,
    "full stop behind": "{}.".format,
    "comma behind": "{},".format,
    "bold": "**{}**".format,
    r"`\\` behind": "{} \\\\".format,
    "zero-width space behind": "{}\u200b".format,
    "sentence behind": "{}. This is the final answer.".format,
    "the answer is …": "The answer is {}".format,
    "in a box, full stop": "\\boxed{{{}}}.".format,
    "digits of full width": full_width,
    "minus of Unicode": lambda truth: truth.replace("-", "\u2212"),
    "° for `^\\circ`": lambda truth: _DEGREES.sub("°", truth),
    "power of ten for e-notation": power_of_ten,
}
"""Ways to write a ground truth that leave it right; one that changes nothing does not apply."""


def signs(truth: str) -> Iterator[str]:
    """The other sign."""
    inside = re.match(r"(\$?)([-+]?)(.*)\Z", truth, re.DOTALL)
    if inside and re.search(r"[1-9]", truth):
        yield f"{inside[1]}{'' if inside[2] == '-' else '-'}{inside[3]}"


def digits(truth: str) -> Iterator[str]:
    """Each digit changed, one at a time."""
    for found in re.finditer(r"\d", truth):
        yield f"{truth[: found.start()]}{(int(found[0]) + 1) % 10}{truth[found.end() :]}"


def powers(truth: str) -> Iterator[str]:
    """Another power of ten, written in both ways."""
    for shift in (-1, 1):
        other = _EXPONENT.sub(lambda found, by=shift: f"{found[1]}e{int(found[2]) + by}", truth)
        if other != truth:
            yield from (other, power_of_ten(other))


MUTANTS: dict[str, Callable[[str], Iterator[str]]] = {
    "sign": signs,
    "a digit": digits,
    "power of ten": powers,
}
"""Ways to make a wrong answer of a ground truth."""


def others(truths: Sequence[str], near: int = 3) -> Iterator[tuple[str, str]]:
    """Each ground truth with those next to it when they are sorted."""
    ordered = sorted(truths, key=lambda truth: (re.sub(r"[^0-9]", "", truth), truth))
    for place, truth in enumerate(ordered):
        yield from ((other, truth) for other in ordered[max(0, place - near) : place + near + 1] if other != truth)


def cases(truths: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Pairs of answer and ground truth by the way the answer was made; ways that apply to none are left out."""
    made = {
        name: [(write(truth), truth) for truth in truths if write is str or write(truth) != truth]
        for name, write in VARIANTS.items()
    }
    for name, mutate in MUTANTS.items():
        made[name] = [(wrong, truth) for truth in truths for wrong in mutate(truth)]
    made["another question's"] = list(others(truths))
    return {name: pairs for name, pairs in made.items() if pairs}


def read_truths(paths: Sequence[Path]) -> list[str]:
    """The different ground truths of some files, sorted."""
    found: set[str] = set()
    for path in paths:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path, columns=["reward_model"]).to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        found |= {row["reward_model"]["ground_truth"] for row in rows}
    return sorted(found)


def verdicts(spec: MathVerify, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    with Grader(spec) as grader:
        return [g.correct for g in grader.grade([GradeRequest(f"<answer> {a} </answer>", t) for a, t in pairs])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=[SAMPLE], help="files of questions")
    made = cases(read_truths(parser.parse_args().files))
    pairs = [pair for group in made.values() for pair in group]
    generous = {"timeout_s": 60, "max_error_rate": 1.0}
    before = iter(verdicts(MathVerify(**generous, **RELEASED), pairs))
    after = iter(verdicts(MathVerify(**generous), pairs))
    table = Table("answer", "of", "released", "default", box=None)
    fresh: list[str] = []
    for name, group in made.items():
        was, now = [next(before) for _ in group], [next(after) for _ in group]
        if name in VARIANTS:
            table.add_row(name, str(len(group)), *(f"{1 - sum(v) / len(group):.1%} refused" for v in (was, now)))
            lost = [pair for pair, old, new in zip(group, was, now, strict=True) if old and not new]
            fresh += [f"refused by the defaults alone: {answer!r} for {truth!r}" for answer, truth in lost]
        else:
            table.add_row(name, str(len(group)), *(f"{sum(v)} accepted" for v in (was, now)))
            won = [pair for pair, old, new in zip(group, was, now, strict=True) if new and not old]
            fresh += [f"accepted by the defaults alone: {answer!r} for {truth!r}" for answer, truth in won]
    console = Console(width=120)
    console.print(table)
    console.print(*fresh, sep="\n", markup=False)


if __name__ == "__main__":
    main()
