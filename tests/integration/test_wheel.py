"""The wheel alone, in a fresh virtual environment: no torch, and it runs and scores a package. Run with `-m wheel`."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from fixtures.students import StudentFolders, questions

from edgeelad.files import read_jsonl, write_jsonl
from edgeelad.package.info import PackageInfo
from edgeelad.package.write import write_package

pytestmark = pytest.mark.wheel
ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "optimum", "optimum-onnx", "onnx", "peft", "datasets", "requests", "scikit-learn"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a virtual environment that holds the wheel and what it depends on."""
    work = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (work / "dist").glob("*.whl")
    venv.create(work / "venv", with_pip=True)
    programs = work / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run([str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    return programs


@pytest.fixture(scope="module")
def package(students: StudentFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    info = PackageInfo(base_model="trained", quantization="int8", golden_questions=tuple(questions(5)))
    return write_package(students.trained_onnx(), tmp_path_factory.mktemp("package") / "package", info)


def _edgeelad(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(environment / "edgeelad"), *arguments], capture_output=True, text=True, cwd=environment)


def test_nothing_heavy_is_installed(environment: Path) -> None:
    listing = [str(environment / "python"), "-m", "pip", "list", "--format=json"]
    output = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    installed = {row["name"].lower() for row in json.loads(output)}
    assert "edgeelad" in installed
    assert not installed & HEAVY


def test_the_help_of_every_command_is_shown(environment: Path) -> None:
    for command in (
        (),
        ("distill",),
        ("score",),
        ("export",),
        ("eval",),
        ("run",),
        ("serve",),
        ("verify",),
        ("report",),
    ):
        shown = _edgeelad(environment, *command, "--help")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith("Usage:")


def test_it_runs_scores_evaluates_and_verifies_a_package(environment: Path, package: Path, tmp_path: Path) -> None:
    asked = _edgeelad(environment, "run", str(package), "What is 3 + 4?")
    assert asked.returncode == 0, asked.stderr
    assert "\n" in asked.stdout
    pool = tmp_path / "pool.jsonl"
    write_jsonl(pool, ({"id": q.id, "question": q.text, "answer": str(eval(q.id))} for q in questions(12)))
    scored = _edgeelad(
        environment, "score", "--model", str(package), "--pool", str(pool), "--out", str(tmp_path / "s.jsonl")
    )
    assert scored.returncode == 0, scored.stderr
    assert [row["id"] for row in read_jsonl(tmp_path / "s.jsonl")] == [question.id for question in questions(12)]
    measured = _edgeelad(environment, "eval", "--model", str(package), "--data", str(pool), "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["num_questions"] == 12
    verified = _edgeelad(environment, "verify", str(package), "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("distill", ("distill",)),
        ("distill", ("export", "--student", ".", "--out", "x")),
        ("distill", ("distill", "--pool", "p", "--student", "s")),
        ("teacher", ("teacher", "check", "--teacher-url", "http://127.0.0.1:9")),
        ("data", ("eval", "--model", "PACKAGE", "--data", "p.parquet")),
    ],
)
def test_what_needs_more_says_what_to_install(
    environment: Path, package: Path, tmp_path: Path, extra: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    (tmp_path / "p").write_text('{"question": "1 + 1?", "answer": "2"}\n', encoding="utf-8")
    command = [str(environment / "edgeelad"), *(str(package) if word == "PACKAGE" else word for word in arguments)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1
    assert f"pip install 'edgeelad[{extra}]'" in run.stderr
    assert "Traceback" not in run.stderr
