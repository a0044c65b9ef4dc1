"""Whatever becomes of a file of a run folder, resuming the run gives the same results, or one typed error."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.small_run import SmallRun

from edgeelad.config import RunConfig
from edgeelad.errors import EdgeeladError
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.quickstart.server import TeacherServer
from edgeelad.records import TeacherUsage
from edgeelad.report import write_report
from edgeelad.run.digests import Digests, digests_of
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import Summary
from edgeelad.run.teacher_check import KeptCheck, keep_check
from edgeelad.teacher.check.measure import Share, TeacherCheck

Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Damage] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zero-filled": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flipped bit": flip,
    "deleted": lambda path: path.unlink(),
    "other JSON": lambda path: path.write_text('["something", "else"]\n', encoding="utf-8"),
}


class Finished:
    """A finished run; `resume` goes on with a copy of it."""

    def __init__(self, config: RunConfig, summary: Summary) -> None:
        self.folder, self.config, self.summary = RunFolder(Path(config.run.out)), config, summary
        self.digests = self.folder.digests.file.read()

    def copy(self, to: Path) -> RunFolder:
        shutil.copytree(self.folder.path, to)
        return RunFolder(to)

    def resume(self, folder: RunFolder) -> tuple[Summary, Digests]:
        run = self.config.run.model_copy(update={"out": str(folder.path)})
        summary = distill(self.config.model_copy(update={"run": run}), Silent())
        return summary, folder.digests.file.read()


@pytest.fixture(scope="module")
def finished(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    out = tmp_path_factory.mktemp("damaged") / "run"
    settings = ("selection.num_rounds=1", "selection.batch_size=6", "stopping.audit_size=6", "training.max_steps=4")
    with TeacherServer() as server:
        config = small_run.config(out, server.url, *settings)
        summary = distill(config, Silent())
        shares = (Share(5, 6), Share(6, 6), Share(5, 6), Share(4, 6), Share(6, 6), Share(0, 12))
        keep_check(KeptCheck(server.url, "m", "rows", TeacherCheck(12, *shares, TeacherUsage())), out)
        yield Finished(config, summary)


def files_of(folder: Path, *, is_sample: bool) -> list[str]:
    """The files of a run folder; as a sample, of students and packages only the weights and one other file."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    models = ("/student/", "/onnx/", "package/")
    shown = ("model.safetensors", "model.onnx_data", "model_quantized.onnx", "config.json", "manifest.json")
    return [name for name in names if not is_sample or not any(m in name for m in models) or name.endswith(shown)]


def same(found: Summary, expected: Summary) -> bool:
    return replace(found, seconds={}) == replace(expected, seconds={})


def outputs(digests: Digests) -> dict[str, dict[str, str]]:
    """What the stages left; not what holds seconds, or the run folder's name."""
    aside = ("config.toml", "metrics.jsonl", "summary.json")
    return {name: found for name, found in digests.outputs.items() if name not in aside}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_or_mended(finished: Finished, tmp_path: Path, damage: str) -> None:
    package = {name: digest for name, digest in digests_of(finished.folder.package).items() if name != "manifest.json"}
    silent, tracebacks, mended, refused = [], [], [], []
    for name in files_of(finished.folder.path, is_sample=damage != "flipped bit"):
        folder = finished.copy(tmp_path / "copy")
        DAMAGES[damage](folder.path / name)
        try:
            summary, digests = finished.resume(folder)
        except EdgeeladError as error:
            (refused if "\n" not in str(error) else tracebacks).append(f"{name}: {error}")
        except Exception as error:
            tracebacks.append(f"{name}: {error!r}")
        else:
            shipped = digests_of(folder.package)
            is_same = same(summary, finished.summary) and outputs(digests) == outputs(finished.digests)
            is_same &= all(shipped.get(path) == digest for path, digest in package.items())
            (mended if is_same else silent).append(name)
        shutil.rmtree(folder.path)
    print(damage, "mended:", mended, "refused:", refused)
    assert (tracebacks, silent) == ([], [])
    assert {"summary.json", "report.html", "metrics.jsonl"} <= set(mended)  # made from the others


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_report_shows_no_damaged_figure(finished: Finished, tmp_path: Path, damage: str) -> None:
    page = write_report(finished.folder.path).read_text(encoding="utf-8")
    # a check may be deleted: the report does without it
    aside = {"teacher_check.json"} if damage == "deleted" else set()
    shown = [
        name
        for name in files_of(finished.folder.path, is_sample=True)
        if name.endswith((".json", ".jsonl", ".toml")) and name not in aside
    ]
    wrong, refused = [], 0
    for name in shown:
        folder = finished.copy(tmp_path / "copies" / "run")
        DAMAGES[damage](folder.path / name)
        try:
            if write_report(folder.path).read_text(encoding="utf-8") != page:
                wrong.append(name)
        except EdgeeladError:
            refused += 1
        shutil.rmtree(folder.path)
    assert wrong == []
    assert refused > 5
