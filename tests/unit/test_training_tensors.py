"""What the loss is taken on: rows, labels, padding."""

from pathlib import Path

import pytest
import torch
from fixtures.students import Family, make_student, make_sum
from transformers import AutoModelForCausalLM

from edgeelad.engine.codec import Codec
from edgeelad.records import Example, Question
from edgeelad.training.tensors import IGNORED, EncodedExamples, InTurn, Row, collate, encode_examples

EOS = 2
EXAMPLES = [Example(*make_sum(a, b)) for a, b in ((1, 2), (9, 9), (30, 444), (5, 0))]


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return Codec.load(make_student(tmp_path_factory.mktemp("tensors") / "student", has_bos=True))


def only_rows(encoded: EncodedExamples) -> list[Row]:
    """Of examples with one explanation each."""
    return [row for (row,) in encoded.rows]


def test_a_row_is_prompt_completion_and_end_and_its_labels_leave_out_the_prompt(codec: Codec) -> None:
    encoded = encode_examples(EXAMPLES, codec, EOS)
    assert not encoded.skipped
    rows = only_rows(encoded)
    for example, row in zip(EXAMPLES, rows, strict=True):
        prompt = codec.encode_prompt(example.question)
        a, b = example.question.id.split("+")
        text = f"Start with {a}.\nAdd {b}.\n{a} + {b} = {example.answer}.\nThe answer is {example.answer}"
        completion = codec.encode_completion(text)
        assert row["input_ids"] == [*prompt, *completion, EOS]
        assert row["labels"] == [IGNORED] * len(prompt) + [*completion, EOS]
        assert prompt[0] == 1  # the begin token is part of the prompt, and there once
        assert prompt.count(1) == 1
        assert 1 not in completion
    assert encoded.num_label_tokens == sum(len(row["labels"]) - row["labels"].count(IGNORED) for row in rows)


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_batch_is_padded_on_the_right_and_padding_is_never_a_label(codec: Codec, multiple: int) -> None:
    rows = only_rows(encode_examples(EXAMPLES, codec, EOS))
    batch = collate(rows, pad_id=EOS, multiple=multiple)
    longest = max(len(row["input_ids"]) for row in rows)
    width = batch["input_ids"].shape[1]
    assert width == -(-longest // multiple) * multiple
    assert batch["labels"].shape == batch["input_ids"].shape == (len(rows), width)
    assert set(batch) == {"input_ids", "labels"}
    for index, row in enumerate(rows):
        length = len(row["input_ids"])
        assert batch["input_ids"][index].tolist() == row["input_ids"] + [EOS] * (width - length)
        assert batch["labels"][index].tolist() == row["labels"] + [IGNORED] * (width - length)
        # the one end token that is learned, although padding is the same token
        assert batch["labels"][index].tolist().count(EOS) == 1


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_leaving_out_the_attention_mask_changes_no_loss_and_no_gradient(
    codec: Codec, family: Family, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_student(tmp_path / family, family)).train()
    rows = only_rows(encode_examples(EXAMPLES, codec, EOS))
    batch = collate(rows, pad_id=EOS)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
    for module in model.modules():  # GPT-2 has dropout
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    losses, gradients = [], []
    for given in ({}, {"attention_mask": mask}):
        model.zero_grad()
        loss = model(**batch, **given).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6 * gradients[1].abs().max().item() + 1e-7)


def test_an_example_longer_than_the_context_is_skipped_with_its_reason(codec: Codec) -> None:
    question = Question("long", "What is " + "1 + " * 100 + "1?")
    fitting, steps, answer = make_sum(1, 2)
    encoded = encode_examples([Example(question, steps, answer), Example(fitting, steps, answer)], codec, EOS)
    assert len(encoded.rows) == 1
    (skipped,) = encoded.skipped
    assert skipped.question_id == "long"
    assert skipped.reason.endswith(f"tokens do not fit the student's context of {codec.max_context}")


def test_an_example_of_exactly_the_context_is_kept(codec: Codec) -> None:
    question, steps, answer = make_sum(1, 2)
    (row,) = only_rows(encode_examples([Example(question, steps, answer)], codec, EOS))
    room = codec.max_context - len(row["labels"])
    full = Example(Question("full", question.text + "q" * room), steps, answer)  # each q is one token
    (row,) = only_rows(encode_examples([full], codec, EOS))
    assert len(row["input_ids"]) == codec.max_context
    over = Example(Question("over", question.text + "q" * (room + 1)), steps, answer)
    assert encode_examples([over], codec, EOS).rows == []


def test_the_explanations_of_an_example_take_turns_and_one_too_long_is_left_out(codec: Codec) -> None:
    question, steps, answer = make_sum(1, 2)
    wordings = [steps, (*steps, "That is all."), ("So " + steps[0], *steps[1:])]
    too_long = ("1 + " * codec.max_context,)
    examples = [Example(question, too_long, answer, (wordings[0], too_long, *wordings[1:])), EXAMPLES[1]]
    encoded = encode_examples(examples, codec, EOS)
    assert not encoded.skipped
    alone = only_rows(encode_examples([Example(question, wording, answer) for wording in wordings], codec, EOS))
    other = only_rows(encode_examples([EXAMPLES[1]], codec, EOS))[0]
    assert encoded.rows == [tuple(alone), (other,)]
    rows = InTurn(encoded.rows)
    assert len(rows) == 2
    assert list(rows) == [alone[0], other]  # to read the lengths takes no turn
    read = [[rows[index] for index in (1, 0)] for _ in range(4)]
    assert read == [[other, row] for row in (*alone, alone[0])]
