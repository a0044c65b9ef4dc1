"""Encoder-decoders (T5), end to end: newlines, training, export, trees, scores, packages, a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fixtures.small_run import SmallRun
from fixtures.students import make_sum, questions
from fixtures.t5 import LACKING, NUM_SPARE, TAUGHT, Kind, T5Folders, make_t5, make_t5_tokenizer

import edgeelad
from edgeelad.cli.commands import cli
from edgeelad.config import ExportConfig, ScoringConfig, StudentConfig, TrainingConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import BranchPoint, GeneratedTokens, Limits, TreeRequest
from edgeelad.engine.graph_files import ONNX_FOLDER, GraphFiles
from edgeelad.engine.open import open_standard
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.plain.batch import BatchGenerator
from edgeelad.engine.plain.reference import force_one, generate_one
from edgeelad.engine.sampling import SamplingParams
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.errors import ModelError, PackageError
from edgeelad.export import export_student
from edgeelad.files import read_json, read_jsonl, write_jsonl
from edgeelad.package.info import PackageInfo
from edgeelad.package.open import open_package
from edgeelad.package.verify import verify_package
from edgeelad.package.write import write_package
from edgeelad.quickstart.server import TeacherServer
from edgeelad.records import ReasoningTree
from edgeelad.text.explanation import join
from edgeelad.training import fine_tune, prepare_student
from edgeelad.training.support import has_optimum
from edgeelad.uncertainty import STRATEGIES, score, tree_params

pytestmark = pytest.mark.skipif(not has_optimum(), reason="needs optimum-onnx, which transformers 5 excludes")
ASKED = questions(5)
NUM_TOKENS = 12
NO_END = Limits(frozenset(), 200)
TEXTS = [
    join(*make_sum(3, 14)[1:]),
    "2 + 2 = 4\nThe answer is 4",
    "\n\nAdd 1.\n\nThe answer is 12\n",
    "Start with 3.\n",
    "\n",
    "no newline",
]


@pytest.fixture(scope="module")
def package(t5: T5Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "package"
    info = PackageInfo("org/t5", "int8", tuple(example.question for example in TAUGHT[:3]), max_explanation_tokens=60)
    return write_package(t5.onnx(t5.trained()), folder, info)


def opened(folder: Path, batch_size: int = 64) -> tuple[BatchGenerator, Codec]:
    codec = Codec.load(folder)
    return BatchGenerator(open_standard(GraphFiles(folder), codec), batch_size), codec


# --- the tokenizer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_lines_survive_and_stream_as_they_decode(t5: T5Folders, text: str) -> None:
    bare = make_t5_tokenizer()
    assert "\n" not in bare.decode(bare.encode(text).ids)  # what a T5 does to steps
    codec = Codec.load(t5.student())
    ids = codec.encode_completion(text)
    assert codec.decode(ids) == text
    assert "".join(codec.stream(ids)) == text
    assert sum(id_ in codec.newline_ids for id_ in range(codec.vocab_size)) == 1


def test_lines_survive_training_and_are_read_by_transformers(t5: T5Folders) -> None:
    from transformers import AutoTokenizer

    for folder in (t5.student(), t5.trained(), t5.onnx(t5.trained())):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(TEXTS[0]).input_ids
        assert ids == [*Codec.load(folder).encode_completion(TEXTS[0]), tokenizer.eos_token_id]
        assert tokenizer.decode(ids, skip_special_tokens=True) == TEXTS[0]
    assert (t5.student() / "tokenizer.json").read_bytes() == (t5.trained() / "tokenizer.json").read_bytes()


def test_punctuation_that_the_vocabulary_lacks_is_kept(t5: T5Folders) -> None:
    bare, codec = make_t5_tokenizer(), Codec.load(t5.student())
    for text in (r"\frac{1}{2}<3", "2^3~8", "{a\n`b`}"):
        assert bare.decode(bare.encode(text).ids) != text
        assert codec.decode(codec.encode_completion(text)) == text
    assert codec.decode(codec.encode_completion("5% of x < 3, y")) == "5% of x<3, y"


def test_added_characters_take_spare_rows_of_the_embedding_or_new_ones(t5: T5Folders, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    full = make_t5(tmp_path / "full", num_spare=0)
    prepare_student(str(full), tmp_path / "student", StudentConfig(model=str(full)))
    num_tokens, num_added = make_t5_tokenizer().get_vocab_size(), 1 + len(LACKING)
    for folder, rows in ((t5.student(), num_tokens + NUM_SPARE), (tmp_path / "student", num_tokens + num_added)):
        assert Codec.load(folder).vocab_size == rows
        weights = load_file(folder / "model.safetensors")
        for name in ("shared.weight", "lm_head.weight"):
            assert weights[name].shape[0] == rows
            mean = weights[name][:num_tokens].mean(axis=0)
            for row in weights[name][num_tokens : num_tokens + num_added]:
                assert row == pytest.approx(mean, abs=1e-5)


def test_a_prepared_student_is_prepared_again_unchanged(t5: T5Folders, tmp_path: Path) -> None:
    again = prepare_student(str(t5.student()), tmp_path / "again", StudentConfig(model=str(t5.student())))
    for name in ("config.json", "tokenizer.json", "prompt.json", "model.safetensors"):
        assert (again / name).read_bytes() == (t5.student() / name).read_bytes(), name


def test_the_prompt_ends_with_the_end_token_and_settings_are_complete(t5: T5Folders) -> None:
    codec = Codec.load(t5.student())
    prompt = codec.encode_prompt(ASKED[0])
    assert prompt[-1] == 1
    assert codec.decode(prompt) == f"Question: {ASKED[0].text}\nExplanation:\n"
    assert (codec.max_context, codec.start_id, codec.eos_ids) == (512, 0, {1})
    assert read_json(t5.student() / "generation_config.json")["decoder_start_token_id"] == 0


# --- what is refused ------------------------------------------------------------------------------------------------


def test_other_encoder_decoders_and_transformers_5_are_refused_with_what_is_served(
    t5: T5Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BartConfig

    BartConfig(d_model=16).save_pretrained(tmp_path / "bart")
    with pytest.raises(ModelError, match=r"'bart' is not a causal language model.*t5, mt5"):
        prepare_student(str(tmp_path / "bart"), tmp_path / "student", StudentConfig())
    for module in ("training.support", "export.tracing"):
        monkeypatch.setattr(f"edgeelad.{module}.has_optimum", lambda: False)
    with pytest.raises(
        ModelError,
        match=r"'t5' cannot be exported to ONNX here.*with 'edgeelad\[distill\]', several times slower: .*t5",
    ):
        prepare_student(str(t5.checkpoint()), tmp_path / "student", StudentConfig())


def test_a_head_that_transformers_5_saved_is_not_scaled(t5: T5Folders, tmp_path: Path) -> None:
    newer = shutil.copytree(t5.checkpoint(), tmp_path / "newer")
    config = read_json(newer / "config.json")
    # what transformers 5 writes for T5 1.1, and 4.57 would take for a tied, scaled head
    config |= {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    (newer / "config.json").write_text(json.dumps(config), encoding="utf-8")
    student = prepare_student(str(newer), tmp_path / "student", StudentConfig())
    assert (student / "model.safetensors").read_bytes() == (t5.student() / "model.safetensors").read_bytes()
    assert read_json(student / "config.json")["tie_word_embeddings"] is False


# --- training -------------------------------------------------------------------------------------------------------


def test_training_learns_the_examples(t5: T5Folders, tmp_path: Path) -> None:
    config = TrainingConfig(max_steps=4, learning_rate=5e-3, batch_size=16, held_out_share=0)
    result = fine_tune(t5.student(), TAUGHT, tmp_path / "student", config, seed=0)
    assert result.final_loss < result.first_loss
    codec = Codec.load(t5.student())
    expected = [codec.encode_completion(join(example.steps, example.answer)) for example in TAUGHT]
    assert result.num_label_tokens == sum(len(ids) + 1 for ids in expected)  # with the end token, without the prompt
    with Student.open(t5.onnx(t5.trained())) as student:
        trees = student.explain([example.question for example in TAUGHT], 60)
    num_right = sum(tree.answer == example.answer for tree, example in zip(trees, TAUGHT, strict=True))
    assert num_right > len(TAUGHT) // 2
    assert all(len(tree.steps) == 3 for tree in trees if tree.finish_reason == "eos")


def test_the_loss_is_what_the_exported_graph_computes(t5: T5Folders, tmp_path: Path) -> None:
    # one batch, ragged on both sides, without an update: a rate that moves nothing
    config = TrainingConfig(max_steps=1, learning_rate=1e-12, batch_size=16, held_out_share=0)
    plain = prepare_student(str(make_t5(tmp_path / "plain", dropout_rate=0.0)), tmp_path / "student", StudentConfig())
    result = fine_tune(plain, TAUGHT, tmp_path / "trained", config, seed=0)
    generator, codec = opened(t5.onnx(plain, "none"))
    losses = []
    for example in TAUGHT:
        ids = [*codec.encode_completion(join(example.steps, example.answer)), 1]
        cache, (head,) = generator.graph.begin([codec.encode_prompt(example.question)])
        tokens = np.array([[*head, *ids[:-1]]])
        logits, _ = generator.graph.step(tokens, np.ones_like(tokens), np.arange(tokens.shape[1])[None], cache)
        losses += (np.logaddexp.reduce(logits[0], axis=1) - logits[0][np.arange(len(ids)), ids]).tolist()
    assert result.first_loss == pytest.approx(np.mean(losses), abs=1e-3)


def test_a_lora_is_trained_and_merged(t5: T5Folders, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    config = TrainingConfig(method="lora", max_steps=4, learning_rate=1e-2, batch_size=16, held_out_share=0)
    result = fine_tune(t5.student(), TAUGHT, tmp_path / "student", config, seed=0)
    assert result.final_loss < result.first_loss
    names = {path.name for path in result.folder.iterdir()}
    assert "model.safetensors" in names
    assert "adapter_model.safetensors" not in names


# --- export and generation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["t5", "t5-1.1", "mt5"])
def test_greedy_is_what_transformers_generates(t5: T5Folders, kind: Kind) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    student = t5.student(kind)
    generator, codec = opened(t5.onnx(student), batch_size=3)
    prompts = [codec.encode_prompt(question) for question in ASKED]
    prompts[2] = prompts[2][-2:]  # as ragged as can be
    found = generator.generate(prompts, SamplingParams(NUM_TOKENS), Limits(codec.eos_ids, codec.max_context))
    # without cache: with one, transformers 4.57 fails for a decoder deeper than the encoder
    model = AutoModelForSeq2SeqLM.from_pretrained(student).eval()
    for prompt, sequence in zip(prompts, found, strict=True):
        found_ids = model.generate(torch.tensor([prompt]), max_new_tokens=NUM_TOKENS, do_sample=False, use_cache=False)
        expected = found_ids[0, 1:].tolist()
        assert [*sequence.ids, *([1] if sequence.finish_reason == "eos" else [])] == expected
        assert tuple(generator.stream(prompt, NUM_TOKENS, Limits(codec.eos_ids, codec.max_context))) == sequence.ids


def assert_same(found: GeneratedTokens, expected: GeneratedTokens) -> None:
    assert (found.ids, found.finish_reason) == (expected.ids, expected.finish_reason)
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert found.entropies == pytest.approx(expected.entropies, abs=1e-4)


def test_branches_and_forced_tokens_are_those_of_separate_passes(t5: T5Folders) -> None:
    generator, codec = opened(t5.onnx(t5.trained()))
    params = SamplingParams(NUM_TOKENS, temperature=1.5)
    requests = []
    for number, question in enumerate(ASKED):
        completion = tuple(codec.encode_completion(join(*make_sum(number, 9)[1:])))
        ends = (0, 3 + number, len(completion))
        points = tuple(BranchPoint(end, (number, end + 7), (5, 6)[: end % 3]) for end in ends)
        requests.append(TreeRequest(tuple(codec.encode_prompt(question)), completion, points))
    results = generator.generate_trees(requests, params, NO_END)
    for request, result in zip(requests, results, strict=True):
        for point, branches, forced in zip(request.points, result.branches, result.forced, strict=True):
            prefix = request.completion_ids[: point.num_tokens]
            for seed, branch in zip(point.seeds, branches, strict=True):
                assert_same(branch, generate_one(generator.graph, request.prompt_ids, params, NO_END, seed, prefix))
            if point.forced_ids:
                expected = force_one(generator.graph, request.prompt_ids, (*prefix, *point.forced_ids))
                assert forced is not None
                assert (forced.id, forced.entropy) == (expected.id, pytest.approx(expected.entropy, abs=1e-4))
            else:
                assert forced is None


def test_the_context_is_shared_by_prompt_and_completion(t5: T5Folders) -> None:
    generator, codec = opened(t5.onnx(t5.student()))
    prompts = [codec.encode_prompt(question) for question in ASKED[:3]]
    longest = max(map(len, prompts)) + 4
    found = generator.generate(prompts, SamplingParams(99), Limits(frozenset(), longest))
    assert [len(sequence.ids) for sequence in found] == [longest - len(prompt) for prompt in prompts]


def test_all_scores_are_the_same_for_one_question_at_a_time(t5: T5Folders) -> None:
    folder = t5.onnx(t5.trained())
    config = ScoringConfig(num_branches=2, num_explanations=2, max_explanation_tokens=40, max_branch_tokens=40)
    asked = [example.question for example in TAUGHT[:3]]
    together, alone = (Student.open(folder, EngineOptions(batch_size=size)) for size in (64, 1))
    known: dict[TreeParams, list[list[ReasoningTree]]] = {}
    with together, alone:
        for name, strategy in STRATEGIES.items():
            params = tree_params(name, config, 3)
            if params not in known:
                known[params] = [list(student.generate_trees(asked, params)) for student in (together, alone)]
            values = [[found.value for found in score(trees, name, seed=3)] for trees in known[params]]
            assert values[0] == pytest.approx(values[1], abs=1e-4), name
            if strategy.needs_branches:
                assert all(len(tree.branches) == len(tree.steps) + 1 > 1 for tree in known[params][0])


def test_steps_are_continued_where_they_end(t5: T5Folders) -> None:
    with Student.open(t5.onnx(t5.trained())) as student:
        items = [(example.question, example.steps[:count]) for example in TAUGHT[:4] for count in range(4)]
        together = student.continue_from(items, 40)
        assert together == [student.continue_from([item], 40)[0] for item in items]
        whole = {tree.question.id: tree.text for tree in student.explain([e.question for e in TAUGHT[:4]], 40)}
    assert [together[place] for place in (0, 4, 8, 12)] == list(whole.values())  # after no step: the explanation


@pytest.mark.parametrize(("quantize", "share"), [("int8", 0.45), ("int4", 0.35)])
@pytest.mark.parametrize("kind", ["t5", "t5-1.1"])
def test_quantized_graphs_share_their_tables_and_are_near(
    t5: T5Folders, kind: Kind, quantize: str, share: float
) -> None:
    student = t5.student(kind)
    folder = t5.onnx(student, quantize)
    fp32, small = GraphFiles(folder), GraphFiles(folder, quantize)  # type: ignore[arg-type]
    assert small.weights.stat().st_size < share * fp32.weights.stat().st_size
    # a tied head and the embedding of encoder and decoder are stored once
    assert fp32.weights.stat().st_size < 1.1 * (student / "model.safetensors").stat().st_size
    codec = Codec.load(folder)
    prompt = codec.encode_prompt(ASKED[0])
    found = []
    for files in (fp32, small):
        graph = open_standard(files, codec)
        cache, _ = graph.begin([prompt])
        tokens = np.array([[0, 5, 9]])
        found.append(graph.step(tokens, np.ones_like(tokens), np.arange(3)[None], cache)[0])
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > (0.99 if quantize == "int8" else 0.9)


def test_export_reports_what_it_made(t5: T5Folders, tmp_path: Path) -> None:
    config = ExportConfig(num_parity_prompts=2)
    result = export_student(t5.student(), tmp_path / "onnx", config, parity_questions=ASKED, previous=tmp_path)
    assert result.graphs == "standard"
    assert "an encoder-decoder" in result.warnings[0]
    assert result.greedy_identical
    files = GraphFiles(result.folder)
    expected = {files.encoder, files.decoder, files.weights}
    assert {path.name for path in expected} == {"encoder_model.onnx", "decoder_model_merged.onnx", "model.onnx_data"}
    assert result.model_bytes == sum(path.stat().st_size for path in expected)
    assert result.model == files.decoder
    assert set(GraphFiles(result.folder).existing()) == expected


# --- packages -------------------------------------------------------------------------------------------------------


def test_a_package_verifies_and_lists_every_graph(package: Path, tmp_path: Path) -> None:
    report = verify_package(package)
    assert report.is_ok, report.text()
    manifest = open_package(package).manifest
    small = GraphFiles(Path(ONNX_FOLDER), "int8")
    assert {path.as_posix() for path in (small.encoder, small.decoder, small.weights)} <= manifest.paths
    assert manifest.graph == manifest.standard_graph == small.decoder.as_posix()
    with edgeelad.load(package) as student:
        explanation = student.explain(TAUGHT[0].question)
        assert "".join(student.stream(TAUGHT[0].question)) == explanation.text
    assert len(explanation.steps) == 3


@pytest.mark.parametrize("damage", ["missing", "altered", "unlisted", "foreign", "operator"])
def test_an_encoder_of_a_stranger_is_not_opened(package: Path, tmp_path: Path, damage: str) -> None:
    import onnx
    from onnx import TensorProto, helper

    copy = shutil.copytree(package, tmp_path / "copy")
    encoder = GraphFiles(copy / ONNX_FOLDER, "int8").encoder
    manifest = read_json(copy / "manifest.json")
    if damage == "missing":
        encoder.unlink()
    elif damage == "altered":
        encoder.write_bytes(encoder.read_bytes() + b"\0")
    elif damage == "unlisted":
        name = encoder.relative_to(copy).as_posix()
        manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != name]
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    elif damage == "foreign":  # a graph that would be opened instead
        shutil.copy(encoder, GraphFiles(copy, "int8").encoder)
        shutil.copy(GraphFiles(copy / ONNX_FOLDER, "int8").decoder, GraphFiles(copy, "int8").decoder)
    else:
        node = helper.make_node("Loop", ["n", "c"], ["last_hidden_state"], body=helper.make_graph([], "b", [], []))
        value = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1])
        onnx.save(helper.make_model(helper.make_graph([node], "g", [], [value])), str(encoder))
        with pytest.raises(ModelError, match="runs the operator 'Loop'"):
            Student.open(copy)
    with pytest.raises(PackageError):
        open_package(copy)


def test_a_decoder_of_another_student_is_refused(t5: T5Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(t5.onnx(t5.student()), tmp_path / "onnx")
    config = read_json(folder / "config.json")
    for change, message in (
        ({"d_kv": 16}, "they belong to different students"),
        ({"vocab_size": config["vocab_size"] + 9}, "they belong to different students"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id is None"),
        ({"is_encoder_decoder": False}, "not a decoder with cache and standard names"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
        with pytest.raises(ModelError, match=message):
            Student.open(folder)


def test_optimum_loads_a_package_and_generates_the_same(package: Path) -> None:
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    model = ORTModelForSeq2SeqLM.from_pretrained(package, subfolder="onnx")
    codec = Codec.load(package)
    with Student.open(package) as student:
        trees = student.explain([example.question for example in TAUGHT[:2]], 40)
    for tree in trees:
        ids = torch.tensor([codec.encode_prompt(tree.question)])
        found = model.generate(ids, max_new_tokens=40, do_sample=False)[0].tolist()
        assert codec.decode(found) == tree.text


# --- a run ----------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    assert not result.exit_code, result.output
    return result.stdout


def test_one_round_of_distillation_and_the_commands_of_its_package(
    t5: T5Folders, small_run: SmallRun, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = (
        f'student.model="{t5.trained()}"',
        "selection.num_rounds=1",
        "selection.batch_size=4",
        "stopping.audit_size=4",
        "pool.limit=16",
        "pool.max_test=4",
        "training.max_steps=6",
    )
    with TeacherServer() as server:
        config = small_run.write_config(out, server.url, *settings)
        command("distill", str(config), "--quiet")
        assert json.loads(command("distill", "--resume", str(out), "--quiet", "--json"))["rounds"] == 1
    for number in ("00", "01"):
        assert GraphFiles(out / "rounds" / number / "onnx").encoder.is_file()
    rows = list(read_jsonl(out / "rounds" / "01" / "scores.jsonl"))
    assert all(len(row["branch_answers"]) == len(row["steps"]) + 1 for row in rows)
    package, test = str(out / "package"), str(tmp_path / "test.jsonl")
    write_jsonl(Path(test), list(read_jsonl(small_run.folder / "test.jsonl"))[:4])
    asked = json.loads(command("run", package, TAUGHT[0].question.text, "--json", "--max-tokens", "40"))
    assert set(asked) >= {"question", "steps", "answer", "text"}
    options = ("--workers", "1", "--max-tokens", "24", "--json")
    assert json.loads(command("eval", "--model", package, "--data", test, *options))["num_questions"] == 4
    scores = str(tmp_path / "scores.jsonl")
    assert json.loads(command("score", "--model", package, "--pool", test, "--out", scores, *options))["questions"] == 4
    command("verify", package)
