"""Scoring contacts nobody: it runs without a network, and onnxruntime leaves no device id or events behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.students import StudentFolders, make_sum

NAMESPACE = ["unshare", "--map-root-user", "--net"]


def _can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("prefix", [[], NAMESPACE], ids=["as it is", "without a network"])
def test_scoring_leaves_nothing_behind(students: StudentFolders, tmp_path: Path, prefix: list[str]) -> None:
    if prefix and not _can_unshare():
        pytest.skip("needs the permission to make a network namespace")
    home, pool, out = tmp_path / "home", tmp_path / "pool.jsonl", tmp_path / "scores.jsonl"
    home.mkdir()
    rows = ({"id": str(n), "question": make_sum(n % 10, n // 10 % 10)[0].text} for n in range(40))
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    unset = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in unset} | {
        name: str(home) for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA")
    }
    command = [
        sys.executable,
        "-m",
        "edgeelad",
        "score",
        "--model",
        students.trained_onnx(),
        "--pool",
        pool,
        "--out",
        out,
    ]
    given = [*map(str, command), "--max-tokens", "8", "--workers", "1", "--quiet"]
    subprocess.run([*prefix, *given], env=env, check=True, capture_output=True)
    assert len(out.read_bytes().splitlines()) == 40
    assert list(home.rglob("*")) == []
