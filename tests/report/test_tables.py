"""One table, three writers: Markdown, HTML and the screen."""

import io

import pytest
from rich.console import Console

from ampo_core.report.scores import Estimate
from ampo_core.report.tables import Column, Table, interval, points, share

TABLE = Table(
    [
        Column("name", lambda item: item[0], text=True),
        Column("long [/b]", lambda item: item[1] * 3, brief=lambda item: item[1]),
        Column("wide", lambda item: "w", wide=True),
    ],
    [("a|b [/i]", "1"), ("a|b [/i]", "2"), ("<c>", "3")],
    title="The [/title]",
    caption="Cap & [/caption]",
    notes=["A note [/note]."],
    blocks=True,
)


def screen(table, width=80):
    shown = io.StringIO()
    table.show(Console(file=shown, width=width))
    return shown.getvalue()


def test_markdown_has_every_column_and_row():
    assert TABLE.markdown() == (
        "## The [/title]\n\n"
        "| name | long [/b] | wide |\n| --- | ---: | ---: |\n"
        "| a\\|b [/i] | 111 | w |\n| a\\|b [/i] | 222 | w |\n| <c> | 333 | w |\n\n"
        "Cap & [/caption]\n\nA note [/note]."
    )


def test_html_escapes_and_leaves_the_title_to_the_page():
    html = TABLE.html()
    assert html.startswith('<p class="caption">Cap &amp; [/caption]</p>')
    assert '<th scope="row">&lt;c&gt;</th><td class="number">333</td><td class="number">w</td>' in html
    assert html.endswith('<p class="note">A note [/note].</p>')
    assert "title" not in html


def test_a_screen_is_brief_and_shows_blocks_and_brackets_as_they_are():
    shown = screen(TABLE)
    lines = shown.splitlines()
    for text in ("The [/title]", "Cap & [/caption]", "A note [/note].", "long [/b]"):
        assert text in shown
    assert "wide" not in shown
    assert shown.count("a|b [/i]") == 1
    assert [line.split("│")[2].strip() for line in lines if line.startswith("│")] == ["1", "2", "3"]
    assert len([line for line in lines if line.startswith("├")]) == 1


def test_a_screen_that_is_too_narrow_cuts_no_number():
    wide = Table([Column(f"column {i}", str) for i in range(9)], [123456789.125])
    assert screen(wide, 40).count("123456789.125") == 9


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (share, 0.125, "12.5"),
        (share, None, "–"),
        (interval, Estimate(0.5, 0.25, 1.0), "50.0 [25.0, 100.0]"),
        (interval, None, "–"),
        (points, Estimate(0.5, -0.25, 1.0), "+50.0 [-25.0, +100.0]"),
        (points, None, ""),
    ],
)
def test_shares_and_differences(write, value, text):
    assert write(value) == text
