"""The texts of `--sample`: whatever a model writes, it stands there as text, whole in a file."""

from io import StringIO

import pytest
from ampo_registry import Grade
from rich.console import Console

from ampo_core.jobs.sample.document import LONGEST_ON_SCREEN, Text, answered, code, listed, markdown, show, verdict


def printed(*parts, terminal: bool) -> str:
    screen = StringIO()
    show(parts, Console(file=screen, width=100, force_terminal=terminal, color_system=None))
    return screen.getvalue()


def test_a_text_cannot_end_its_block_nor_move_the_cursor():
    text = "a\n```\n# b\n````\n\x1b[2Jc\r"
    assert markdown([Text(text)]) == "`````text\na\n```\n# b\n````\n␛[2Jc␍\n`````\n"
    assert "\x1b" not in printed(Text(text), f"ground truth {code(text)}", terminal=False)
    assert "␛[2Jc␍" in printed(Text(text), terminal=True)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_screen_cuts_and_says_so_and_the_file_does_not(terminal):
    text = "z" * LONGEST_ON_SCREEN + "yy<end>"
    seen = printed(Text(text), terminal=terminal)
    assert seen.count("z") == LONGEST_ON_SCREEN - len("yy<end>")
    assert "zyy<end>\n" in seen
    assert "z\n… 7 characters more: --file has them …\nz" in seen
    assert text in markdown([Text(text)])


def test_tags_in_what_is_said_stay():
    parts = listed("Said", ["pays for <answer>…</answer>\nin *all* prompts"])
    assert "pays for <answer>…</answer> in *all* prompts" in printed(*parts, terminal=True)
    assert listed("Said", []) == []


@pytest.mark.parametrize("said", ["<unk>", "a_b _c_ **d**", "&lt; [e](f) ~~g~~ `h`", "i\\*j"])
def test_what_is_said_is_seen_as_it_is_on_a_terminal(said):
    lost = Grade(0.0, False, False, "error", said)
    row = next(iter(answered([(lost, 3, "stop", "")])))
    assert said in printed(*listed(said, [said]), terminal=True)
    assert said in printed(row, terminal=True)


def test_blanks_and_newlines_at_the_end_of_a_text_are_seen_on_a_terminal():
    seen = printed(Text("<user>1+1?  <end>\n<assistant> \n\n"), terminal=True)
    assert seen == "<user>1+1?  <end>\n<assistant>␠↵\n↵\n\n"
    assert markdown([Text("a\n")]) == "```text\na\n\n```\n"


def test_characters_that_turn_a_line_around_are_shown_as_numbers():
    text = "a\x9b2J\u202eb\u2066"
    assert "a⟨U+009B⟩2J⟨U+202E⟩b⟨U+2066⟩" in printed(Text(text), terminal=True)
    assert listed("Said", [text])[1] == "- a⟨U+009B⟩2J⟨U+202E⟩b⟨U+2066⟩"


def test_a_table_has_only_columns_that_say_something():
    right, lost = Grade(1.0, True, True), Grade(0.0, False, False, "timeout", "5 s")
    head, *texts = answered([(right, 3, "stop", "a"), (lost, 9, "length", "b")])
    assert head == (
        "| response | reward | verdict | format | tokens | finish reason |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| 1 | 1 | correct | yes | 3 | stop |\n"
        "| 2 | 0 | no verdict (timeout: 5 s) | no | 9 | length |"
    )
    assert texts == ["Response 1", Text("a"), "Response 2", Text("b")]
    assert verdict(Grade(0.5, False, True)) == "wrong"
    counted = Grade(1.0, True, True, numbers={"mine/steps": 4.0})
    assert next(iter(answered([(counted, 3, "stop", "a")]))).endswith("| mine/steps 4 |")
