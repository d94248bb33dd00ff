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

Form = Literal["literal", "arithmetic", "algebra"]
RUN = {
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
"""The data sets whose scorers call `eval`, or SymPy's `parse_expr`, which does; and what they may see."""
_LITERALS = (
    *(ast.Expression, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Constant),
    *(ast.Name, ast.Load, ast.UnaryOp, ast.USub, ast.UAdd),
)
_ARITHMETIC = re.compile(r"[\d\s+\-*/().]*", re.ASCII)
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
    form, metadata = RUN.get(dataset), entry["metadata"]
    integrand = metadata.get("integrand", "") if isinstance(metadata, Mapping) else ""
    return form is None or all(_is(form, text) for text in (entry["answer"], integrand) if isinstance(text, str))


def _is(form: str, text: str) -> bool:
    if len(text) > _LONGEST:
        return False
    if form == "arithmetic":
        return _ARITHMETIC.fullmatch(text) is not None
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
