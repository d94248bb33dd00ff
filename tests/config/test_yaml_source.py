import pytest
from ampo_registry.errors import ConfigError

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
        ("x: !!python/object:os.system {}\n", "f.yaml:1: the tag tag:yaml.org,2002:python/object:os.system"),
        ("x: !!binary aGk=\n", "f.yaml:1: the tag tag:yaml.org,2002:binary is not allowed"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "f.yaml:2: merge keys (<<) are not supported"),
        ("x: .inf\n", "f.yaml:1: .inf is not a finite number"),
        ("x: 1e999\n", "f.yaml:1: 1e999 is not a finite number"),
        ("? [a]\n: 1\n", "f.yaml:1: a key must be plain text"),
        (f"x: {'9' * 5000}\n", "is not a valid int"),
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


def test_endless_expansion_is_refused():
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))
    for text in ("a: &a [*a]\n", bomb):
        with pytest.raises(ConfigError, match="alias"):
            parse_yaml(text, "f.yaml")


def test_deep_nesting_is_refused():
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_yaml("a: " + "[" * 5000 + "]" * 5000, "f.yaml")


def test_what_is_dumped_reads_back_the_same():
    data = {"a": ["1e-6", "yes", "12:30", "0x1", "", " x ", "null", "1_0"], "b": 1e-6, "c": None, "d": {"π": [1, True]}}
    assert plain(dump_yaml(data)) == data
