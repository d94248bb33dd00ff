"""Answers that a scorer must not see: some of the package's scorers run an answer as Python.

What a policy writes is never run here. Such a scorer sees an answer only if it is what its task asks for, literals or
arithmetic, and nothing that could call, import or read anything. The same holds for what it runs of an entry, for that
comes from a file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, Literal

Form = Literal["literal", "arithmetic", "algebra", "hexadecimal"]
RUN: dict[str, Form] = {
    "binary_matrix": "literal",
    "n_queens": "literal",
    "spiral_matrix": "literal",
    "string_insertion": "literal",
    "number_sorting": "literal",
    "countdown": "arithmetic",
    "puzzle24": "arithmetic",
    "intermediate_integration": "algebra",
    "polynomial_multiplication": "algebra",
    "simple_integration": "algebra",
}
"""The data sets whose scorers call `eval`, or SymPy's `parse_expr`, which does, on an answer or the entry's own; and
what they may see."""
RUN_OF_METADATA: dict[str, tuple[str, Form]] = {
    "bitwise_arithmetic": ("problem", "hexadecimal"),
    "intermediate_integration": ("integrand", "algebra"),
    "simple_integration": ("integrand", "algebra"),
}
"""… on a value of the entry's metadata: its name, and what it may be."""
_LITERALS = (
    *(ast.Expression, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Constant),
    *(ast.Name, ast.Load, ast.UnaryOp, ast.USub, ast.UAdd),
)
_ARITHMETIC = re.compile(r"[\d\s+\-*/().]*", re.ASCII)
_HEXADECIMAL = re.compile(r"(?:0x[0-9a-fA-F]+|[\d\s+\-*<>()])*", re.ASCII)
_ALGEBRA = re.compile(r"[A-Za-z\d\s+\-*/()^,.]*", re.ASCII)
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z]", re.ASCII)
_FUNCTIONS = frozenset(
    {
        *("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
        *("asinh", "acosh", "atanh", "exp", "log", "ln", "sqrt", "Abs", "pi", "Integral"),
    }
)
_LONGEST = 10_000


def withheld(dataset: str, answer: str, entry: Mapping[str, Any]) -> bool:
    """Whether the scorer of `dataset` must not see this answer."""
    form = RUN.get(dataset)
    return form is not None and answer != entry["answer"] and not _is(form, answer)


def trusted(dataset: str, entry: Mapping[str, Any]) -> bool:
    """Whether the scorer of `dataset` may run what it runs of this entry."""
    metadata = entry["metadata"]
    run = [(RUN.get(dataset), entry["answer"])]
    if dataset in RUN_OF_METADATA:
        name, form = RUN_OF_METADATA[dataset]
        run.append((form, metadata.get(name) if isinstance(metadata, Mapping) else None))
    return all(_is(form, text) for form, text in run if form is not None and isinstance(text, str))


def _is(form: str, text: str) -> bool:
    if len(text) > _LONGEST:
        return False
    if form == "arithmetic":
        return _ARITHMETIC.fullmatch(text) is not None
    if form == "hexadecimal":
        return _HEXADECIMAL.fullmatch(text) is not None
    if form == "algebra":
        names = re.findall(r"[A-Za-z]+", text)
        plain = _ALGEBRA.fullmatch(text) is not None and _ATTRIBUTE.search(text) is None
        return plain and all(len(name) == 1 or name in _FUNCTIONS for name in names)
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:  # it is no Python: nothing runs
        return True
    except (ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, _LITERALS) for node in ast.walk(tree))
