import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import yaml
from fixtures.students import MAX_CONTEXT, questions

from edgeelad.api.student import load
from edgeelad.certificate import certificate_sentence
from edgeelad.config import ExportConfig
from edgeelad.engine import session
from edgeelad.engine.graph_files import AGREEMENT_FILE, GraphFiles, find_graphs
from edgeelad.engine.options import EngineOptions
from edgeelad.errors import EdgeeladError, ModelError, PackageError, StorageError
from edgeelad.export import export_student
from edgeelad.files import restore_folder, sweep_folder
from edgeelad.package import verify, write
from edgeelad.package.golden import GoldenStudent, Mismatch, read_golden
from edgeelad.package.info import PackageInfo
from edgeelad.package.manifest import GOLDEN_FILE, describe_file
from edgeelad.package.open import REQUIRED_FILES, is_package, open_package
from edgeelad.package.verify import verify_package
from edgeelad.package.write import write_package
from edgeelad.progress import Silent
from edgeelad.records import Certificate, Question
from edgeelad.scoring.score import evaluate_model, score_pool
from edgeelad.text.prompts import PROMPT_FILE

QUESTIONS = tuple(questions(2))
SESSION = onnxruntime.InferenceSession
GOLDEN = {
    "id": "a",
    "question": "q",
    "choices": [],
    "prompt_ids": [1],
    "completion_ids": [2],
    "text": "t",
    "max_tokens": 4,
}
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


def agreement(onnx_folder):
    """What the export measured; every package states it."""
    figures = json.loads((onnx_folder / AGREEMENT_FILE).read_text())
    assert list(figures) == ["token_agreement_int8"]
    assert 0.5 < figures["token_agreement_int8"] <= 1
    return figures


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


def unlist(folder, path):
    """Remove a file from the manifest and leave it in the folder."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if file["path"] != path]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_package_is_whole_and_verifies(package):
    opened = open_package(package)
    listed = {entry.path for entry in opened.manifest.files}
    there = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert there == listed | {"manifest.json"}
    assert {"tokenizer.json", "config.json", "prompt.json", "README.md"} < there
    assert sorted(path for path in there if path.startswith("onnx/")) == [
        "onnx/engine_quantized.graph",
        "onnx/model_quantized.onnx",
        "onnx/model_quantized.onnx_data",
    ]
    config = json.loads((package / "config.json").read_text())
    settings = {"dtype": "q8", "use_external_data_format": {"model_quantized.onnx": 1}}
    assert config["transformers.js_config"] == settings
    assert opened.precision == "int8"
    assert opened.graph.is_file()
    assert is_package(package)
    report = verify_package(package)
    assert report.is_ok
    assert report.num_golden == 5
    assert report.mismatches == ()
    assert report.unlisted_files == report.ignored_files == ()
    assert report.num_files == len(listed) - 1  # all but the model card
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
    assert open_package(folder).manifest.graph == "onnx/engine_quantized.graph"
    assert (folder / "onnx/engine.graph").is_file()
    card = (folder / "README.md").read_text()
    assert "is fp32" in card
    assert "`onnx/engine_quantized.graph` is the same student" in card


def test_the_graph_for_scoring_is_packaged_on_request(onnx_folder, tmp_path):
    folder = write_package(onnx_folder, tmp_path / "package", info(include_scoring=True))
    small = write_package(onnx_folder, tmp_path / "small", info())
    added = {"engine_rows_quantized.graph", "engine_lanes_quantized.graph", "engine_lanes_quantized.graph_data"}
    names = [{path.name for path in (each / "onnx").iterdir()} for each in (folder, small)]
    assert names[0] - names[1] == added
    assert verify_package(folder).is_ok
    assert not find_graphs(folder).lacks_lanes
    assert find_graphs(small).lacks_lanes
    shared = write_package(onnx_folder, tmp_path / "fp32", info(quantization="fp32"))
    assert not find_graphs(shared).lacks_lanes  # it has the weights already


def former_names(folder):
    """Give the engine graphs of a folder the names that earlier versions wrote."""
    for path in folder.rglob("engine*.graph"):
        path.rename(path.with_suffix(".onnx"))


def test_engine_graphs_with_their_former_names(onnx_folder, tmp_path):
    own = write_package(onnx_folder, tmp_path / "own", info(include_scoring=True))
    former_names(own)
    manifest = own / "manifest.json"
    manifest.write_text(re.sub(r"(engine\w*)\.graph\b(?!_)", r"\1.onnx", manifest.read_text()))
    assert open_package(own).manifest.graph == "onnx/engine_quantized.onnx"
    assert find_graphs(own).find_engine("lanes") == own / "onnx/engine_lanes_quantized.onnx"
    assert verify_package(own).is_ok
    source = Path(shutil.copytree(onnx_folder, tmp_path / "exported"))
    former_names(source)
    written = write_package(source, tmp_path / "again", info(include_scoring=True))
    assert sorted(path.name for path in written.glob("onnx/engine*")) == [
        "engine_lanes_quantized.graph",
        "engine_lanes_quantized.graph_data",
        "engine_quantized.graph",
    ]


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


def test_the_oldest_runtime_is_stated_and_checked_when_the_package_is_opened(own):
    path = own / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["oldest_onnxruntime"] == "1.22"
    path.write_text(json.dumps({**manifest, "oldest_onnxruntime": "1.999"}))
    with pytest.raises(
        PackageError, match=r"package: ONNX Runtime 1\.\S+ is too old: this student needs 1\.999 or newer"
    ):
        open_package(own)
    del manifest["oldest_onnxruntime"]  # packages that were written before
    path.write_text(json.dumps(manifest))
    assert open_package(own).manifest.oldest_onnxruntime == "1.22"


def test_an_altered_file_is_found_before_anything_runs(own):
    graph = own / "onnx/model_quantized.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    open_package(own)  # sizes are as they were
    with pytest.raises(PackageError, match=r"onnx/model_quantized\.onnx was altered"):
        verify_package(own)


def test_documents_beside_a_package_are_named_and_left_alone(own):
    (own / "notes.txt").write_text("mine")
    (own / ".git").mkdir()
    (own / ".git/HEAD").write_text("ref: refs/heads/main")
    (own / "README.md").write_text("my own words")
    report = verify_package(own)
    assert report.is_ok
    assert report.ignored_files == (".git/HEAD", "notes.txt", "README.md (edited)")
    assert "not checked: .git/HEAD, notes.txt, README.md (edited)" in report.text()
    assert report.text().endswith("\nverified")


@pytest.mark.parametrize(
    "name",
    ["extra.onnx", "onnx/decoder_model.onnx", "processor.json", "modeling.py", "a/b.bin", "vocab.txt"],
)
def test_a_file_that_another_runtime_would_open_is_not_verified(own, name):
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).write_bytes(b"stranger")
    open_package(own)  # edgeelad does not open it
    report = verify_package(own)
    assert not report.is_ok
    assert report.unlisted_files == (name,)
    assert f"NOT verified: not in the manifest: {name}; remove these files" in report.text()


@pytest.mark.parametrize(
    "name",
    ["model_quantized.onnx", "engine_quantized.graph", "onnx/engine.graph", "model.onnx", "generation_config.json"],
)
def test_a_file_that_would_be_opened_is_listed_or_refused(own, name):
    """Today's engine would take a graph in the root before the verified one in the folder onnx."""
    if name == "generation_config.json":
        unlist(own, name)
    else:
        shutil.copyfile(own / "onnx/engine_quantized.graph", own / name)
    for check in (open_package, verify_package):
        with pytest.raises(
            PackageError, match=rf"{re.escape(name)} would be opened, but its manifest does not list it"
        ):
            check(own)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "prompt.json", "golden.jsonl"])
def test_a_manifest_that_lists_only_part_of_what_runs(own, name):
    unlist(own, name)
    with pytest.raises(PackageError, match=rf"its manifest does not list {re.escape(name)}"):
        open_package(own)


def test_weights_that_the_manifest_does_not_list(own):
    unlist(own, "onnx/model_quantized.onnx_data")
    with pytest.raises(PackageError, match=r"onnx/model_quantized\.onnx_data would be opened"):
        open_package(own)


def test_a_graph_that_takes_its_weights_from_elsewhere(own):
    """Another name in the folder, then paths out of it, which onnxruntime before 1.24 reads."""
    for location, message in (
        ("elsewhere.bin", r"onnx/elsewhere\.bin would be opened"),
        ("../../secret", "reads weights from '../../secret', which is outside its folder"),
        ("/etc/passwd", "outside its folder"),
        ("C:\\secret", "outside its folder"),
    ):
        graph = onnx.load(str(own / "onnx/engine_quantized.graph"), load_external_data=False)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        forge(own, "onnx/engine_quantized.graph", graph.SerializeToString())
        with pytest.raises(PackageError, match=message):
            open_package(own)


def test_the_manifest_names_the_graph_that_runs(own, monkeypatch):
    """It named the standard graph, and the engine's ran."""
    opened = []
    monkeypatch.setattr(
        session.onnxruntime,
        "InferenceSession",
        lambda path, *rest, **options: opened.append(path) or SESSION(path, *rest, **options),
    )
    package = open_package(own)
    with load(own) as student:
        next(iter(student.stream(QUESTIONS[0], max_tokens=4)))
    assert opened == [str(package.graph)]
    assert package.manifest.graph == "onnx/engine_quantized.graph"
    assert package.manifest.standard_graph == "onnx/model_quantized.onnx"
    manifest = json.loads((own / "manifest.json").read_text())
    manifest["graph"] = "onnx/model_quantized.onnx"
    (own / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match=r"engine_quantized\.graph would run, but its manifest names onnx/model_q"):
        open_package(own)


def test_weights_full_of_zeros_are_noticed_when_the_package_is_opened(own):
    weights = own / "onnx/model_quantized.onnx_data"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(PackageError, match=r"model_quantized\.onnx_data was altered"):
        open_package(own)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(PackageError, match=r"model_quantized\.onnx_data has [\d,]+ bytes instead of"):
        open_package(own)


def test_what_was_written_is_synced_before_it_gets_its_name(onnx_folder, tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(os.fstat(fd).st_ino) or fsync(fd))
    monkeypatch.setattr(Path, "rename", lambda self, target: events.append("rename") or rename(self, target))
    folder = write_package(onnx_folder, tmp_path / "package", info())
    before = events[: events.index("rename")]
    written = [folder, *folder.rglob("*")]
    assert {path.stat().st_ino for path in written} <= set(before)
    assert tmp_path.stat().st_ino in events[events.index("rename") :]


def test_control_characters_stay_out_of_card_and_manifest(onnx_folder, tmp_path):
    evil = "tiny\x1b]0;owned\x07\u202e\nname"
    folder = write_package(onnx_folder, tmp_path / "p", info(name=evil, base_model=evil, metrics={"note": "fine"}))
    assert open_package(folder).manifest.name == "tiny]0;owned name"
    card = (folder / "README.md").read_text()
    assert all(line.isprintable() for line in card.splitlines())
    assert "# tiny\\]0;owned name" in card
    with pytest.raises(PackageError, match=r"metrics\.note"):
        write_package(onnx_folder, tmp_path / "q", info(metrics={"note": "\x1b[2J"}))


def test_a_graph_that_cannot_be_opened(own):
    nodes = [onnx.helper.make_node("Add", ["nowhere", "to be found"], ["logits"])]
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_model(onnx.helper.make_graph(nodes, "broken", [], [logits]))
    forge(own, "onnx/engine_quantized.graph", graph.SerializeToString())
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


def test_a_near_tie_may_be_decided_otherwise(own, monkeypatch):
    """SmolLM2-135M in int8, written with onnxruntime 1.32, was "NOT verified" by 1.22: 0.05 nats decided a token."""
    rows = [json.loads(line) for line in (own / GOLDEN_FILE).read_text().splitlines()]
    student = GoldenStudent(own, "int8")
    prompt, written = rows[1]["prompt_ids"], rows[1]["completion_ids"]
    leads = {token: student.lead([*prompt, *written[:3]], token) for token in range(student.codec.vocab_size)}
    assert leads[written[3]] == 0.0
    others = {token: lead for token, lead in leads.items() if lead} | dict.fromkeys(student.codec.eos_ids, 99.0)
    second = min(others, key=others.get)
    before = [*written[:3], second]
    rows[1]["completion_ids"] = [*before, *student.write([*prompt, *before], rows[1]["max_tokens"] - 4)]
    forge(own, GOLDEN_FILE, "".join(json.dumps(row) + "\n" for row in rows).encode())
    monkeypatch.setattr("edgeelad.package.golden.TIE_NATS", others[second] + 0.01)
    report = verify_package(own)
    (mismatch,) = report.mismatches
    assert (mismatch.place, mismatch.expected, mismatch.found) == (3, second, written[3])
    assert mismatch.lead == pytest.approx(others[second], abs=1e-5)
    assert report.is_ok
    assert "golden outputs: 4 of 5 the same" in report.text()
    assert f"a near tie at token 3: token {written[3]} leads token {second} by" in report.text()
    assert report.text().endswith("so decides near ties otherwise\nverified")
    monkeypatch.setattr("edgeelad.package.golden.TIE_NATS", others[second] - 0.01)
    report = verify_package(own)
    assert not report.is_ok
    assert report.text().endswith("NOT verified: this device computes other outputs")


def test_of_many_near_ties_the_first_are_listed(own):
    ties = [Mismatch("q", place, 1, 2, is_prompt=False, lead=place / 100, is_tie=True) for place in range(1, 31)]
    other = Mismatch("r", 0, 1, 2, is_prompt=False)
    text = replace(verify_package(own), mismatches=(*ties, other)).text()
    assert text.count("  q: a near tie") == 3
    assert "  27 more near ties, of up to 0.30 nats" in text
    assert "  r: the explanation differs from token 0 on" in text


def test_the_prompt_is_a_required_file(own):
    """`package.open` spells its name, since importing `text.prompts` takes longer than all checks of a package."""
    assert PROMPT_FILE in REQUIRED_FILES
    (own / PROMPT_FILE).unlink()
    with pytest.raises(PackageError, match=r"prompt\.json"):
        open_package(own)


def test_another_prompt_is_found(own):
    prompt = json.loads((own / "prompt.json").read_text())
    prompt["template"] = prompt["template"].replace("Question", "Query")
    forge(own, "prompt.json", json.dumps(prompt).encode())
    report = verify_package(own)
    assert len(report.mismatches) == 5
    assert all(mismatch.is_prompt for mismatch in report.mismatches)


@pytest.mark.parametrize(
    "data",
    [b"", b"{\n", b'{"id": 1}\n', b'{"id": 1, "question": "x", "prompt_ids": ["a"]}\n', b"\xff\n", b" " * (5 << 20)]
    + [
        json.dumps({**GOLDEN, **changes}).encode()
        for changes in ({"max_tokens": 10**9}, {"max_tokens": 0}, {"max_tokens": 1e400}, {"prompt_ids": 3})
    ],
)
def test_golden_outputs_that_cannot_be_read(own, data):
    forge(own, GOLDEN_FILE, data)
    with pytest.raises(PackageError, match=r"golden\.jsonl: (damaged|contains no golden outputs)"):
        verify_package(own)


def test_a_package_replaces_a_package_and_nothing_else(onnx_folder, own, tmp_path):
    write_package(onnx_folder, own, info(metrics={"accuracy_int8": 0.5}))
    assert open_package(own).manifest.metrics == {"accuracy_int8": 0.5, **agreement(onnx_folder)}
    (own / "notes.txt").write_text("mine")
    with pytest.raises(PackageError, match=r"notes\.txt, which edgeelad did not write"):
        write_package(onnx_folder, own, info())
    assert (own / "notes.txt").read_text() == "mine"
    (own / "notes.txt").unlink()
    (own / "README.md").write_text("my own words")
    with pytest.raises(PackageError, match=r"README\.md, which edgeelad did not write or which was edited"):
        write_package(onnx_folder, own, info())
    assert open_package(own).manifest.metrics == {"accuracy_int8": 0.5, **agreement(onnx_folder)}
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("words")
    with pytest.raises(PackageError, match=r"chapter\.tex"):
        write_package(onnx_folder, foreign, info())
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackageError, match="not a folder"):
        write_package(onnx_folder, tmp_path / "file", info())
    (tmp_path / "empty").mkdir()
    write_package(onnx_folder, tmp_path / "empty", info())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "package", "thesis"]


def test_a_package_is_replaced(onnx_folder, own):
    write_package(onnx_folder, own, info(metrics={"accuracy_int8": 0.5}))
    assert open_package(own).manifest.metrics == {"accuracy_int8": 0.5, **agreement(onnx_folder)}
    assert [path.name for path in own.parent.iterdir()] == ["package"]


REPLACE_KILLED = """
import os, signal, sys
from pathlib import Path
from edgeelad.files import make_folder

rename, left = Path.rename, int(sys.argv[2])
def rename_or_die(source, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(source, target)
Path.rename = rename_or_die
make_folder(Path(sys.argv[1]), lambda folder: (folder / "new").write_text("whole"), is_replaced=True)
"""


@pytest.mark.parametrize("num_renames", range(3))
def test_a_kill_while_a_package_is_replaced_loses_nothing(onnx_folder, own, monkeypatch, num_renames):
    killed = subprocess.run([sys.executable, "-c", REPLACE_KILLED, str(own), str(num_renames)])
    assert killed.returncode == -signal.SIGKILL
    sweep_folder(own.parent)  # what a resumed run does first
    (own.parent / ".package.new.1.tmp").mkdir()

    def fail(*_):
        raise StorageError("no space")

    if num_renames < 2:
        with monkeypatch.context() as patch:
            patch.setattr(write, "_fill", fail)
            with pytest.raises(StorageError, match="no space"):
                write_package(onnx_folder, own, info())
        assert verify_package(own).is_ok  # the old one is back
        write_package(onnx_folder, own, info(metrics={"accuracy_int8": 0.5}))
        assert open_package(own).manifest.metrics == {"accuracy_int8": 0.5, **agreement(onnx_folder)}
    else:
        restore_folder(own)
        assert (own / "new").read_text() == "whole"
    assert not list(own.parent.glob(".package.old*"))
    assert num_renames == 2 or [path.name for path in own.parent.iterdir()] == ["package"]


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
    with load(folder) as student:
        assert list(student.stream(QUESTIONS[0], max_tokens=4))
    with pytest.raises(ModelError, match="has no int8 graph; use its int4 graph"):
        find_graphs(folder, "int8")


def test_other_outputs_of_another_onnxruntime_name_the_one_that_wrote_them(own):
    rows = [json.loads(line) for line in (own / GOLDEN_FILE).read_text().splitlines()]
    rows[0]["completion_ids"][0] += 1
    forge(own, GOLDEN_FILE, "".join(json.dumps(row) + "\n" for row in rows).encode())
    manifest = json.loads((own / "manifest.json").read_text())
    manifest["versions"]["onnxruntime"] = "1.22.0"
    (own / "manifest.json").write_text(json.dumps(manifest))
    text = verify_package(own).text()
    assert text.endswith("this device computes other outputs; they were written with onnxruntime 1.22.0")


def test_scoring_and_evaluation_check_a_package_as_well(own, tmp_path):
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"question": "What is 1 + 2?", "answer": "3"}\n')
    shutil.copyfile(own / "onnx/engine_quantized.graph", own / "engine.graph")
    with pytest.raises(PackageError, match=r"engine\.graph would be opened"):
        score_pool(own, str(pool), tmp_path / "out.jsonl", Silent(), strategy="elad", options=EngineOptions())
    with pytest.raises(PackageError, match=r"engine\.graph would be opened"):
        evaluate_model(own, str(pool), Silent(), options=EngineOptions())


@pytest.mark.parametrize(
    "decoder",
    [
        {"session_options": {"custom_ops_library": "operators"}},
        {"session_options": {"provider_options": [{"x": {"library": "EVIL.DLL"}}]}},
        {"filename": "../other/model.onnx"},
        {"pipeline": [{"a": {"filename": "onnx/extra.onnx"}}]},
    ],
)
def test_a_genai_configuration_that_loads_something_else_is_refused(own, decoder):
    settings = {"model": {"type": "decoder", "decoder": decoder}}
    forge(own, "genai_config.json", json.dumps(settings).encode())
    with pytest.raises(PackageError, match="which would be loaded and is not in the package"):
        verify_package(own)


def test_a_device_that_is_too_small_is_told_in_a_line(own, monkeypatch):
    report = verify_package(own)
    slow = replace(report, tokens_per_s=0.25)
    assert "this device is too small" not in report.text()
    assert "up to 96.0 s for an explanation of up to 24 tokens" in slow.text()
    assert "this device is too small: an explanation may take longer than 60 s" in slow.text()
    monkeypatch.setattr(verify, "available_memory_bytes", lambda: 40_000_000)
    with pytest.raises(PackageError, match=r"too small: the student takes about 90 MB of memory, and 40 MB are free$"):
        verify_package(own)
    assert "too small" not in replace(report, tokens_per_s=0.0).text()
    monkeypatch.setattr(verify, "available_memory_bytes", lambda: None)
    assert verify_package(own).is_ok


DEEP = b"[" * 100_000
HOSTILE = {
    "a context of 10^12 tokens": ("config.json", {"max_position_embeddings": 10**12}, None),
    "a negative context": ("config.json", {"max_position_embeddings": -1}, "no context length"),
    "a context that is a text": ("config.json", {"max_position_embeddings": "128"}, "no context length"),
    "a vocabulary of 10^12": ("config.json", {"vocab_size": 10**12}, "belong to different students"),
    "a vocabulary that is a list": ("config.json", {"vocab_size": [400]}, "vocab_size is not a number"),
    "10^9 layers": ("config.json", {"num_hidden_layers": 10**9}, "belong to different students"),
    "a nested configuration": ("config.json", DEEP, "cannot be read"),
    "a configuration in Latin-1": ("config.json", b'{"a": "\xff"}', "cannot be read"),
    "an end token that is a text": ("generation_config.json", {"eos_token_id": "x"}, "eos_token_id is 'x'"),
    "nested end tokens": ("generation_config.json", {"eos_token_id": [[1]]}, "not a token id or a list"),
    "nested settings": ("generation_config.json", DEEP, "cannot be read"),
    "an empty tokenizer": ("tokenizer.json", b"{}", "not a tokenizer"),
    "a nested tokenizer": ("tokenizer.json", DEEP, "not a tokenizer"),
    "a tokenizer without tokens": (
        "tokenizer.json",
        b'{"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}',
        "its prompt has no tokens",
    ),
    "a prompt that reaches for classes": (
        "prompt.json",
        {"template": "{{ ''.__class__.__mro__ }}{{ question }}"},
        "access to attribute '__class__' of 'str' object is unsafe",
    ),
    "a prompt with a key of its own": ("prompt.json", {"command": "rm"}, "not a prompt file of edgeelad"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_package_that_matches_its_checksums(own, name):
    path, change, told = HOSTILE[name]
    if isinstance(change, dict):
        change = json.dumps({**json.loads((own / path).read_text()), **change}).encode()
    forge(own, path, change)
    if told is None:
        assert verify_package(own).is_ok
        return

    def ask(folder):
        with load(folder) as student:
            student.explain("What is 1 + 2?")

    for call in (verify_package, ask):
        with pytest.raises(EdgeeladError, match=told) as caught:
            call(own)
        assert str(caught.value).isprintable()
