"""The programs in examples/ run as their docstrings say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.packages import make_package
from fixtures.students import StudentFolders, questions

import edgeelad

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def package(students: StudentFolders) -> Path:
    return make_package(students)


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "sums.jsonl"
    rows = (
        {"question": q.text, "answer": str(eval(q.id)), "skill": "small" if eval(q.id) < 10 else "large"}
        for q in questions(90)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_explain(package: Path) -> None:
    shown = run("explain", package, "What is 3 + 4?").stdout
    with edgeelad.load(package) as student:
        explanation = student.explain("What is 3 + 4?")
    assert shown.startswith(explanation.text)
    assert shown.endswith(
        f"{len(explanation.steps)} steps, answer {explanation.answer}, confidence {explanation.confidence:.2f}\n"
    )


def test_score_pool(package: Path, labeled: Path) -> None:
    shown = run("score_pool", package, labeled).stdout
    scores = [float(score) for score in re.findall(r"^(\d\.\d+)  ", shown, re.MULTILINE)]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert max(record.score or 0.0 for record in edgeelad.score(package, labeled)) == pytest.approx(scores[0], abs=1e-3)
    assert shown.count(" ? ") >= 5


def test_own_strategy(package: Path) -> None:
    shown = run("own_strategy", package, "What is 3 + 4?", "What is 9 + 8?").stdout.splitlines()
    assert len(shown) == 2
    assert all(re.fullmatch(r"different answers in 8 explanations: [1-8]  What is \d \+ \d\?", line) for line in shown)


def test_evaluate(package: Path, labeled: Path) -> None:
    shown = run("evaluate", package, labeled, "0.01").stdout
    assert re.match(r"accuracy 0\.\d{3} \(95 % interval 0\.\d{3} to 0\.\d{3}\)\n  large: \d+ of \d+\n  small: ", shown)
    assert "the lower end is below 0.999" in run("evaluate", package, labeled, "0.999", code=1).stderr


def test_own_teacher(students: StudentFolders, tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    texts = [question.text for question in questions(90)] + ["What is three plus four?"]
    pool.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts), encoding="utf-8")
    shown = run("own_teacher", students.trained(), pool, tmp_path / "run").stdout
    assert "Round 1: teacher revises" in shown
    assert re.search(r"stopped because: (certified|max_rounds); \d+ explanations bought", shown)
    assert shown.endswith(f"{tmp_path / 'run' / 'package'}\n")
    with edgeelad.load(tmp_path / "run" / "package") as student:
        assert student.explain("What is 3 + 4?").answer
    again = run("own_teacher", students.trained(), pool, tmp_path / "run").stdout
    assert re.search(r"stopped because: .* explanations bought", again)


def test_every_example_is_listed_and_tested() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert len(names) == 5
    assert {name for name in names if f"test_{name}" not in globals()} == set()
    assert set(re.findall(r"\((\w+)\.py\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))) == names
