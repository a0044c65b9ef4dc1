import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fixtures.students import MAX_CONTEXT, questions

from edgeelad.certificate import certificate_sentence
from edgeelad.config import ExportConfig
from edgeelad.edge.run import open_student
from edgeelad.engine.graph_files import GraphFiles, find_graphs
from edgeelad.errors import ModelError, PackageError, StorageError
from edgeelad.export import export_student
from edgeelad.package import PackageInfo, is_package, open_package, verify_package, write_package
from edgeelad.package.golden import GOLDEN_FILE, read_golden
from edgeelad.package.manifest import describe_file
from edgeelad.records import Certificate, Question

QUESTIONS = tuple(questions(2))
METRICS = {
    "accuracy_fp32": 0.9,
    "accuracy_int8": 0.895,
    "same_answers_as_fp32": 0.99,
    "num_test": 400,
    "annotated": None,
}
CERTIFICATE = Certificate(2, 100, 3, 2000, 0.0083, 0.1, 0.0985, 0.004, 0.95)


def info(**changes):
    fields = {
        "base_model": "org/tiny",
        "quantization": "int8",
        "golden_questions": QUESTIONS,
        "metrics": METRICS,
        "certificate": CERTIFICATE,
        "max_explanation_tokens": 24,
    }
    return PackageInfo(**{**fields, **changes})


@pytest.fixture(scope="module")
def onnx_folder(students):
    return students.onnx()


@pytest.fixture(scope="module")
def package(onnx_folder, tmp_path_factory):
    return write_package(onnx_folder, tmp_path_factory.mktemp("packages") / "package", info())


@pytest.fixture
def own(package, tmp_path):
    return Path(shutil.copytree(package, tmp_path / "package"))


def forge(folder, path, data):
    """Change a file and the manifest with it, as nobody would by accident."""
    (folder / path).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = describe_file(folder, path)
    for file in manifest["files"]:
        if file["path"] == path:
            file |= {"size": entry.size, "sha256": entry.sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_package_is_whole_and_verifies(package):
    opened = open_package(package)
    listed = {entry.path for entry in opened.manifest.files}
    there = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert there == listed | {"manifest.json"}
    assert {"tokenizer.json", "config.json", "prompt.json", "README.md"} < there
    assert sorted(path for path in there if path.startswith("onnx/")) == [
        "onnx/engine_lanes_quantized.onnx",
        "onnx/engine_quantized.onnx",
        "onnx/model_quantized.onnx",
        "onnx/model_quantized.onnx_data",
    ]
    config = json.loads((package / "config.json").read_text())
    assert config["transformers.js_config"] == {"use_external_data_format": {"model_quantized.onnx": 1}}
    assert opened.precision == "int8"
    assert opened.graph.is_file()
    assert is_package(package)
    report = verify_package(package)
    assert report.is_ok
    assert report.num_golden == 5
    assert report.mismatches == ()
    assert report.unlisted_files == ()
    assert report.num_files == len(listed)
    assert report.tokens_per_s > 0
    assert report.load_s > 0
    assert report.text().endswith("verified")
    assert report.to_json()["is_ok"] is True
    assert json.dumps(report.to_json())
    assert [path.name for path in package.parent.iterdir()] == ["package"]


def test_golden_outputs_are_what_torch_generates(students, onnx_folder, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(students.plain())
    folder = write_package(onnx_folder, tmp_path / "package", info(quantization="fp32"))
    golden = read_golden(folder)
    assert [row.id for row in golden] == [*(question.id for question in QUESTIONS), "spare-0", "spare-1", "spare-2"]
    for row in golden:
        prompt = torch.tensor([row.prompt_ids])
        made = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=row.max_tokens,
            pad_token_id=0,
        )
        eos = model.generation_config.eos_token_id
        written = [token for token in made[0, len(row.prompt_ids) :].tolist() if token != eos]
        assert list(row.completion_ids) == written
        assert len(set(written)) > 5  # a student that repeats itself would hide differences
    assert open_package(folder).precision == "fp32"
    assert verify_package(folder).is_ok


def test_optimum_loads_a_package(package):
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM

    model = ORTModelForCausalLM.from_pretrained(package, subfolder="onnx", file_name="model_quantized.onnx")
    row = read_golden(package)[0]
    prompt = torch.tensor([row.prompt_ids])
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=8, pad_token_id=0
    )
    assert made[0, len(row.prompt_ids) :].tolist() == list(row.completion_ids[:8])


def test_fp32_beside_the_quantized_graph(onnx_folder, tmp_path):
    folder = write_package(onnx_folder, tmp_path / "package", info(include_fp32=True))
    assert (folder / "onnx/model.onnx").is_file()
    assert open_package(folder).manifest.graph == "onnx/model_quantized.onnx"
    assert (folder / "onnx/engine.onnx").is_file()
    card = (folder / "README.md").read_text()
    assert "holds fp32" in card
    assert "`onnx/engine_quantized.onnx` is the same student" in card


def test_a_student_without_engine_graphs_is_packaged_all_the_same(students, tmp_path):
    folder = write_package(students.standard(students.plain()), tmp_path / "package", info())
    names = {path.name for path in (folder / "onnx").iterdir()}
    assert names == {"model_quantized.onnx", "model_quantized.onnx_data"}
    assert verify_package(folder).is_ok
    assert "engine_quantized" not in (folder / "README.md").read_text()


def test_the_card_says_what_was_measured(package):
    text = (package / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    data = yaml.safe_load(front)
    assert data["base_model"] == "org/tiny"
    assert data["pipeline_tag"] == "text-generation"
    assert data["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.895}]
    assert "| accuracy, int8 | 89.5% |" in body
    assert "| questions annotated by the teacher | not measured |" in body
    assert certificate_sentence(CERTIFICATE) in body


def test_the_card_claims_nothing_that_is_not_known(onnx_folder, tmp_path):
    failed = replace(CERTIFICATE, upper=0.2)
    folder = write_package(onnx_folder, tmp_path / "a", info(metrics={}, certificate=failed))
    text = (folder / "README.md").read_text()
    assert certificate_sentence(failed) in text
    assert "model-index" not in text
    folder = write_package(onnx_folder, tmp_path / "b", info(certificate=None))
    assert "was not audited" in (folder / "README.md").read_text()


def test_machine_paths_and_wild_texts_stay_out_of_card_and_manifest(onnx_folder, tmp_path):
    wild = Question("w", 'Pay $(rm -rf x) "now"\n---\n`id` |cell| <b>?')
    base = tmp_path / "secret-place" / "my student"
    base.mkdir(parents=True)
    folder = write_package(onnx_folder, tmp_path / "p", info(golden_questions=(wild,), base_model=str(base)))
    card, manifest = (folder / "README.md").read_text(), (folder / "manifest.json").read_text()
    assert "secret-place" not in card + manifest
    assert "Pay (rm -rf x) now --- id |cell| <b>?" in card  # in a code block, where nothing can be run
    assert open_package(folder).manifest.name == "my student-edgeelad"
    front = yaml.safe_load(card.split("---\n", 2)[1])
    assert "base_model" not in front


def test_answer_kinds_and_golden_questions():
    number, choice = Question("a", "x", "number"), Question("b", "y", "choice", ("p", "q"))
    assert info(golden_questions=(number, number)).answer_kind == "number"
    assert info(golden_questions=(number, choice)).answer_kind == "text"
    assert info(golden_questions=()).answer_kind == "text"
    assert len(info(golden_questions=()).all_golden) == 5
    assert len(info(golden_questions=(number,) * 7).all_golden) == 7
    assert info(base_model="org/tiny").served_name == "tiny-edgeelad"
    assert info(base_model="org/tiny", name="mine").served_name == "mine"


def test_questions_that_do_not_fit_are_left_out(onnx_folder, tmp_path):
    long = Question("long", "word " * MAX_CONTEXT)
    folder = write_package(onnx_folder, tmp_path / "package", info(golden_questions=(long, *QUESTIONS)))
    assert [row.id for row in read_golden(folder)] == [*(question.id for question in QUESTIONS), "spare-0", "spare-1"]


def test_an_altered_file_is_found_before_anything_runs(own):
    graph = own / "onnx/model_quantized.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    open_package(own)  # sizes are as they were
    for deep in (True, False):
        with pytest.raises(PackageError, match=r"onnx/model_quantized\.onnx was altered"):
            verify_package(own, deep=deep)


def test_checksums_alone(own):
    (own / "notes.txt").write_text("mine")
    report = verify_package(own, deep=False)
    assert report.is_ok
    assert (report.num_golden, report.load_s, report.tokens_per_s) == (0, None, None)
    assert report.unlisted_files == ("notes.txt",)
    assert "golden" not in report.text()
    assert "notes.txt" in report.text()


def test_a_graph_that_cannot_be_opened(own):
    forge(own, "onnx/engine_quantized.onnx", b"not a graph")
    with pytest.raises(PackageError, match="cannot be opened here") as caught:
        verify_package(own)
    assert "\n" not in str(caught.value)


def test_other_outputs_are_reported_with_their_place(own):
    rows = [json.loads(line) for line in (own / GOLDEN_FILE).read_text().splitlines()]
    rows[1]["completion_ids"][3] += 1
    rows[2]["completion_ids"] = rows[2]["completion_ids"][:4]
    forge(own, GOLDEN_FILE, "".join(json.dumps(row) + "\n" for row in rows).encode())
    report = verify_package(own)
    assert not report.is_ok
    first, second = report.mismatches
    assert (first.id, first.place, first.is_prompt) == (QUESTIONS[1].id, 3, False)
    assert first.expected == first.found + 1
    assert (second.id, second.place, second.expected) == ("spare-0", 4, None)
    assert "golden outputs: 3 of 5 the same" in report.text()
    assert f"{QUESTIONS[1].id}: the explanation differs from token 3 on" in report.text()
    assert report.text().endswith("NOT verified: this device computes other outputs")


def test_another_prompt_is_found(own):
    prompt = json.loads((own / "prompt.json").read_text())
    prompt["template"] = prompt["template"].replace("Question", "Query")
    forge(own, "prompt.json", json.dumps(prompt).encode())
    report = verify_package(own)
    assert len(report.mismatches) == 5
    assert all(mismatch.is_prompt for mismatch in report.mismatches)


@pytest.mark.parametrize("data", [b"", b"{\n", b'{"id": 1}\n', b'{"id": 1, "question": "x", "prompt_ids": ["a"]}\n'])
def test_golden_outputs_that_cannot_be_read(own, data):
    forge(own, GOLDEN_FILE, data)
    with pytest.raises(PackageError, match=r"golden\.jsonl: (damaged|holds no golden outputs)"):
        verify_package(own)


def test_a_package_replaces_a_package_and_nothing_else(onnx_folder, own, tmp_path):
    write_package(onnx_folder, own, info(metrics={"accuracy_int8": 0.5}))
    assert open_package(own).manifest.metrics == {"accuracy_int8": 0.5}
    (own / "notes.txt").write_text("mine")
    with pytest.raises(PackageError, match=r"notes\.txt, which edgeelad did not write"):
        write_package(onnx_folder, own, info())
    assert (own / "notes.txt").read_text() == "mine"
    assert open_package(own).manifest.metrics == {"accuracy_int8": 0.5}
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("words")
    with pytest.raises(PackageError, match=r"chapter\.tex"):
        write_package(onnx_folder, foreign, info())
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackageError, match="no folder"):
        write_package(onnx_folder, tmp_path / "file", info())
    (tmp_path / "empty").mkdir()
    write_package(onnx_folder, tmp_path / "empty", info())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "package", "thesis"]


def test_a_package_is_replaced(onnx_folder, own):
    write_package(onnx_folder, own, info(metrics={"accuracy_int8": 0.5}))
    assert open_package(own).manifest.metrics == {"accuracy_int8": 0.5}
    assert [path.name for path in own.parent.iterdir()] == ["package"]


def test_an_export_that_lacks_a_file(onnx_folder, tmp_path):
    source = Path(shutil.copytree(onnx_folder, tmp_path / "onnx"))
    (source / "prompt.json").unlink()
    (source / "model_quantized.onnx").unlink()
    with pytest.raises(PackageError, match=r"prompt\.json, model_quantized\.onnx missing; export the student again"):
        write_package(source, tmp_path / "package", info())
    assert not (tmp_path / "package").exists()


def test_a_full_disk_leaves_the_old_package(onnx_folder, own, monkeypatch):
    def full(source, target):
        if Path(source).suffix == ".onnx":
            raise OSError(errno.ENOSPC, "No space left on device")
        return copyfile(source, target)

    copyfile = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", full)
    before = (own / "manifest.json").read_bytes()
    with pytest.raises(StorageError, match="No space left on device"):
        write_package(onnx_folder, own, info(metrics={}))
    assert (own / "manifest.json").read_bytes() == before
    assert [path.name for path in own.parent.iterdir()] == ["package"]
    assert verify_package(own).is_ok


def test_an_int4_package_opens_as_int4(students, tmp_path):
    exported = tmp_path / "onnx"
    config = ExportConfig(quantize="int4", num_parity_prompts=1)
    export_student(students.plain(), exported, config, parity_questions=QUESTIONS[:1])
    folder = write_package(exported, tmp_path / "package", info(quantization="int4"))
    assert open_package(folder).precision == "int4"
    assert verify_package(folder).is_ok
    assert find_graphs(folder) == GraphFiles(folder / "onnx", "int4")
    with open_student(open_package(folder)) as student:
        assert student.explain(QUESTIONS[:1], 4)[0].tokens.explanation > 0
    with pytest.raises(ModelError, match="has no int8 graph; use its int4 graph"):
        find_graphs(folder, "int8")
