"""Plain numbers, compared as numbers."""

import time
from fractions import Fraction

import pytest
from ampo_plugins.rewards import library
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_plugins.rewards.numbers import read_number, same_number
from ampo_registry import GradeRequest


def same(truth, answer):
    return same_number(read_number(truth), read_number(answer))


@pytest.mark.parametrize(
    ("text", "value", "digits"),
    [
        ("42", 42, None),
        ("-42.", -42, None),
        ("142.0", 142, None),
        ("0.10", Fraction(1, 10), 2),
        (".5", Fraction(1, 2), 1),
        ("1,000", 1000, None),
        ("10,\\!080", 10080, None),
        ("1{,}234.5", Fraction(2469, 2), 5),
        ("5.47e5", 547000, 3),
        ("5.47 \\times 10^{-5}", Fraction(547, 10**7), 3),
        ("5.47 x 10**5", 547000, 3),
        ("-10^{3}", -1000, 1),
        ("\\frac14", Fraction(1, 4), None),
        ("-\\dfrac{3}{2}", Fraction(-3, 2), None),
        ("-1./3", Fraction(-1, 3), None),
        ("\\boxed{$7/2$}", Fraction(7, 2), None),
        ("76^\\circ", 76, None),
        ("\\$18.90", Fraction(189, 10), 4),
        ("3 \\, \\mathrm{m/s^{2}}", 3, None),
    ],
)
def test_what_is_read_as_a_number(text, value, digits):
    number = read_number(text)
    assert (number.value, number.digits) == (value, digits)


@pytest.mark.parametrize(
    "text", ["", ".", "-", "1,00", "x=5", "1/0", "1 2", "2,3", "\\pi", "5 \\text{ or } 6", "1e", "𝟓x", "४१"]
)
def test_what_is_no_number(text):
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("truth", "answer"),
    [
        ("5.47e5", "547000"),
        ("5.47e5", "5.470e5"),
        ("5.47e5", "54.7 \\times 10^{4}"),
        ("142.0", "142"),
        ("\\frac{1}{2}", "0.50"),
        ("1/3", "0.333333"),
        ("1/3", "0.33333333"),
        ("0.333333", "1/3"),
        ("1.602177e-19", "1.6021766 \\times 10^{-19}"),
    ],
)
def test_equal_numbers(truth, answer):
    assert same(truth, answer)


@pytest.mark.parametrize(
    ("truth", "answer"),
    [
        ("1.6e-19", "1.6e-20"),
        ("1.6e-19", "-1.6e-19"),
        ("1.6e-19", "0"),
        ("5.47e5", "5.474e5"),
        ("0.33", "1/3"),
        ("0.2", "0.192"),
        ("42", "42.0000001"),
        ("142.0", "142.04"),
        ("1/3", "0.3333334"),
        ("1/3", "0.33333"),
        ("\\frac{1}{300}", "0.003333"),
        ("123456789", "1.23457e8"),
        ("0.0", "1e-9"),
    ],
)
def test_numbers_that_differ(truth, answer):
    assert not same(truth, answer)


@pytest.mark.parametrize(
    ("truth", "answer"),
    [
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}"),
        ("x = 1.6e-19", "x = 1.6e-20"),
        ("1.6 \\times 10^{-19} x", "1.6 \\times 10^{-20} x"),
        ("(1.6 \\times 10^{-19}, 2)", "(1.6 \\times 10^{-20}, 2)"),
        ("10^{-9} \\pi", "10^{-8} \\pi"),
        ("1.6e-19", "1.6 \\times 10^{-20} coulomb"),
    ],
)
def test_small_values_that_math_verify_takes_for_equal(truth, answer):
    def correct(said, **options):
        (grade,) = MathVerify(**options).grade([GradeRequest(f"<answer>{said}</answer>", truth)])
        return grade.correct

    assert not correct(answer)
    assert correct(truth)


def test_math_verify_alone_takes_them_for_equal():
    one, other = (library.parsed(f"\\frac{{1}}{{{n}!}}") for n in (2004, 2006))
    assert library.equal(one, other, digits=False)
    assert not library.equal(one, other, digits=True)


def test_rounded_values_of_expressions_stay_equal():
    assert library.equal(library.parsed("\\pi"), library.parsed("3.141593"), digits=True)
    assert library.equal(library.parsed("2 \\sin x \\cos x"), library.parsed("\\sin(2x)"), digits=True)


@pytest.mark.parametrize(
    "text", ["1e999999999999", "10^{99999999}", "9" * 4000, "1/" + "7" * 3000, "0." + "0" * 3000 + "1"]
)
def test_numbers_beyond_any_use_equal_only_themselves_and_take_no_time(text):
    start = time.process_time()
    number = read_number(text)
    assert same_number(number, number)
    assert not same_number(number, read_number("1"))
    assert not same_number(read_number("1/3"), number)
    assert time.process_time() - start < 0.5


def test_a_tower_of_powers_is_no_number():
    assert read_number("10^{10^{10}}") is None
