"""What replies were billed, in the words of many endpoints."""

import random

import pytest
from fixtures.chaos_server import ChaosServer, Raw

from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError
from edgeelad.records import Question
from edgeelad.teacher.client.chat_client import ChatClient
from edgeelad.teacher.client.usage import Told, bill, read_usage
from edgeelad.teacher.ledger.budget import PICO, Reservation
from edgeelad.teacher.ledger.exchange import Billing
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.ledger.totals import run_totals
from edgeelad.teacher.openai_teacher import OpenAITeacher
from edgeelad.teacher.prompts.messages import Message

WANTED = Reservation(600, 512)
MESSAGES = (Message("user", "one two three four five six"),)


def count(text):
    return len(text.split())


def billed(body, content="seven eight", headers=None, tokens=count):
    return bill(read_usage(body, headers or {}), content, MESSAGES, WANTED, tokens)


OPENAI = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 50, "accepted_prediction_tokens": 0},
}
ANTHROPIC = {"input_tokens": 20, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 100, "output_tokens": 40}
GEMINI = {
    "promptTokenCount": 150,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 400,
    "cachedContentTokenCount": 32,
    "totalTokenCount": 570,
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usage": OPENAI}, Billing(100, 50, 64, 50)),
        # reasoning that is counted apart, with and without the total, with and without the details
        (
            {
                "usage": {
                    "prompt_tokens": 150,
                    "completion_tokens": 20,
                    "completion_tokens_details": {"reasoning_tokens": 400},
                    "total_tokens": 570,
                }
            },
            Billing(150, 420, 0, 400),
        ),
        ({"usage": {"prompt_tokens": 150, "completion_tokens": 20, "total_tokens": 570}}, Billing(150, 420)),
        (
            {
                "usage": {
                    "prompt_tokens": 150,
                    "completion_tokens": 20,
                    "completion_tokens_details": {"reasoning_tokens": 400},
                }
            },
            Billing(150, 420, 0, 400),
        ),
        ({"usage": {"prompt_tokens": 150.0, "completion_tokens": 20.0}}, Billing(150, 20)),
        ({"usage": {"prompt_tokens": "150", "completion_tokens": "20"}}, Billing(150, 20)),
        ({"usage": {"prompt_tokens": 149.2, "completion_tokens": 20}}, Billing(150, 20)),
        ({"usage": ANTHROPIC}, Billing(150, 40, 100)),
        ({"usage": {**ANTHROPIC, "cache_read_input_tokens": None}}, Billing(50, 40)),
        ({"usage": {"input_tokens": 150, "output_tokens": 20, "total_tokens": 170}}, Billing(150, 20)),
        # a proxy that adds OpenAI's names, and counts the cache in or out
        ({"usage": {**ANTHROPIC, "prompt_tokens": 150, "completion_tokens": 40}}, Billing(150, 40, 100)),
        (
            {
                "usage": {
                    "prompt_tokens": 20,
                    "completion_tokens": 40,
                    "cache_read_input_tokens": 100,
                    "total_tokens": 160,
                }
            },
            Billing(120, 40, 100),
        ),
        ({"usageMetadata": GEMINI}, Billing(150, 420, 32, 400)),
        ({"usage": None, "usage_metadata": GEMINI}, Billing(150, 420, 32, 400)),
        ({"usage": {"inputTokens": 150, "outputTokens": 20, "totalTokens": 170}}, Billing(150, 20)),
        ({"x_groq": {"usage": {"prompt_tokens": 150, "completion_tokens": 20}}}, Billing(150, 20)),
        ({"meta": {"billed_units": {"input_tokens": 150, "output_tokens": 20}}}, Billing(150, 20)),
        ({"prompt_eval_count": 150, "eval_count": 20}, Billing(150, 20)),
        ({"usage": {"prompt_tokens": 150, "total_tokens": 170}}, Billing(150, 20)),
        ({"usage": {"completion_tokens": 20, "total_tokens": 170}}, Billing(150, 20)),
        ({"usage": {"prompt_tokens": 150, "completion_tokens": 0, "total_tokens": 170}}, Billing(150, 20)),
        # a total that cannot be
        ({"usage": {"prompt_tokens": 150, "completion_tokens": 20, "total_tokens": 10**12}}, Billing(150, 20)),
        ({"usage": {"prompt_tokens": 150, "completion_tokens": 20, "total_tokens": 3}}, Billing(150, 20)),
    ],
)
def test_what_is_told_is_read_under_any_name(body, expected):
    assert billed(body) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # 6 words in one message, 2 in the reply
        (None, Billing(10, 2, is_estimated=True)),
        ({}, Billing(10, 2, is_estimated=True)),
        ([], Billing(10, 2, is_estimated=True)),
        ("many", Billing(10, 2, is_estimated=True)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Billing(10, 2, is_estimated=True)),
        ({"prompt_tokens": None, "completion_tokens": None}, Billing(10, 2, is_estimated=True)),
        ({"prompt_tokens": -1, "completion_tokens": "many"}, Billing(10, 2, is_estimated=True)),
        ({"prompt_tokens": True, "completion_tokens": float("nan")}, Billing(10, 2, is_estimated=True)),
        ({"prompt_tokens": 10**30, "completion_tokens": 10**30}, Billing(10, 2, is_estimated=True)),
        ({"prompt_tokens": 100_000, "completion_tokens": 30}, Billing(10, 30, is_estimated=True)),
        ({"prompt_tokens": 150, "completion_tokens": 0}, Billing(150, 2, is_estimated=True)),
        ({"prompt_tokens": 0, "completion_tokens": 20}, Billing(10, 20, is_estimated=True)),
        ({"total_tokens": 570}, Billing(10, 560, is_estimated=True)),
    ],
)
def test_what_is_not_told_is_an_estimate_and_marked_as_one(usage, expected):
    assert billed({"usage": usage}) == expected


def test_estimates_without_a_tokenizer_are_the_worst_case():
    assert billed({}, tokens=None) == Billing(600, 12, is_estimated=True)
    assert billed({}, "", tokens=None) == Billing(600, 1, is_estimated=True)
    assert billed({}, "") == Billing(10, 512, is_estimated=True)


def test_a_filtered_reply_may_have_cost_no_completion():
    assert billed({"usage": {"prompt_tokens": 150, "completion_tokens": 0, "total_tokens": 150}}, "") == Billing(150, 0)


@pytest.mark.parametrize(
    ("body", "headers", "usd"),
    [
        ({"usage": {"cost": 0.00123}}, {}, 0.00123),
        ({"usage": {"cost": "0.00123"}}, {}, 0.00123),
        ({"usage": {"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}}, {}, 0.0021),
        ({"usage": {"cost": 0.002, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.002}}}, {}, 0.002),
        ({"usage": {"cost": {"input_tokens_cost": 0.001, "total_cost": 0.006}}}, {}, 0.006),
        ({"usage": {"cost_in_usd_ticks": 12_300_000}}, {}, 0.00123),
        ({"usage": {"estimated_cost": 0.00004}}, {}, 0.00004),
        ({"providerMetadata": {"gateway": {"cost": "0.0045"}}}, {}, 0.0045),
        ({}, {"x-litellm-response-cost": "0.00042", "x-litellm-response-cost-original": "0.5"}, 0.00042),
        ({"usage": {"cost": 0.001}}, {"x-litellm-response-cost": "0.5"}, 0.001),
        # a proxy that does not know the price
        ({}, {"x-litellm-response-cost": "0.0"}, None),
        ({}, {"x-litellm-response-cost": "None"}, None),
        ({"usage": {"cost": 0}}, {"x-litellm-response-cost": "0.25"}, 0.25),
        ({"usage": {"cost": -1}}, {}, None),
        ({"usage": {"cost": 1e9}}, {}, None),
        ({"usage": {"cost": True}}, {}, None),
        ({}, {"x-ratelimit-cost": "7", "x-litellm-key-spend": "3.5"}, None),
    ],
)
def test_the_price_that_was_charged_is_read(body, headers, usd):
    told = read_usage(body, headers)
    assert told.cost_pico == (None if usd is None else round(usd * PICO))
    assert told == Told(cost_pico=told.cost_pico)


def chat(usage, **headers):
    message = '{"role": "assistant", "content": "{\\"answer\\": \\"7\\"}"}'
    body = f'{{"model": "m", "choices": [{{"message": {message}, "finish_reason": "stop"}}], "usage": {usage}}}'
    return Raw(200, body.encode(), headers)


def buy(server, path, num=100, **settings):
    """Ask until a cap binds; gives what was bought."""
    prices = {"usd_per_million_prompt": 0.1, "usd_per_million_completion": 1.0}
    config = TeacherConfig(url=server.url, model="m", api_key_env="", **{**prices, **settings})
    with Ledger(path) as ledger:
        client = ChatClient(config, ledger, run="r", sleep=lambda seconds: None, rng=random.Random(0))
        teacher = OpenAITeacher(client, config)
        try:
            for index in range(num):
                teacher.answer(Question(f"q{index}", f"What is {index}?"))
        finally:
            client.close()
    return run_totals(path, "r", config)


HIDDEN = '{"prompt_tokens": 150, "completion_tokens": 20, "total_tokens": 570}'


def test_a_cap_binds_on_hidden_reasoning(tmp_path):
    with ChaosServer(lambda number, body: chat(HIDDEN)) as server, pytest.raises(BudgetError, match="max_usd"):
        buy(server, tmp_path / "l", max_usd=0.008)
    totals = run_totals(tmp_path / "l", "r", TeacherConfig())
    assert totals.usage.cost_usd == pytest.approx(len(server.requests) * (150 * 0.1 + 420) / 1e6)
    assert 0.006 < totals.usage.cost_usd <= 0.008


def test_a_cap_binds_on_reasoning_beyond_the_completion_cap(tmp_path):
    usage = '{"prompt_tokens": 150, "completion_tokens": 2000}'
    with ChaosServer(lambda number, body: chat(usage)) as server, pytest.raises(BudgetError, match="completion_tokens"):
        buy(server, tmp_path / "l", max_completion_tokens_total=20_000)
    assert len(server.requests) == 10
    # the next process has learned it
    with ChaosServer(lambda number, body: chat(usage)) as server, pytest.raises(BudgetError):
        buy(server, tmp_path / "l", max_completion_tokens_total=21_999)
    assert server.requests == []


def test_a_cap_binds_on_the_price_that_was_charged(tmp_path):
    """Twenty times the configured prices."""
    usage = '{"prompt_tokens": 150, "completion_tokens": 20, "cost": 0.01}'
    with ChaosServer(lambda number, body: chat(usage)) as server, pytest.raises(BudgetError, match="max_usd"):
        buy(server, tmp_path / "l", max_usd=0.1)
    totals = run_totals(tmp_path / "l", "r", TeacherConfig())
    assert totals.usage.cost_usd == pytest.approx(0.01 * len(server.requests))
    assert 0.08 < totals.usage.cost_usd <= 0.1
    assert not totals.usage.is_estimated


def test_a_price_in_a_header_is_taken_though_no_prices_are_set(tmp_path):
    usage = '{"prompt_tokens": 150, "completion_tokens": 20}'
    free = {"usd_per_million_prompt": None, "usd_per_million_completion": None}
    with ChaosServer(lambda number, body: chat(usage, x_litellm_response_cost="0.002")) as server:
        totals = buy(server, tmp_path / "l", 3, **free)
    assert totals.usage.cost_usd == pytest.approx(0.006)


def test_a_cap_binds_where_all_counts_are_zero(tmp_path):
    usage = '{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}'
    with ChaosServer(lambda number, body: chat(usage)) as server, pytest.raises(BudgetError, match="max_prompt_tokens"):
        buy(server, tmp_path / "l", max_prompt_tokens=10_000)
    totals = run_totals(tmp_path / "l", "r", TeacherConfig())
    assert totals.usage.num_estimated == len(server.requests) > 0
    assert 0 < totals.usage.prompt_tokens <= 10_000
