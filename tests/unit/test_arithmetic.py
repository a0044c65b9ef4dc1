"""Equations in steps: true ones are never called false, wrong ones are, and the rest is not judged."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.teacher.revision.verify import calculates, find_flaw, first_false_step
from edgeelad.text.arithmetic import MAX_STEP_CHARS, equations, false_equation

DATA = Path(__file__).parents[3] / "shared" / "data"

unhurried = settings(deadline=None)  # a shared machine has slow moments

TRUE = r"""
3 + 4 = 7 apples.
Ann has 3 apples + 4 apples = 7 apples.
1,200 - 200.50 = $999.50
$5 * 3 = $15
2 * (3 + 4) = 14
2(3 + 4) = 14
3 x 4 = 12 and 12 x 2 = 24
3×4÷2 = 6
48/2 = <<48/2=24>>24 clips
10 / 3 = 3.33
10 / 3 = 3.3333
20 / 3 = 6.66
10 / 3 is about 10 / 3 = 3
17 / 5 = 3 full boxes
20% of 50 = 10
1/2 of 10 = 5
10 / 50 = 20%
10 / 50 * 100 = 20%
100% - 20% = 80%
-3 + 5 = 2
2^3 = 8 and 2**3 = 8
= 3 + 4 = 7
x = 3 + 4 = 7
\frac{6}{2} = 3
30 miles / 2 hours = 15 mph
2 hours * 60 minutes per hour = 120 minutes
- 3 + 4 = 7
2. 3 + 4 = 7
**3** + **4** = **7**
7 = 3 + 4
3 + 4 = 7 = 7
60 / 15 = 4 (15 minutes)
2\frac{1}{2} = \frac{5}{2}
100 \times 40 = 4{,}000
5*4*3*2*1 = 5!
3² + 4² = 25
6 * .10 = 0.6000000000000001
25 mates + her 1 coach + 1 herself = 27
x = 3 + 4 and y = 7 * 2 = 14
3 + 4 = 7 (since 3 + 4 = 7)
3 (red) + 4 (blue) = 7 (total)
$5 (price) * 3 (items) = $15
(3 + 4 = 7)
10 * 2 = 20 (2 hours x 10)
5! = 120
4! = 4 * 3 * 2 * 1 = 24
5! / (3! * 2!) = 10
3 + 4 = 7!
2^{3} = 8
2^{-1} = 0.5
(-3)^2 = 9
10^3 = 1000
10³ = 1,000
5 squared = 25
2^10 = 1024
\frac{3}{4} + \frac{1}{4} = 1
\frac34 + \frac14 = 1
\dfrac{48}{2} = 24
\frac{1}{2} \times 10 = 5
3 \cdot 4 = 12
12 \div 4 = 3
\left(3 + 4\right) \cdot 2 = 14
\$5 \times 3 = \$15
50\% \times 40 = 20
$3 + 4 = 7$
\(3 + 4 = 7\)
\[3 + 4 = 7\]
3 + 4 = \boxed{7}
3\text{ apples} + 4\text{ apples} = 7\text{ apples}
\text{Total} = 3 + 4 = 7
2 1/2 + 1/2 = 3
1 1/2 * 2 = 3
2½ × 2 = 5
15 / 2 = 7 1/2
15 / 2 = 7½
15 / 2 = 7\frac{1}{2}
7.5 = 7 1/2
3 + 4 = 7 + 5 = 12
100 - 20 = 80 / 2 = 40
$1,200 - 20% = $960
50 + 10% = 55
20% of 50 is 0.2 * 50 = 10
20% * 50 = 10
1/5 = 20%
1/5 = 0.2 = 20%
1/5 * 100 = 20%
1/5 * 100% = 20%
25% = 1/4
1/3 = 33%
2/3 = 67%
2/3 = 66.7%
12 / 7 = 171%
1/3 ≈ 33%
3/8 ≈ 40%
30 percent of 50 = 15
1/3 of 30 = 10
2/3 = 0.67
2/3 = 0.666
2/3 ≈ 0.67
1234 / 10 ≈ 123
10/3 ≈ 3
997 + 5 ≈ 1000
0.1 + 0.2 = 0.30000000000000004
2000/75 = 26.666666666666668
3.3333333333 * 3 = 10
66.67 * 3 = 200
33.33% of 60 = 20
3.14 * 2^2 = 12.566
3.14 * 4 = 12.56
1,200 + 300 = 1,500
1'200 + 300 = 1'500
1,00,000 + 1 = 1,00,001
.5 + .5 = 1
5 - -3 = 8
5 + (-3) = 2
5 – 3 = 2
−5 + 3 = −2
- 5 + 3 = -2
- 3 + 4 = 1
2) 3 + 4 = 7
1. 2 + 3 = 5
(1) 3 + 4 = 7
Step 1: 3 + 4 = 7
**3 + 4 = 7**
`3 + 4 = 7`
3 × 4 = **12**
2 (3 + 4) = 14
(2)(3) = 6
(2 + 3)(4) = 20
{2 + [3 * (4 - 1)]} = 11
3x4 = 12
3 X 4 = 12
3 boxes x 4 pens = 12 pens
3 times 4 = 12
3 plus 4 = 7
12 divided by 4 = 3
12 minus 4 equals 8
3 multiplied by 4 is equal to 12
3 apples + 4 pears = 7 fruits
$20 - $5 = $15 left
$5 + $6 = 11$
5€ + 6€ = 11€
£5 * 3 = £15
Rs. 50 + Rs. 60 = Rs. 110
500/- + 200/- = 700/-
5 ft. + 3 ft. = 8 ft.
5cm + 3cm = 8cm
12 cm * 3 cm = 36 cm^2
12 cm × 3 cm = 36 cm²
30 miles / 2 hours = 15 miles/hour
2 hours * 30 miles/hour = 60 miles
2 hours * 30 miles per hour = 60 miles
a_{10} = 3 + 4 = 7
P(A) = 1/6 + 1/6 = 1/3
11 < 30 / 2 = 15
Week 1 + Week 2 = 35 + 35 = 70
In total, 5, 10 + 20 = 30
3/3 - 2/3 = 1/3 of $150 left
the year 2020 + 5 = 2025
2.5 \times 10^{3} = 2500
6 \times 10^2 * 2 = 1200
1.22 * 3.1 = 3.8
0/5 = 0
14 = 2 * 7
12 = 3 * 4 = 12
the 250-page book takes 250 / 10 = 25 hours
He spent 10 x .5 = 5
$.50 * 4 = $2
8 / 2(2 + 2) = 16
8 / 2(2 + 2) = 1
-3^2 = -9
-3^2 = 9
2 + 3 × 4 = 14
(8+6)/(2) = 7
9!/6!*3! = 84
20 minutes / 240 minutes = 8.33%
1/3 + 1/3 = 2/3
3/4 of 20 = 15 minutes
1.5 hours * 60 minutes/hour = 90 minutes
7 days * 24 hours/day = 168 hours
$0.75 * 4 = $3.00
The total is 3 + 4 = 7, so 7 * 2 = 14.
So 3 + 4 = 7; 7 - 2 = 5
If 3 + 4 = 7 then 7 + 1 = 8
3 + 4 = 7 => 7 + 1 = 8
3 + 4 = 7 → 7 + 1 = 8
2 * 3 = 6 or 3 * 2 = 6
a. 3 + 4 = 7
3 + 4 = 7
10 - 3 = 7 more
5 - 3 = 2 times more
the difference is 5 - 3 = 2
5 * 10^3 = 5000
"""

NOT_JUDGED = r"""
x + 4 = 9
3x + 4 = 10
2H + 2 = 8 hoodies
apples + 4 = 9
sqrt(9) = 4
1 hour + 30 minutes = 90 minutes
20 minutes * 3 = 1 hour
14 hours = 14 * 60
2 dozen - 3 = 21
5 million + 1 = 6
16 / 5 = 3 remainder 1
3:00 + 2 = 5:00
5 / 0 = 1
3 / 1/4 = 12
9 ** 99999999 = 1
a => b
3 != 4
no arithmetic at all
=
= = =
A = 3 + 4 and B = 5 + 6
x = 3 + 4, y = 5 + 6
Let A = 2 + 3; then B = A + 4 = 9
where A = (2 + 3) and B = (4 - 1) and C = 7
x^2 = 9
x &= 3 + 4 \\ &= 7
25% = 0.25
1 200 + 300 = 1 500
50¢ + 50¢ = 100¢
2 weeks = 14 days
3 feet = 36 inches
1/2 cup = 4 ounces
3/4 = $15
2 dozen = 24
2 dozen + 3 = 27
$1.5 million + $500,000 = $2 million
5k + 3 = 5003
13 / 4 = 3 remainder 1
13 / 4 = 3 R1
13 / 4 = 3 r 1
13 / 4 = 3 and 1/4
13 / 4 = 3 with 1 left over
17 mod 5 = 2
17 = 2 (mod 5)
9 + 5 = 2 pm
8:30 + 15 = 8:45
8.30 + 15 = 8.45am
sqrt(16) + 2 = 6
\sqrt{16} = 4
√16 + 3 = 7
2√4 + 1 = 5
log 100 = 2
\log_{10} 100 = 2
\log 10^6 = 15
sin 30 + 1 = 1.5
|−5| + 2 = 7
\pi (4)^2 = 16\pi
9π - 4π = 5π
3i + 4i = 7i
i^2 = -1
3 x + 4 = 10
2a + 1 = 7
3 a + 4 = 25 - 4 a
2xy + 3 = 9
x_1 + 2 = 5
f(3) = 9
f(2) + 1 = 6
C(5, 2) = 10
5C2 = 10
(3, 4) + (1, 2) = (4, 6)
[3, 4) = 5
3:4 = 6:8
101_2 + 11_2 = 1000_2
101 + 11 = 1000 in binary
3 + 4 != 8
3 + 4 ≠ 8
3 + 4 <= 8
5 >= 3 + 4 - 3
3 + 4 < 8 = 2 * 4
1 + 2 + ... + 10 = 55
1 + 2 + … + 10 = 55
1 + 2 + \cdots + 10 = 55
3 + ? = 7
? + 4 = 7
___ + 4 = 7
the square root of 9 + 16 = 5
half of 10 + 2 = 7
twice 3 + 4 = 10
the average of 3 and 5 = 4
add 3 to 4 + 5 = 12
subtract 3 from 10 - 2 = 5
5 more than 3 + 4 = 12
the sum of 5 apples and 3 + 4 pears = 12
on day 1 * 2 = 20
14, 400 / 80 = 180
5 * 1/2 = 10 halves
December 2013 - December 2012 = 1 year
Today is 3/5, so 3/5 - 7 = 2/26
4.19 \times 10^{4} = 41.9 kJ
5/0 = 1
5 = 5
H2O + 3 = 5
COVID-19 + 3 = 5
3 + 4 = seven
three + 4 = 7
100 / 3 = 33.3...
100/3 = 33.33...%
1.5 hours * 60 = 90 minutes
75 cents * 4 = $3
10 * 30 cents = $3
4 quarters = $1
(a) 3 + 4 = 7 (b) 5 + 6 = 11
3 + 4 =
= 7
5e3 + 1 = 5001
1e3 = 1000
10 ** 2 = 100
"""

FALSE = r"""
1/3 = 35%
3/4 = 74%
1/4 = 30%
1/3 ≈ 90%
1/3 * 100 = 33
A = 3 + 4 = 8 and B = 5 + 6 = 11
A = 3 + 4 = 7 and B = 5 + 6 = 12
3 x 4 = 12 and 12 x 2 = 25
60 / 15 = 5 (15 minutes)
2\frac{1}{2} = \frac{7}{2}
100 \times 40 = 40{,}000
5*4*3*2*1 = 6!
3² + 4² = 26
6 * .10 = 0.61
25 mates + her 1 coach + 1 herself = 28
3 (red) + 4 (blue) = 8 (total)
(3 + 4 = 8)
5 apples are left (3 + 4 = 8)
5! = 125
2^{3} = 6
\frac{3}{4} + \frac{1}{4} = 2
3 \cdot 4 = 14
\(3 + 4 = 8\)
3 + 4 = \boxed{8}
3\text{ apples} + 4\text{ apples} = 8\text{ apples}
2 1/2 + 1/2 = 4
15 / 2 = 7 1/3
3 + 4 = 8 + 5 = 13
100 - 20 = 80 / 2 = 45
$1,200 - 20% = $950
1/5 = 25%
1/3 of 30 = 11
2/3 = 0.68
1234 / 10 ≈ 124.5
997 + 5 ≈ 2000
2000/75 = 26.676666666666668
1,200 + 300 = 1,400
5 - -3 = 2
- 3 + 4 = 8
1. 2 + 3 = 6
**3 + 4 = 8**
2(3 + 4) = 15
(2)(3) = 7
3x4 = 13
3 boxes x 4 pens = 13 pens
3 times 4 = 13
12 divided by 4 = 4
12 minus 4 equals 9
$20 - $5 = $14 left
5 ft. + 3 ft. = 9 ft.
12 cm × 3 cm = 37 cm²
30 miles / 2 hours = 16 miles/hour
the 250-page book takes 250 / 10 = 26 hours
The total is 3 + 4 = 7, so 7 * 2 = 15.
3 + 4 = 7 => 7 + 1 = 9
10 - 3 = 8 more
So she has 10 apples left, because 15 - 6 = 10.
He pays 3 * $4 = $13 for the 3 books.
5 * 10^3 = 500
for a total of 12 + 6 = 19
Then, the final equation is A - B - C = -14 - 2 - (-1260) = -14 + 1258 = 1245
3 apples + 4 pears = 8 fruits
"""


def lines(text: str) -> list[str]:
    return text.strip("\n").split("\n")


@pytest.mark.parametrize("step", lines(TRUE))
def test_true_equations(step):
    assert equations(step)
    assert false_equation(step) is None


@pytest.mark.parametrize("step", lines(FALSE))
def test_false_equations(step):
    assert false_equation(step) is not None


@pytest.mark.parametrize("step", [*lines(NOT_JUDGED), "=", "= = =", "", "9" * 100 + " + 1 = 2", "9 ** 99999999 = 1"])
def test_what_is_not_plainly_arithmetic_is_not_judged(step):
    assert equations(step) == []


@pytest.mark.parametrize(
    ("step", "written"),
    [
        ("3 + 4 = 8 apples.", "3 + 4 = 8 apples"),
        ("First 3 + 4 = 7, then 7 * 2 = 15.", "7 * 2 = 15"),
        ("48/2 = <<48/2=25>>25", "48/2 = 25"),
        ("10 / 4 = 3", "10 / 4 = 3"),
        ("1.5 + 1.5 = 3.1", "1.5 + 1.5 = 3.1"),
        ("3 boxes * 4 pens = 13 pens", "3 boxes * 4 pens = 13 pens"),
        ("x = 3 + 4 = 8", "3 + 4 = 8"),
        ("20% of 50 = 11", "20% * 50 = 11"),
        ("7 = 3 + 5", "7 = 3 + 5"),
    ],
)
def test_a_false_equation_is_quoted_as_written(step, written):
    assert false_equation(step) == written


def test_a_text_that_is_no_step_is_not_judged():
    assert equations("3 + 4 = 8. " * (MAX_STEP_CHARS // 10)) == []
    assert false_equation("So " * (MAX_STEP_CHARS // 4) + "3 + 4 = 8") == "3 + 4 = 8"


SPACED = (
    {"+": " + ", "-": " - ", "*": " * "},
    {"+": " + ", "-": " − ", "*": " × "},
    {"+": " + ", "-": " – ", "*": " x "},
)
LATEX = {"+": " + ", "-": " - ", "*": r" \times "}, {"+": "+", "-": "-", "*": r"\cdot "}
TIGHT = {"+": "+", "-": "-", "*": "*"}
SENTENCES = (
    "{left} = {right}",
    "So there are {left} = {right} pens in all.",
    "Let A = {left} = {right} and B = 2",
    "He pays $({left}) = ${right}.",
    r"\[ {left} = \boxed{{{right}}} \]",
    "x = {left} = {right}, as 1 + 1 = 2.",
    "{left} = {right} (see the first step)",
)

expressions = st.recursive(
    st.integers(0, 999),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner),
    max_leaves=6,
).filter(lambda tree: isinstance(tree, tuple))


def value_of(tree) -> int:
    if isinstance(tree, int):
        return tree
    left, right = value_of(tree[1]), value_of(tree[2])
    return {"+": left + right, "-": left - right, "*": left * right}[tree[0]]


def written(tree, signs, *, is_nested=False) -> str:
    if isinstance(tree, int):
        return str(tree)
    text = signs[tree[0]].join(written(part, signs, is_nested=True) for part in tree[1:])
    return f"({text})" if is_nested else text


@unhurried
@given(expressions, st.sampled_from((*SPACED, *LATEX, TIGHT)), st.sampled_from(SENTENCES))
def test_right_expressions_hold_in_every_writing(tree, signs, sentence):
    step = sentence.format(left=written(tree, signs), right=value_of(tree))
    assert false_equation(step) is None


@unhurried
@given(expressions, st.sampled_from(SPACED), st.sampled_from(SENTENCES), st.integers(-50, 50).filter(bool))
def test_altered_expressions_do_not(tree, signs, sentence, error):
    step = sentence.format(left=written(tree, signs), right=value_of(tree) + error)
    assert false_equation(step) is not None


@unhurried
@given(
    st.integers(1, 9999),
    st.integers(2, 99),
    st.integers(2, 6),
    st.sampled_from(("{}/{}", "{} ÷ {}", r"\frac{{{}}}{{{}}}")),
)
def test_quotients_may_be_rounded_or_cut_off(top, bottom, places, form):
    quotient = Fraction(top, bottom)
    cut = Fraction(quotient.numerator * 10**places // quotient.denominator, 10**places)
    text = form.format(top, bottom)
    assert false_equation(f"{text} = {float(round(quotient, places)):.{places}f}") is None
    assert false_equation(f"{text} = {float(cut):.{places}f}") is None
    assert false_equation(f"{text} = {top / bottom!r}") is None
    assert false_equation(f"{text} = {float(quotient + 1):.{places}f}") is not None


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=80), st.text(alphabet="0123456789+-*/=()%$. x<>{}\\", max_size=60)))
def test_no_text_breaks_it(text):
    for equation in equations(text):
        assert equation.left
        assert equation.right


def gsm8k(name: str, num: int) -> list[list[str]]:
    path = DATA / "gsm8k" / name
    if not path.exists():
        pytest.skip(f"{path} is not there: public data is not part of the repository")
    with path.open(encoding="utf-8") as rows:
        return [json.loads(row)["answer"].split("\n") for row, _ in zip(rows, range(num), strict=False)]


def test_published_solutions_are_faulted_only_where_they_err():
    """Of all 8,792 published solutions 29 are faulted, of which 27 state something false ("8 * 3 = 240")."""
    solutions = gsm8k("test.jsonl", 1319)
    num_equations = sum(len(equations(step)) for steps in solutions for step in steps)
    num_faulted = sum(first_false_step(steps) is not None for steps in solutions)
    assert num_equations > 6 * len(solutions)
    assert num_faulted <= 3


def test_altered_solutions_are_faulted():
    """A published result that is off by one is noticed in nearly every solution."""
    solutions = gsm8k("test.jsonl", 400)
    num_altered = num_noticed = 0
    for steps in solutions:
        for index, step in enumerate(steps):
            found = [equation for equation in equations(step) if equation.holds and equation.right.isdigit()]
            if found:
                wrong = step.replace(f"={found[0].right}>>", f"={int(found[0].right) + 1}>>")
                num_altered += 1
                num_noticed += first_false_step([*steps[:index], wrong]) == index or wrong == step
                break
    assert num_altered > 300
    assert num_noticed >= 0.97 * num_altered


def test_flaws():
    assert find_flaw(("3 + 4 = 7",), "7", "7", "number") is None
    assert find_flaw((), "7", "7", "number").reason == "it has no steps"
    assert find_flaw(("3 + 4 = 7",), None, "7", "number").reason == "it states no answer"
    assert find_flaw(("3 + 4 = 7",), "8", "7", "number").reason == "it reaches 8, not 7"
    flaw = find_flaw(("So.", "3 + 5 = 7"), "7", "7", "number")
    assert (flaw.step, flaw.reason) == (1, "step 2 states 3 + 5 = 7, which is false")
    assert find_flaw(("3 + 5 = 7",), "A", "A", "choice") is None


def test_calculates():
    assert calculates(("2 + 2 = 4", "So 3 + 4 = 7 pens"), "7")
    assert calculates(("14 / 4 = 3.5",), "3.5")
    assert not calculates(("3 + 4 = 7", "Done."), "7")
    assert not calculates(("3 + 5 = 7",), "7")
    assert not calculates((), "7")
