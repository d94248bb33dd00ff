import json

import pytest
from ampo_registry.errors import ConfigError

from ampo_core.config import yaml_source
from ampo_core.config.yaml_source import dump_yaml, parse_yaml


def plain(text):
    node, problems = parse_yaml(text, "f.yaml")
    assert problems == []
    return node.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1.0e-6", 1e-6),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("-3", -3),
        ("18_432", 18432),
        ("010", 10),
        ("0x10", 16),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("'1e-6'", "1e-6"),
        ("1e", "1e"),
        ("none", "none"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = plain(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text():
    assert plain("on: 1\n2024: 2\nnull: 3") == {"on": 1, "2024": 2, "null": 3}


def test_every_key_knows_its_line():
    node, _ = parse_yaml("a: 1\nb:\n  c:\n    - x\n    - d: 2\n", "f.yaml")
    assert str(node.place_of(("a",))) == "f.yaml:1"
    assert str(node.place_of(("b", "c"))) == "f.yaml:3"
    assert str(node.place_of(("b", "c", 1, "d"))) == "f.yaml:5"
    assert str(node.place_of(("b", "nothing"))) == "f.yaml:2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: duplicate key a; it stands already at f.yaml:1"),
        ("x: !!python/object:os.system {}\n", "f.yaml:1: x: the tag tag:yaml.org,2002:python/object:os.system"),
        ("x: !!binary aGk=\n", "f.yaml:1: x: the tag tag:yaml.org,2002:binary is not allowed"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "f.yaml:2: c: merge keys (<<) are not supported"),
        ("x: .inf\n", "f.yaml:1: x: .inf is not a finite number"),
        ("x: 1e999\n", "f.yaml:1: x: 1e999 is not a finite number"),
        ("? [a]\n: 1\n", "f.yaml:1: a key must be plain text"),
        (f"x: {'9' * 5000}\n", "f.yaml:1: x: '9999"),
        ("a:\n  b: [1, {c: .nan}]\n", "f.yaml:2: a.b.1.c: .nan is not a finite number"),
        ('a: "\\ud83d"\n', "f.yaml:1: a: holds half of a surrogate pair"),
        ('"\\udc00": 1\n', "f.yaml:1: holds half of a surrogate pair"),
    ],
)
def test_refused(text, said):
    _, problems = parse_yaml(text, "f.yaml")
    assert len(problems) == 1
    assert said in str(problems[0])


@pytest.mark.parametrize("text", ["a: [1\nb: 2\n", "a: b: c\n", "a: 1\n--- \nb: 2\n", "\tx: 1", "a: \x00"])
def test_broken_yaml_names_the_place(text):
    with pytest.raises(ConfigError, match=r"f\.yaml(:\d+)?: not valid YAML"):
        parse_yaml(text, "f.yaml")


@pytest.mark.parametrize("char", ["\x00", "\x07", "\x7f", "\ud800", "\ufffe"])
def test_characters_that_no_text_has_are_named_with_their_line(char):
    with pytest.raises(ConfigError) as error:
        parse_yaml(f"a: 1\nb: x{char}\n", "f.yaml")
    assert str(error.value) == f"f.yaml:2: not valid YAML: the character {char!r} is not allowed"


def test_several_documents_are_refused_at_the_second():
    with pytest.raises(ConfigError, match=r"f\.yaml:2: not valid YAML: expected one document, found a second one"):
        parse_yaml("a: 1\n--- \nb: 2\n", "f.yaml")


def test_a_character_that_json_writes_as_a_surrogate_pair_is_one_character():
    assert plain(json.dumps({"\N{FOX FACE}": "\N{FOX FACE}\u00e9"})) == {"\N{FOX FACE}": "\N{FOX FACE}\u00e9"}


def test_aliases_repeat_what_is_anchored():
    node, _ = parse_yaml("a: &a\n  - {b: 1}\nc: *a\n&k d: 2\n", "f.yaml")
    assert node.plain() == {"a": [{"b": 1}], "c": [{"b": 1}], "d": 2}
    assert [str(node.place_of(path)) for path in (("c",), ("c", 0, "b"))] == ["f.yaml:3", "f.yaml:2"]


def test_endless_expansion_is_refused():
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))
    for text in ("a: &a [*a]\n", "a: *b\n", bomb):
        with pytest.raises(ConfigError, match="alias"):
            parse_yaml(text, "f.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "[" * 5000 + "]" * 5000,
        "a: " + "{a: " * 101 + "1" + "}" * 101,
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200)),
    ],
    ids=["unclosed", "lists", "mappings", "aliases"],
)
def test_deep_nesting_is_refused(text):
    with pytest.raises(ConfigError, match=r"f\.yaml:\d+: a.*: nested too deeply: more than 100 blocks"):
        parse_yaml(text, "f.yaml")


def test_what_is_read_does_not_depend_on_libyaml(monkeypatch):
    text = json.dumps({"a": [{"b": i, "c": "text", "d": 0.5, "e": None} for i in range(600)], "t": True})
    fast = plain(text)
    monkeypatch.setattr(yaml_source, "_FastLoader", yaml_source._Loader)
    assert plain(text) == fast == json.loads(text)


def test_what_is_dumped_reads_back_the_same():
    data = {"a": ["1e-6", "yes", "12:30", "0x1", "", " x ", "null", "1_0"], "b": 1e-6, "c": None, "d": {"π": [1, True]}}
    assert plain(dump_yaml(data)) == data
