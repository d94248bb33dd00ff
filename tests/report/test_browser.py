"""The page in a real browser that has no network: every figure drawn, no word on the console, both themes, a phone."""

from __future__ import annotations

import json

import pytest

from ampo_core.report.build import write_report

from .conftest import EVIL, TEACHERS, until, write_evaluation, write_lines
from .test_build import with_metrics

pytestmark = [pytest.mark.usefixtures("browser"), pytest.mark.process]
FIT = "return [document.scrollingElement.scrollWidth, innerWidth]"
OPEN = "document.querySelectorAll('details').forEach((item) => { item.open = true; })"
DRAWN = """return [...document.querySelectorAll('.plot')].map((box) => [
  box.dataset.figure, box.dataset.drawn === 'yes', box.querySelectorAll('.trace, .bars .point').length])"""
OUTSIDE = """return [...document.querySelectorAll('figure, .tile, .rollout, .legend, .filters, h1, nav')]
  .filter((item) => item.getBoundingClientRect().right > innerWidth + 0.5).map((item) => item.className)"""


def said(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser) -> list[str]:
    """What the page asked for, itself left out."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:")) and not url.endswith(".html")]


def figures(browser) -> dict[str, int]:
    """figure -> traces, of all figures; each must have been drawn."""
    browser.execute_script(OPEN)
    until(lambda: all(drawn for _, drawn, _ in browser.execute_script(DRAWN)))
    return {name: traces for name, _, traces in browser.execute_script(DRAWN)}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_a_run_is_drawn_whole_and_fits(run, browser, show, width, dark):
    show(write_report([run]), width=width, dark=dark)
    drawn = figures(browser)
    assert len(drawn) > 12
    assert all(drawn.values()), drawn
    assert {"reward/mean", "eval/macro/avg", "policy/grad_norm", "guidance-scores", "time"} <= set(drawn)
    fits(browser, width)
    assert is_quiet(browser)
    buttons = "return [...document.querySelectorAll('.modebar-btn')].map((item) => item.dataset.title)"
    offered = {"Download plot as a PNG", "Zoom", "Reset axes"}
    assert set(browser.execute_script(buttons)) <= offered  # and none that sends a chart away
    line = "return document.querySelector('[data-figure=\"reward/accuracy\"] .js-line').style.stroke"
    assert ("88, 166, 232" in browser.execute_script(line)) == dark


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (360, False)])
def test_a_pipeline_is_drawn_whole_and_fits(pipeline, browser, show, width, dark):
    show(write_report([pipeline]), width=width, dark=dark)
    drawn = figures(browser)
    assert all(drawn.values()), drawn
    assert {"reward/mean", "sets", "pass-hard", "pass-macro", "guidance-teachers-ampo"} <= set(drawn)
    fits(browser, width)
    assert is_quiet(browser)


def test_metrics_of_plugins_are_drawn_once_they_are_opened(run, browser, show):
    with_metrics(run, **{f"judge__kl_{i:02}": float for i in range(30)})
    show(write_report([run]), width=360)
    group = browser.find_element("css selector", "details.group")
    drawn = "return arguments[0].querySelectorAll('[data-drawn=yes]').length"
    assert browser.execute_script(drawn, group) == 0
    browser.execute_script("arguments[0].open = true", group)
    until(lambda: browser.execute_script(drawn, group) == 30)
    fits(browser, 360)
    assert is_quiet(browser)


def test_switches_of_a_suite(suite, browser, show):
    show(write_report([suite]))
    figures(browser)
    count = "return document.querySelectorAll('[data-figure=\"reward/mean\"] .scatterlayer .trace').length"
    before = browser.execute_script(count)
    chip = browser.find_element("css selector", ".chip[data-run='1']")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    until(lambda: browser.execute_script(count) == before / 2)
    chip.send_keys("\ue007")  # Enter: what a click does, keys do too
    until(lambda: browser.execute_script(count) == before)
    assert is_quiet(browser)


def test_theme_and_single_steps(run, browser, show):
    show(write_report([run]))
    button = browser.find_element("id", "theme")
    background = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(background)
    button.click()
    assert browser.execute_script(background) == light
    button.click()
    assert "dark" in button.text
    assert browser.execute_script(background) != light
    button.click()
    assert "auto" in button.text
    count = "return document.querySelectorAll('[data-figure=\"reward/mean\"] .scatterlayer .trace').length"
    assert browser.execute_script(count) == 2
    browser.find_element("id", "raw").click()
    until(lambda: browser.execute_script(count) == 1)


def test_rollouts_are_filtered_and_stay_text(run, browser, show):
    show(write_report([run]), width=360)
    rollouts = "return [...document.querySelectorAll('.rollout')].map((item) => item.innerText)"
    assert any(EVIL in text for text in browser.execute_script(rollouts))
    assert browser.title == "ampo · AMPO"

    def choose(label: str, value: str) -> list[str]:
        script = """const box = [...document.querySelectorAll('.filters label')].find((item) =>
          item.firstChild.textContent === arguments[0]).querySelector('select, input');
          box.value = arguments[1]; box.dispatchEvent(new Event(box.tagName === 'INPUT' ? 'input' : 'change'))"""
        browser.execute_script(script, label, value)
        return browser.execute_script(rollouts)

    teachers = choose("source", "*teacher")
    assert teachers
    assert all("★ teacher" in browser.execute_script(
        "return getComputedStyle(arguments[0], '::before').content", item
    ) for item in browser.find_elements("css selector", ".who"))  # fmt: skip
    assert {text.split("\n")[0] for text in teachers} == set(TEACHERS)
    assert all("score 0.5" in text for text in teachers)
    assert choose("reward", "wrong") == []
    assert len(choose("source", "student")) == 24
    one_step = choose("where", "step 40")
    assert len(one_step) == 5
    assert [text for text in choose("text", "onerror") if EVIL in text] == choose("text", "onerror")
    assert "1 of 1 shown" in browser.find_element("css selector", ".filters output").text


def test_what_the_student_went_on_from_is_marked(run, browser, show):
    line = {"step": 1, "prompt": "1+1?", "answer": "2", "reward": 1.0, "source": "teacher", "teacher": "t", "score": 1}
    mixed = {"text": "one and one is 2", "segments": [["off_policy", 3], ["on_policy", 4]], "given": 8}
    write_lines(run / "samples.jsonl", [{**line, "text": ""}, {**line, **mixed}])
    show(write_report([run]))
    plain, found = browser.find_elements("css selector", ".rollout")
    assert "(empty)" in plain.text
    assert "trained as" not in plain.text
    assert "trained as off_policy 3 · on_policy 4 tokens" in found.text
    assert [item.text for item in found.find_elements("css selector", "mark.given")] == ["one and "]
    assert "one and one is 2" in found.text


@pytest.mark.parametrize("width", [1280, 360])
def test_the_same_question_side_by_side(pipeline, browser, show, width):
    samples = pipeline / "ampo/samples.jsonl"
    own = [json.loads(text) for text in (pipeline / "grpo/samples.jsonl").read_text().splitlines()]
    put_in = [{**found, "text": "2", "source": "teacher", "teacher": TEACHERS[0], "reward": 1.0} for found in own]
    write_lines(samples, [*put_in, *({**found, "reward": float(found["step"] < 9)} for found in own)])
    show(write_report([pipeline]), width=width)
    box = browser.find_element("css selector", "[data-sides=rollouts-beside]")
    pick, which = box.find_elements("css selector", "select")
    before, after = box.find_elements("css selector", ".filters > button")
    told = "return [...arguments[0].querySelectorAll('.column')].map((item) => item.innerText)"
    count = box.find_element("css selector", "output")

    def columns() -> list[str]:
        return list(browser.execute_script(told, box))

    assert [text.split("\n")[0] for text in columns()] == ["grpo", "ampo"]
    plain, guided = columns()
    assert "1 of 1 right" in guided
    assert "put in by guidance, not counted: 1" in guided
    assert "put in by guidance" not in plain
    assert count.text.startswith("1 of ")
    total = int(count.text.split()[-1])
    assert not before.is_enabled()
    browser.execute_script("arguments[0].click()", after)
    assert count.text == f"2 of {total}"
    choose = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
    labels = [option.text for option in pick.find_elements("css selector", "option")]
    evil = next(i for i, label in enumerate(labels) if "+3?" in label)
    browser.execute_script(choose, pick, str(evil))
    assert all(EVIL in text for text in columns())
    browser.execute_script(choose, which, "differ")
    assert 0 < len(pick.find_elements("css selector", "option")) < total
    assert any("★" in browser.execute_script("return getComputedStyle(arguments[0], '::before').content", item)
               for item in box.find_elements("css selector", ".teacher .who"))  # fmt: skip
    browser.execute_script("document.querySelector('.chip[data-run=\"0\"]').click()")
    assert [text.split("\n")[0] for text in columns()] in (["ampo"], [])
    browser.execute_script(choose, which, "")
    assert [text.split("\n")[0] for text in columns()] == ["ampo"]
    fits(browser, width)
    assert is_quiet(browser)
    assert browser.title == "quick · AMPO"


def test_predictions_are_marked_by_their_grade(tmp_path, browser, show):
    folder = write_evaluation(tmp_path / "e", {"m": 0.5})
    line = {"model": "m", "set": "easy", "text": "2", "answer": "2"}
    write_lines(folder / "predictions.jsonl", [
        {**line, "prompt": "penalized?", "correct": True, "reward": -0.5},
        {**line, "prompt": "formatted?", "correct": False, "reward": 0.5},
    ])  # fmt: skip
    show(write_report([folder]))
    texts = [item.text for item in browser.find_elements("css selector", ".rollout")]
    assert [("✓ reward -0.5" in text, "✗ reward 0.5" in text) for text in texts] == [(True, False), (False, True)]
    assert "Q penalized?" in texts[0]


def test_nothing_else_runs_or_is_loaded(run, browser, show):
    """What would be there to protect, if a text ever came through as HTML."""
    show(write_report([run]))
    blocked = browser.execute_async_script("""const done = arguments[0], found = [];
      document.addEventListener('securitypolicyviolation', (event) => found.push(event.effectiveDirective));
      const script = document.createElement('script'); script.textContent = 'window.owned = true';
      const image = document.createElement('img'); image.src = 'http://example.invalid/x.png';
      document.body.append(script, image);
      fetch('http://example.invalid/').catch(() => setTimeout(() => done(found), 100));""")
    assert sorted(blocked) == ["connect-src", "img-src", "script-src-elem"]
    assert browser.execute_script("return window.owned") is None


def fits(browser, width: int) -> None:
    """No scrolling sideways, but inside the boxes of tables."""
    wide, inner = browser.execute_script(FIT)
    assert wide <= inner == width
    assert browser.execute_script(OUTSIDE) == []


def is_quiet(browser) -> bool:
    """Nothing on the console, nothing asked of a network."""
    assert said(browser) == []
    assert requests(browser) == []
    return True
