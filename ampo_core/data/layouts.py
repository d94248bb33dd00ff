"""From a person's row to the contract's: the columns of a layout (`ampo_core/config/layouts.py`) are read, and the
contract's fields written into the row beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from ampo_registry.errors import DataError
from ampo_registry.text import last_box

from ampo_core.config.data_files import HubData
from ampo_core.config.layouts import BOXED, LAYOUTS, Layout, SaysLayout, layouts_of
from ampo_core.data.contract import SINGLE_TEACHER, CheckedRow, check_row, column
from ampo_core.data.rows import Row, RowFile

PROMPTS = ("question", "problem", "prompt", "query", "instruction", "input", "messages")
ANSWERS = ("answer", "final_answer", "expected_answer", "ground_truth", "label", "solution", "target", "output")
"""Names under which questions and answers often stand, for what is said of a row that cannot be read."""
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SHOWN = 100


class Unusable(Exception):
    """Why a row has no answer that a response could be verified against."""


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads rows that stand in one of `layouts`, each by the first whose columns it has; none is the data contract
    itself, in which nothing is mapped. Without `truths`, where nothing is verified, a mapped row needs no answer, and
    its ground truth is empty."""

    layouts: tuple[Layout, ...] = ()
    truths: bool = True

    @classmethod
    def of(cls, block: SaysLayout, *, truths: bool = True) -> RowReader:
        """The reader that a block of a config asks for."""
        return cls(layouts_of(block), truths)

    def read(self, row: Row, file: RowFile, number: int) -> CheckedRow:
        """`row` as the contract has it. A row whose answer cannot be used says so as `unusable`, and its `answer` is
        what stands there.

        Raises DataError that names file, row, column and what was found, the row's columns and what would read them.
        """
        try:
            return self._mapped(row, file, number) if self.layouts else check_row(row, file, number)
        except DataError as error:
            raise DataError(f"{error}{hint(self, row, file, number)}") from None

    def _mapped(self, row: Row, file: RowFile, number: int) -> CheckedRow:
        at = _At(row, f"{file}, row {number}")
        fitting = next(filter(at.fits, self.layouts), self.layouts[0])
        layout = next((layout for layout in self.layouts if at.fits(layout, filled=True)), fitting)
        name, prompt = at.first(layout.prompt)
        prompt = "" if prompt is None else prompt
        if not isinstance(prompt, str | list):
            at.fail(name, "text or a list of {role, content}", prompt)
        is_text, empty = isinstance(prompt, str), prompt == []
        turns = [{"role": "user", "content": "" if empty else prompt}] if is_text or empty else prompt
        told, answer, unusable = at.answer(layout.answer) if self.truths else ("", "", None)
        old = row.get("reward_model")
        kept = old if isinstance(old, Mapping) else {}
        source = at.word(layout.source or "data_source", needed=layout.source is not None)
        written: dict[str, Any] = {
            "data_source": source or _name(file),
            "prompt": turns,
            "reward_model": {**kept, "ground_truth": answer, "style": "rule"},
        }
        if is_text:  # a reward in the style of TRL gives texts where the data set has them
            written["reward_model"]["text_prompt"] = True
        if layout.ability is not None:
            written["ability"] = at.word(layout.ability, needed=True)
        if layout.target is not None:
            written["target"] = at.target(layout.target)
        columns = {
            "prompt[0].content" if is_text else "prompt": name,
            "prompt": name,
            "reward_model.ground_truth": told,
            "data_source": layout.source or "data_source",
            "target[0].content" if isinstance(at.found(layout.target), str) else "target": layout.target or "target",
        }
        checked = check_row({**row, **written}, file, number, columns)
        return replace(checked, unusable=checked.unusable or unusable)


@dataclass(frozen=True, slots=True)
class _At:
    """A row and where it stands."""

    row: Row
    place: str

    def fail(self, name: str, wanted: str, found: object) -> None:
        shown = "nothing (missing or null)" if found is None else repr(found)
        raise DataError(f"{self.place}: {name} must be {wanted}; found {_short(shown)}")

    def get(self, name: str) -> Any:
        """The value of a column; dots reach inside where no column has the whole name. Raises KeyError."""
        return self.row[name] if name in self.row else column(self.row, name)

    def present(self, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for name in names:
            try:
                yield name, self.get(name)
            except KeyError:
                continue

    def found(self, name: str | None) -> Any:
        return None if name is None else next((value for _, value in self.present([name])), None)

    def fits(self, layout: Layout, *, filled: bool = False) -> bool:
        """Whether the row has a column of the prompt and one of the answer; `filled`, with something in them."""
        answers = [name for name, _ in layout.answer]
        return all(
            any(not filled or not _blank(value) for _, value in self.present(names))
            for names in (layout.prompt, answers)
        )

    def first(self, names: Sequence[str]) -> tuple[str, Any]:
        """The first column that there is, blank ones only where all are."""
        found = list(self.present(names))
        if not found:
            raise DataError(f"{self.place}: it has no column {' or '.join(dict.fromkeys(names))}")
        return next(((name, value) for name, value in found if not _blank(value)), found[0])

    def answer(self, places: Sequence[tuple[str, str | None]]) -> tuple[str, str, str | None]:
        """(the column, its answer, None), or (a column, what stands there, why it cannot be used)."""
        column, _ = self.first([name for name, _ in places])
        shown, reasons = "", []
        for name, pattern in places:
            for _, value in self.present([name]):
                try:
                    text = self._text(name, value)
                    return name, text if pattern is None else found_by(pattern, text), None
                except Unusable as reason:
                    shown = shown or ("" if value is None else str(value))
                    reasons.append(f"{name}: {reason}")
        return column, _short(shown), "; ".join(reasons)

    def word(self, name: str, *, needed: bool) -> str | None:
        """The value of a column that names something; None where it does not, unless it is `needed`."""
        value = self.first([name])[1] if needed else next(self.present([name]), (name, None))[1]
        try:
            return self._text(name, value) if needed or isinstance(value, str) else None
        except Unusable:
            return None

    def target(self, name: str) -> object:
        """A teacher's answer in the contract's form."""
        value = self.first([name])[1]
        if isinstance(value, str):
            turn = {"role": "assistant", "content": value, "source": SINGLE_TEACHER}
            return [turn] if value.strip() else None
        return value

    def _text(self, name: str, value: object) -> str:
        """`value` as text. Raises Unusable where it is empty, DataError where it is no text, number, true or false."""
        if isinstance(value, list) and len(value) == 1:  # how some data sets write the one answer that there is
            value = value[0]
        if isinstance(value, str):
            text = value.strip()
            if not text:
                raise Unusable("it is empty")
            return text
        if value is None:
            raise Unusable("it is empty")
        if isinstance(value, float | Decimal) and not Decimal(value).is_finite():
            raise Unusable(f"it is {value}, no number")
        if not isinstance(value, bool | int | float | Decimal):
            self.fail(name, "text, a number, true or false", value)
        return as_text(value)


def as_text(value: object) -> str:
    """A number as it is written by hand: 72, 0.5 and 0.0000001; a whole number never as 72.0."""
    if isinstance(value, bool | int):
        return str(value)
    number = Decimal(str(value))
    if number == 0:
        return "0"
    return f"{number.to_integral_value():f}" if number == number.to_integral_value() else f"{number:f}"


def found_by(pattern: str, text: str) -> str:
    """The answer that `pattern` finds in `text`: the last match, of it the group. A number with separators of thousands
    loses them. Raises Unusable."""
    if pattern == BOXED:
        found = last_box(text, any_form=True)
        if not found:
            raise Unusable("there is no \\boxed{…} in it")
        return found
    matches = list(_compiled(pattern).finditer(text))
    found = ((matches[-1][1] if matches[-1].re.groups else matches[-1][0]) or "").strip() if matches else ""
    if not found:
        raise Unusable(f"answer_pattern {pattern!r} finds nothing in it")
    return found.replace(",", "") if _THOUSANDS.fullmatch(found) else found


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _blank(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _name(file: RowFile) -> str:
    return file.hub if isinstance(file, HubData) else file.stem


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def hint(reader: RowReader, row: Row, file: RowFile, number: int) -> str:
    """What is said of a row that `reader` cannot read or finds no answer in: its columns, and what would read them."""
    columns = _short(", ".join(map(str, row))).encode(errors="backslashreplace").decode()
    readers = {f"fit layout: {name}": RowReader((layout,)) for name, layout in LAYOUTS.items()}
    if reader.layouts:
        readers = {"are those of the data contract: leave layout and columns away": RowReader(), **readers}
    for text, other in readers.items():
        if other != reader and _reads(other, row, file, number):
            return f"; its columns {columns} {text}"
    for prompt in (name for name in PROMPTS if name in row):
        for answer in (name for name in ANSWERS if name in row and name != prompt):
            if _reads(RowReader((Layout((prompt,), ((answer, None),)),)), row, file, number):
                return f"; its columns {columns} may be read by columns: {{prompt: {prompt}, answer: {answer}}}"
    lacking = bool(reader.layouts) or not {"prompt", "reward_model"} <= row.keys()
    return f"; its columns: {columns}; data.columns says which of them hold prompt and answer" if lacking else ""


def _reads(reader: RowReader, row: Row, file: RowFile, number: int) -> bool:
    try:
        found = reader._mapped(row, file, number) if reader.layouts else check_row(row, file, number)
    except DataError:
        return False
    return found.unusable is None
