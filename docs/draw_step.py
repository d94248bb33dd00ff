"""Draw docs/step.svg, the picture of one training step: `make docs`.

It stands in an <img>, where a page's style does not reach: it has a ground of its own and follows the system's scheme.
"""

from __future__ import annotations

from pathlib import Path

TARGET = Path(__file__).parent / "step.svg"
WIDTH, HEIGHT = 214, 84
LEFT, TOP, ACROSS, DOWN = 56, 56, 36, 52

HOPS = (
    ("questions", "", "Questions.take"),
    ("sample, G times", "rollout", "Sampler.sample"),
    ("grade", "reward", "Sampler.grade"),
    ("trigger", "trigger", "Guide.triggered"),
    ("teacher answers", "teacher_pool", "Guide.candidates"),
    ("select", "selector", "Guide.select"),
    ("intervene", "intervention", "Guide.intervene"),
    ("advantages", "advantage, judge", "with_advantages"),
    ("group filter", "", "GroupFilter.keep"),
    ("mini-batches", "", "minibatches"),
    ("π_old", "", "with_old_log_probs"),
    ("weigh", "aggregator, schedule", "Objective.weights"),
    ("pack, forward", "", "microbatches"),
    ("loss", "loss, shaping, judge", "MiniBatchLoss"),
    ("optimizer step", "", "Learner.update"),
    ("sync", "rollout", "load_weights"),
)
"""Title, kinds of plugins, name in the code; four in a row, every second row from right to left."""

STYLE = """
  .ground { fill: #ffffff } .box { fill: #f3f6fb; stroke: #9fb1cc } .frame { fill: none; stroke: #b7791f }
  text { font-family: system-ui, sans-serif; font-size: 15px; fill: #1c2733 }
  .title { font-size: 18px; font-weight: 600 }
  .kind { fill: #1f5fbf } .code { font-family: ui-monospace, monospace; font-size: 13.5px; fill: #56657a }
  .line { fill: none; stroke: #56657a; stroke-width: 1.8; marker-end: url(#tip) } .tip { fill: #56657a }
  .note { font-style: italic; fill: #8a5a14 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #14181e } .box { fill: #1e2631; stroke: #48597a } .frame { stroke: #c08a3a }
    text { fill: #e6ebf2 } .kind { fill: #7fb0ff } .code { fill: #a3b1c4 } .note { fill: #e0ad66 }
    .line { stroke: #a3b1c4 } .tip { fill: #a3b1c4 }
  }
"""


def corner(place: int) -> tuple[int, int]:
    """The upper left corner of the box at a place in the order of the step."""
    row, column = divmod(place, 4)
    column = column if row % 2 == 0 else 3 - column
    return LEFT + column * (WIDTH + ACROSS), TOP + row * (HEIGHT + DOWN)


def box(place: int) -> str:
    """One hop: what it is, whose it is, where it stands."""
    (title, kind, code), (x, y) = HOPS[place], corner(place)
    return (
        f'<rect class="box" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
        f'<text class="title" x="{x + 14}" y="{y + 28}">{title}</text>'
        f'<text class="kind" x="{x + 14}" y="{y + 49}">{kind}</text>'
        f'<text class="code" x="{x + 14}" y="{y + 71}">{code}</text>'
    )


def arrow(place: int) -> str:
    """From the hop at a place to the next one."""
    (x, y), (to_x, to_y) = corner(place), corner(place + 1)
    if y == to_y:
        across = (x + WIDTH, to_x - 2) if to_x > x else (x, to_x + WIDTH + 2)
        return f'<path class="line" d="M{across[0]} {y + HEIGHT // 2} H{across[1]}"/>'
    return f'<path class="line" d="M{x + WIDTH // 2} {y + HEIGHT} V{to_y - 2}"/>'


def picture() -> str:
    """The text of docs/step.svg."""
    wide, high = 2 * LEFT + 4 * WIDTH + 3 * ACROSS, 2 * TOP + 4 * HEIGHT + 3 * DOWN
    first, trigger, answers, intervene, advantages, last = (corner(place) for place in (0, 3, 4, 6, 7, 15))
    gap = trigger[1] + HEIGHT + 15
    frame = intervene[0] - 10, intervene[1] - 12, answers[0] + WIDTH - intervene[0] + 20, HEIGHT + 24
    passing = f"M{trigger[0] + 30} {trigger[1] + HEIGHT} V{gap} H{advantages[0] + WIDTH // 2} V{advantages[1] - 2}"
    again = f"M{last[0]} {last[1] + HEIGHT // 2} H{LEFT // 2} V{first[1] + HEIGHT // 2} H{first[0] - 2}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img">',
        "<title>One training step</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>',
        f'<rect class="ground" width="{wide}" height="{high}" rx="10"/>',
        f'<text x="{LEFT}" y="32">One step: <tspan class="kind">kinds of plugins</tspan>, '
        '<tspan class="code">names in the code</tspan></text>',
        '<rect class="frame" x="{}" y="{}" width="{}" height="{}" rx="9" stroke-dasharray="6 4"/>'.format(*frame),
        f'<text class="note" x="{frame[0] + 4}" y="{frame[1] + frame[3] + 18}">only groups that need guidance</text>',
        f'<text class="note" x="{advantages[0] + WIDTH // 2 + 10}" y="{gap + 18}">groups that pass</text>',
        f'<text class="note" x="{LEFT}" y="{high - 22}">the sampler gets the new weights; the next step begins</text>',
        *(box(place) for place in range(len(HOPS))),
        *(arrow(place) for place in range(len(HOPS) - 1)),
        *(f'<path class="line" d="{path}"/>' for path in (passing, again)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8")
    print(f"wrote {TARGET}")
