import json
import shutil
from pathlib import Path

import pytest
from fixtures.students import EOS_TOKEN, EXTRA_TEXT, FAMILIES, MAX_CONTEXT, make_sum, make_tokenizer, questions
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgeelad.engine.codec import Codec
from edgeelad.errors import ModelError
from edgeelad.records import Question
from edgeelad.text.explanation import join
from edgeelad.text.prompts import PromptFormat

unhurried = settings(deadline=None, max_examples=60)
TEXTS = [*EXTRA_TEXT, "", " ", "\n\n", "a\r\nb", "The answer is 5", join(*make_sum(3, 4)[1:]), "12345 + 0.5 = 1/3 – ok"]


def make_codec(**config) -> Codec:
    return Codec(make_tokenizer(), PromptFormat(), config, eos_ids=[2], max_context=64)


CODEC = make_codec()


@pytest.fixture
def folder(students, tmp_path) -> Path:
    """A copy of a student folder, to be damaged."""
    return Path(shutil.copytree(students.plain(), tmp_path / "student"))


def edit(path: Path, **changes) -> None:
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: item for key, item in value.items() if item != "gone"}), encoding="utf-8")


@pytest.mark.parametrize("has_bos", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(students, family, has_bos):
    from transformers import AutoTokenizer

    folder = students.plain(family, has_bos=has_bos)
    codec, theirs = Codec.load(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert codec.encode_completion(text) == theirs(text, add_special_tokens=False)["input_ids"]
        assert codec.decode(codec.encode_completion(text)) == theirs.decode(
            theirs(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True
        )
    for question in questions(8):
        prompt = codec.encode_prompt(question)
        assert prompt == theirs(codec.prompt_format.render(question))["input_ids"]
        assert (prompt[0] == theirs.bos_token_id) == has_bos
    assert codec.max_context == MAX_CONTEXT
    assert codec.vocab_size == len(theirs)
    assert codec.eos_ids == {theirs.eos_token_id}


@unhurried
@given(st.text())
def test_completions_survive_encoding_and_decoding(text):
    special = make_tokenizer().get_added_tokens_decoder().values()
    for token in special:
        text = text.replace(token.content, "")
    assert CODEC.decode(CODEC.encode_completion(text)) == text


@unhurried
@given(st.text())
def test_streamed_pieces_are_whole_characters_and_join_to_the_text(text):
    ids = CODEC.encode_completion(text)
    pieces = list(CODEC.stream(iter(ids)))
    assert "".join(pieces) == CODEC.decode(ids)
    assert all(pieces)
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_the_shared_prompt_is_what_every_prompt_begins_with():
    text = "Solve it, one step per line.\n\n"
    codec = Codec(make_tokenizer(), PromptFormat(text + "{{ question }}"), {}, eos_ids=[2], max_context=64)
    shared = codec.shared_prompt()
    assert text.startswith(codec.decode(shared).rstrip("\n"))
    for question in questions(8):
        assert codec.encode_prompt(question)[: len(shared)] == shared
    for template in ("{{ question }}", "{{ question }} is asked"):
        codec = Codec(make_tokenizer(), PromptFormat(template), {}, eos_ids=[2], max_context=64)
        assert codec.shared_prompt() == []


def test_a_character_of_several_tokens_comes_in_one_piece():
    ids = CODEC.encode_completion("5 🤖 €")
    assert len(ids) > len("5 🤖 €")
    assert [piece for piece in CODEC.stream(ids) if "🤖" in piece]


def test_bytes_that_never_become_a_character_come_last():
    broken = CODEC.encode_completion("ok 🤖")[:-1]
    assert list(CODEC.stream(broken))[-1].startswith("\N{REPLACEMENT CHARACTER}")
    assert "".join(CODEC.stream(broken)) == CODEC.decode(broken)


def test_text_before_broken_bytes_is_not_held_back():
    start, bytes_ = CODEC.encode_completion("ok"), CODEC.encode_completion("🤖")[:1]
    taken = []
    pieces = CODEC.stream(taken.append(token) or token for token in start + bytes_)
    shown = ""
    while len(shown) < 2:
        shown += next(pieces)
    assert shown == "ok"
    assert taken == start


def make_byte_fallback() -> Codec:
    """A tokenizer that writes characters it does not know as bytes, as SentencePiece's do."""
    vocabulary = {"<unk>": 0, "▁": 1, "a": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return Codec(tokenizer, PromptFormat(), {}, eos_ids=[], max_context=9)


@unhurried
@given(st.lists(st.one_of(st.sampled_from([1, 2]), st.integers(3, 258)), max_size=8))
def test_pieces_join_to_the_text_where_broken_bytes_change_what_came_before(ids):
    codec = make_byte_fallback()
    assert "".join(codec.stream(ids)) == codec.decode(ids)


def test_a_broken_byte_takes_the_newline_before_it_along():
    codec = make_byte_fallback()
    assert codec.decode([2, 3 + 0x0A]) == "a\n"
    assert codec.decode([2, 3 + 0x0A, 3 + 0xFF]) == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert list(codec.stream([2, 3 + 0x0A, 2])) == ["a", "\na"]
    assert [id_ for id_ in range(codec.vocab_size) if id_ in codec.newline_ids] == [3 + 0x0A]


def test_newline_ids_are_the_tokens_with_a_newline():
    vocabulary = make_tokenizer().get_vocab()
    expected = {id_ for token, id_ in vocabulary.items() if "Ċ" in token}
    assert {id_ for id_ in range(CODEC.vocab_size + 1) if id_ in CODEC.newline_ids} == expected
    assert expected


def test_a_line_after_a_newline_is_encoded_as_it_stands_there():
    # a tokenizer that marks the start of a text, as SentencePiece does
    vocabulary = {"<unk>": 0, "▁a": 1, "a": 2, "\n": 3, "▁": 4}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    codec = Codec(tokenizer, PromptFormat(), {}, eos_ids=[], max_context=9)
    assert codec.encode_line("a", is_first=True) == [1]
    assert codec.encode_completion("\na") == [4, 3, 2]
    assert codec.encode_line("a", is_first=False) == [2]


def test_end_tokens_are_a_set(folder):
    generation = folder / "generation_config.json"
    eos = Codec.load(folder).eos_ids
    assert len(eos) == 1
    edit(generation, eos_token_id=[*eos, 7, 8])
    assert Codec.load(folder).eos_ids == {*eos, 7, 8}
    generation.unlink()
    edit(folder / "config.json", eos_token_id=9)
    assert Codec.load(folder).eos_ids == {*eos, 9}  # and the token that training ends examples with
    edit(folder / "config.json", eos_token_id=None)
    assert Codec.load(folder).eos_ids == eos
    assert PromptFormat.load(folder).eos_token == EOS_TOKEN


def test_the_context_has_many_names(folder):
    edit(folder / "config.json", max_position_embeddings="gone", n_positions=77)
    assert Codec.load(folder).max_context == 77


def test_a_byte_order_mark_in_a_file_is_dropped(folder):
    expected = Codec.load(folder)
    for name in ("config.json", "prompt.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    found = Codec.load(folder)
    assert (found.max_context, found.prompt_format) == (expected.max_context, expected.prompt_format)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: missing"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: missing"),
        (lambda folder: (folder / "prompt.json").unlink(), "prompt.json: missing"),
        (lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"), "config.json: cannot be read"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"), "config.json: cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]", encoding="utf-8"), "config.json: not a JSON object"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}", encoding="utf-8"), "tokenizer.json: not a"),
        (lambda folder: (folder / "prompt.json").write_text("[]", encoding="utf-8"), "prompt.json: not a prompt file"),
        (lambda folder: edit(folder / "config.json", max_position_embeddings="gone"), "no context length"),
        (lambda folder: edit(folder / "config.json", max_position_embeddings="long"), "no context length"),
        (lambda folder: edit(folder / "config.json", vocab_size=10), "belong to different models"),
        (lambda folder: edit(folder / "generation_config.json", eos_token_id="</s>"), "eos_token_id is '</s>'"),
        (lambda folder: edit(folder / "generation_config.json", eos_token_id=[1, None]), "eos_token_id is [1, None]"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_clear_line(folder, damage, message):
    damage(folder)
    with pytest.raises(ModelError) as caught:
        Codec.load(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_question_is_rendered_with_its_choices(folder):
    codec = Codec.load(folder)
    question = Question("q", "Which is red?", "choice", ("sky", "blood"))
    assert "(A) sky\n(B) blood" in codec.decode(codec.encode_prompt(question))
