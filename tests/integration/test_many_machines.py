"""The recipes of docs/how-to/score-on-many-machines.md: the SLURM scripts run as written, the RayJob is well-formed."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures.students import StudentFolders
from integration.test_score import RUN_PATCHED, SETTINGS, at, write_pool

from edgeelad.cli.score import score as score_command
from edgeelad.engine.options import EngineOptions
from edgeelad.progress import Silent
from edgeelad.scoring.files import aside_path
from edgeelad.scoring.score import score_pool

PAGE = Path(__file__).parents[2] / "docs/how-to/score-on-many-machines.md"
NUM, NUM_TASKS = 150, 2

# runs the tasks of an array in turn, again if they fail and are to be requeued, and a wrapped command at once
SBATCH = """
import os, re, subprocess, sys
given = sys.argv[1:]
print(17) if "--parsable" in given else None
for option in given:
    assert option.startswith(("--parsable", "--dependency=afterok:17", "--wrap")) or option == given[-1], option
if "--wrap" in given:
    sys.exit(subprocess.run(["bash", "-c", given[-1]]).returncode)
script = open(given[-1]).read()
options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE))
first, last = map(int, options["array"].split("-"))
for task in range(first, last + 1):
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(last - first + 1)}
    for attempt in range(2 if "requeue" in options else 1):
        if subprocess.run(["bash", given[-1]], env=environment).returncode == 0:
            break
    else:
        sys.exit(1)
"""
# edgeelad as it is; the second task is killed the first time
EDGEELAD = """
import os, sys
task = os.environ.get("SLURM_ARRAY_TASK_ID")
more = "--strategy elad --max-tokens 16 --branches 2 --explanations 2 --workers 1".split() if task else []
if task == "2" and not os.path.exists("killed"):
    open("killed", "w").close()
    os.execv(sys.executable, [sys.executable, "run.py", "20000", "kill", *sys.argv[1:], *more])
os.execv(sys.executable, [sys.executable, "-m", "edgeelad", *sys.argv[1:], *more])
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def make_command(path: Path, code: str) -> None:
    path.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_slurm_array_writes_what_one_machine_writes(students: StudentFolders, tmp_path: Path) -> None:
    script, submit = blocks("bash")
    assert "#SBATCH --array=1-8\n" in script
    (tmp_path / "score.sbatch").write_text(script.replace("1-8", f"1-{NUM_TASKS}"), encoding="utf-8")
    (tmp_path / "bin").mkdir()
    make_command(tmp_path / "bin/sbatch", SBATCH)
    make_command(tmp_path / "bin/edgeelad", EDGEELAD)
    (tmp_path / "run.py").write_text(RUN_PATCHED, encoding="utf-8")
    pool = write_pool(tmp_path / "pool.jsonl", NUM, too_long=(2, NUM - 1))
    (tmp_path / "package").symlink_to(students.trained_onnx())
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", submit], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    score_pool(tmp_path / "package", at(pool), tmp_path / "one.jsonl", Silent(), options=EngineOptions(1), **SETTINGS)
    for path in (Path, aside_path):
        assert path(tmp_path / "scores.jsonl").read_bytes() == path(tmp_path / "one.jsonl").read_bytes()


def test_the_ray_job_is_well_formed() -> None:
    yaml = pytest.importorskip("yaml")
    (text,) = blocks("yaml")
    job: dict[str, Any] = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    program, command, *given = shlex.split(job["spec"]["entrypoint"])
    assert (program, command) == ("edgeelad", "score")
    options = score_command.make_context("score", given).params
    assert (options["engine"], options["address"], options["as_json"]) == ("ray", "auto", True)
    cluster = job["spec"]["rayClusterSpec"]
    head, (scorers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    (head_container,) = head["template"]["spec"]["containers"]
    (scorer_container,) = scorers["template"]["spec"]["containers"]
    assert head_container["image"] == scorer_container["image"]
    (mount,) = head_container["volumeMounts"]
    (volume,) = head["template"]["spec"]["volumes"]
    assert mount["name"] == volume["name"]
    assert all(str(options[name]).startswith(mount["mountPath"] + "/") for name in ("model", "pool", "out"))
    assert json.dumps(cluster).count(cluster["rayVersion"]) == 1
    assert f"rayproject/ray:{cluster['rayVersion']}-" in blocks("dockerfile")[0]
