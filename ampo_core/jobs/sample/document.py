"""What `--sample` shows: paragraphs of Markdown, and texts exactly as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ampo_registry.types import Grade, Question
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text as RichText

from ampo_core.data.tokens import PromptTokenizer
from ampo_core.report.markdown import table
from ampo_core.run.progress import say

LONGEST_ON_SCREEN = 3_000
"""Characters of a text that the screen shows, half of them from its end; a file has all of them."""
SIGNS = "Seen in all of these responses together"
"""What stands above the signs of a run that learns nothing."""
_UNPICTURED = (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
PICTURES: dict[int, int | str] = {
    **{i: 0x2400 + i for i in range(32) if chr(i) not in "\t\n"},
    127: 0x2421,
    **{i: f"⟨U+{i:04X}⟩" for i in _UNPICTURED},
}
"""Control characters, and those that turn the direction of a line, as pictures or numbers: a terminal obeys them."""
MARKS = re.compile(r"[<*`]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|\](?=[(\[])|~(?=~)|\\(?=[!-/:-@\[-`{-~])")
"""What Markdown would read as a tag, an emphasis, an entity, a link, …"""
BLANKS = {" ": "␠", "\t": "␉", "\n": "↵\n"}
"""What stands at the end of a text on a terminal, where it would not be seen."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a model read or wrote, to be shown as it is, but for control characters."""

    text: str


Part = str | Text


def markdown(parts: Iterable[Part], longest: int | None = None) -> str:
    """The parts as one Markdown text; of each `Text` at most `longest` characters."""
    return "\n\n".join(part if isinstance(part, str) else _block(part.text, longest) for part in parts) + "\n"


def show(parts: Sequence[Part], console: Console) -> None:
    """Print the parts: laid out on a terminal, as Markdown elsewhere."""
    if not console.is_terminal:
        say(console, markdown(parts, LONGEST_ON_SCREEN).removesuffix("\n"))
        return
    for part in parts:
        if isinstance(part, str):
            console.print(Markdown(part))
        else:  # as it is: Markdown's blocks of code lose the blanks and newlines at their end
            console.print(RichText(_ends_seen(_shown(part.text, LONGEST_ON_SCREEN)), style="cyan"), soft_wrap=True)
        console.print()


def asked(question: Question, tokenizer: PromptTokenizer) -> Iterator[Part]:
    """A question as the model reads it, with ⟦ ⟧ around what it does not."""
    pieces = tokenizer.pieces(question.messages, question.prompt_token_ids)
    unknown = code(tokenizer.shown([tokenizer.unknown_id])) if tokenizer.unknown_id is not None else ""
    fates, length = [fate for _, fate in pieces], len(question.prompt_token_ids)
    reads = {
        "unknown": f"for {{}} ⟦…⟧ it reads {unknown}",
        "dropped": "of {} ⟦…⟧, which have no token, it reads nothing",
    }
    lost = [text.format(fates.count(fate)) for fate, text in reads.items() if fate in fates]
    only = f" ({', and '.join(lost)})" if lost else ""
    yield f"From {code(question.source)}, ground truth {code(question.answer)}. The model reads {length} tokens{only}:"
    yield Text("".join(text if fate == "read" else f"⟦{text}⟧" for text, fate in pieces))


def answered(responses: Sequence[tuple[Grade, int, str, str]]) -> Iterator[Part]:
    """Responses as (grade, tokens, finish reason, text): a table of what is said of them, and each of them."""
    head = ("response", "reward", "verdict", "format", "tokens", "finish reason", "numbers")
    rows = [
        (str(number), f"{grade.reward:g}", verdict(grade), yes(grade.formatted), str(tokens), plain(reason),
         plain(", ".join(f"{name} {value:g}" for name, value in grade.numbers.items())))
        for number, (grade, tokens, reason, _) in enumerate(responses, start=1)
    ]  # fmt: skip
    used = [column for column, name in enumerate(head) if any(row[column] for row in rows)]
    yield table([head[column] for column in used], [[row[column] for column in used] for row in rows])
    for number, (_, _, _, text) in enumerate(responses, start=1):
        yield f"Response {number}"
        yield Text(text)


def listed(title: str, lines: Iterable[str]) -> list[Part]:
    """A title with `lines` as its list; nothing without lines."""
    found = [f"- {plain(' '.join(line.split()))}" for line in lines]
    return [f"**{title}**", "\n".join(found)] if found else []


def plain(text: str) -> str:
    """`text` within a paragraph: what looks like a tag, a link or an emphasis is none."""
    return MARKS.sub(r"\\\g<0>", text.translate(PICTURES))


def code(text: str) -> str:
    """`text` within a line, as it is."""
    text = text.translate(PICTURES).replace("\n", "↵")
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"


def verdict(grade: Grade) -> str:
    """The verdict on a response, in words."""
    if grade.status != "ok":
        return plain(f"no verdict ({grade.status}: {grade.detail})")
    return "correct" if grade.correct else "wrong"


def yes(value: bool) -> str:
    """A truth value in a table."""
    return "yes" if value else "no"


def _block(text: str, longest: int | None) -> str:
    text = _shown(text, longest)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _shown(text: str, longest: int | None) -> str:
    """`text` without what a terminal obeys; of a longer one the beginning and the end, where the answer stands."""
    text = text.translate(PICTURES)
    if longest is None or len(text) <= longest:
        return text
    head, tail = text[: longest // 2], text[len(text) - longest // 2 :]
    return f"{head}\n… {len(text) - len(head) - len(tail):,} characters more: --file has them …\n{tail}"


def _ends_seen(text: str) -> str:
    kept = text.rstrip("".join(BLANKS))
    return (kept + "".join(BLANKS[blank] for blank in text[len(kept) :])).removesuffix("\n")
