"""What models did on held-out sets: rows of numbers with their intervals, as results.json holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ampo_registry.errors import ConfigError

MACRO = "macro"
"""What the mean over all sets is called among them."""
RESULTS = "results.json"
MEASURED = ("length_mean", "truncated", "entropy", "timeouts", "errors")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval [`low`, `high`]."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """True iff 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Row:
    """A model on a set, or on several (`members`): a group of the evaluation, or MACRO, all sets.

    `difference` is that of avg@K to the model `against` over the questions both answered; `unpaired` counts questions
    that only one of the two had. `samples` is None where sets differ in it. `measured` has those of MEASURED that are
    known: tokens, a share, nats a token, and how many responses got no verdict.
    """

    model: str
    set: str
    questions: float
    samples: int | None
    average: Estimate
    pass_at: Mapping[int, Estimate]
    measured: Mapping[str, float]
    difference: Estimate | None = None
    against: str | None = None
    unpaired: int = 0
    members: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """What results.json holds."""
        return {
            "questions": self.questions,
            "samples": self.samples,
            "avg": asdict(self.average),
            "pass_at": {str(k): asdict(estimate) for k, estimate in self.pass_at.items()},
            "entropy": None,
            **self.measured,
            "difference": asdict(self.difference) if self.difference else None,
            "unpaired_questions": self.unpaired,
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """What evaluate jobs found: a row for each model and set. With `several` seeds intervals are those over seeds.

    `pairs` are rows of the models beside the baseline against each other, `readings` all differences in words.
    `changed` are the changes that the runs of models went on with, in words. `orders` are places that some models have
    in other figures of a page.
    """

    title: str
    rows: Sequence[Row]
    pairs: Sequence[Row] = ()
    baseline: str | None = None
    readings: Sequence[str] = ()
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    changed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    orders: Mapping[str, int] = field(default_factory=dict)
    several: bool = False

    @classmethod
    def read(cls, folder: Path, title: str) -> Scores | None:
        """results.json of an evaluate job; None while it is not there. Raises ConfigError if it cannot be read."""
        path = folder / RESULTS
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            baseline = found.get("baseline")
            rows = [_row(m, name, row, baseline) for m, sets in found["models"].items() for name, row in sets.items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} cannot be read: {error!r}") from error
        budgets, changed = (found.get(key) or {} for key in ("budgets", "changed"))
        return cls(title, rows, (), baseline, found.get("readings") or (), budgets, changed)

    def as_json(self) -> dict[str, Any]:
        """What results.json holds: models -> sets, groups and MACRO -> numbers, and what is said of them."""
        models: dict[str, dict[str, Any]] = {}
        groups: dict[str, list[str]] = {}
        for row in self.rows:
            models.setdefault(row.model, {})[row.set] = row.as_json()
            if row.members is not None and row.set != MACRO:
                groups[row.set] = list(row.members)
        said = {"readings": list(self.readings), "budgets": self.budgets, "changed": self.changed}
        return {"baseline": self.baseline, "models": models, "groups": groups, **said}

    @property
    def models(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(row.model for row in self.rows))

    @property
    def sets(self) -> list[str]:
        """Sets and groups in the order they come, the mean over all sets last."""
        return sorted(dict.fromkeys(row.set for row in self.rows), key=lambda name: name == MACRO)

    @property
    def around(self) -> str:
        """What low and high of an estimate are."""
        if self.several:
            return "lowest and highest seed, the same where there is one seed only"
        return "95 % bootstrap interval over questions"

    def of(self, model: str, name: str) -> Row | None:
        """The row of a model and a set."""
        return next((row for row in self.rows if (row.model, row.set) == (model, name)), None)

    def order(self, model: str) -> int:
        """The model's place among those drawn: that of its run, or one after all of these."""
        others = [name for name in self.models if name not in self.orders]
        return self.orders[model] if model in self.orders else len(self.orders) + others.index(model)

    def over_seeds(self, more: Sequence[Scores]) -> Scores:
        """These and those of the same models with other seeds: the mean, from the lowest to the highest seed."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in (*self.rows, *(row for scores in more for row in scores.rows)):
            found.setdefault((row.model, row.set), []).append(row)
        several = any(len(rows) > 1 for rows in found.values())
        changed: dict[str, list[str]] = {}
        for model, lines in (item for scores in (self, *more) for item in scores.changed.items()):
            changed[model] = list(dict.fromkeys([*changed.get(model, ()), *lines]))
        rows = [_over(rows) if several else rows[0] for rows in found.values()]
        return replace(self, rows=rows, several=several, changed=changed)


def _row(model: str, name: str, found: Mapping[str, Any], baseline: str | None) -> Row:
    return Row(
        model,
        name,
        found["questions"],
        found["samples"],
        Estimate(**found["avg"]),
        {int(k): Estimate(**estimate) for k, estimate in found["pass_at"].items()},
        {key: found[key] for key in MEASURED if found.get(key) is not None},
        Estimate(**found["difference"]) if found["difference"] else None,
        baseline,
    )


def _over(rows: Sequence[Row]) -> Row:
    """The same model and set with several seeds as one row."""

    def over(estimates: Sequence[Estimate]) -> Estimate:
        values = [estimate.value for estimate in estimates]
        return Estimate(fmean(values), min(values), max(values))

    tries = dict.fromkeys(k for row in rows for k in row.pass_at)
    known = {key: [row.measured[key] for row in rows if key in row.measured] for key in MEASURED}
    return replace(
        rows[0],
        questions=fmean(row.questions for row in rows),
        average=over([row.average for row in rows]),
        pass_at={k: over([row.pass_at[k] for row in rows if k in row.pass_at]) for k in tries},
        measured={key: fmean(values) for key, values in known.items() if values},
        difference=None,
    )
