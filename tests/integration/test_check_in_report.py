"""`edgeelad teacher check` as it is typed: what it prints, what it keeps, and that the run's report shows it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from fixtures.packages import make_package
from fixtures.report_run import make_run
from fixtures.students import StudentFolders

from edgeelad.config import load_config
from edgeelad.launch import plan_run
from edgeelad.quickstart.server import MODEL, TeacherServer


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeelad", "teacher", "check", *map(str, arguments), "--num", "12", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_a_check_before_the_run_is_in_the_runs_report(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with TeacherServer() as server:
        toml = tmp_path / "run.toml"
        toml.write_text(
            f'[run]\nout = "{out}"\n[pool]\npath = "questions.jsonl"\n[student]\nmodel = "student"\n'
            f'[teacher]\nurl = "{server.url}"\nmodel = "{MODEL}"\napi_key_env = ""\n',
            encoding="utf-8",
        )
        done = check("--config", toml, "--ledger", tmp_path / "l", "--json")
        asked = server.billed
    figures = json.loads(done.stdout)
    assert figures["rows"] == 12
    assert figures["teacher"] == {"url": server.url, "model": MODEL}
    assert figures["usage"]["requests"] == asked.requests
    assert figures["found"]["hits"] == figures["found"]["of"] > 0
    kept = out / "teacher_check.json"
    assert f"kept in {kept}" in done.stderr
    in_file = json.loads(kept.read_text(encoding="utf-8"))
    assert len(in_file.pop("sha256")) == 64
    assert in_file == figures
    # the folder is still free for the run
    planned = plan_run(load_config(toml))
    assert planned.folder == out

    shutil.rmtree(out)
    make_run(out)
    shutil.copyfile(toml, out / "config.toml")
    done = subprocess.run([sys.executable, "-m", "edgeelad", "report", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Teacher check" not in (out / "report.html").read_text(encoding="utf-8")
    with TeacherServer(port=int(server.url.split(":")[2].split("/")[0])):
        done = check("--config", toml, "--ledger", tmp_path / "l", "--out", out)
    assert "finds the first error                      100.0%" in done.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"{MODEL} was asked about 12 explanations" in page
    assert "generated problems with planted errors, seed 0" in page
    assert "another teacher than the run's" not in page


def test_without_a_run_folder_it_only_prints(tmp_path: Path) -> None:
    with TeacherServer() as server:
        done = check(
            "--teacher-url", server.url, "--teacher-model", MODEL, "--set", "teacher.api_key_env=",
            "--ledger", tmp_path / "l",
        )  # fmt: skip
    assert "answers right by itself" in done.stdout
    assert not list(tmp_path.rglob("teacher_check.json"))


WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "optimum", "onnx", "accelerate", "peft", "safetensors", "sklearn", "scipy"):
    sys.modules[name] = None  # its import raises ImportError
from edgeelad.cli import main
main()
"""


def test_a_cpu_server_checks_a_teacher_and_reads_pools_without_torch(students: StudentFolders, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pool = tmp_path / "pool.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"question": "What is 3 + 4?", "answer": "7"}]), pool)
    with TeacherServer() as server:
        commands = [
            ("teacher", "check", "--teacher-url", server.url, "--teacher-model", MODEL, "--num", "3", "--quiet",
             "--set", "teacher.api_key_env=", "--ledger", str(tmp_path / "l")),
            ("eval", "--model", str(make_package(students)), "--data", str(pool), "--quiet"),
        ]  # fmt: skip
        for command in commands:
            done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *command], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


def test_what_an_extra_lacks_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['requests'] = None; from edgeelad.cli import main; main()"
    command = [sys.executable, "-c", code, "teacher", "check", "--teacher-url", "http://127.0.0.1:9", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        ["edgeelad: edgeelad teacher check needs requests, which is not installed; install it with: "
         "pip install 'edgeelad[teacher]'"],
    )  # fmt: skip
