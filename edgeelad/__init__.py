"""Explanation-guided active distillation of reasoning into small ONNX students (ELAD, arXiv 2402.13098).

    import edgeelad

    with edgeelad.load("runs/a/package") as student:        # torch is not needed
        print(student.explain("Tom has 3 apples and buys 4 more. How many does he have?"))

    for record in edgeelad.score("runs/a/package", "pool.jsonl"):
        print(record.question.id, record.score)

    edgeelad.distill({"pool": {"path": "pool.jsonl"}, "student": {"model": "DIR"}, "teacher": {"kind": "dataset"}})

Names are loaded when they are first used, so that `import edgeelad` takes a few milliseconds.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeelad import errors
    from edgeelad.api.distill import distill
    from edgeelad.api.events import Event, Message, StageAdvanced, StageEnded, StageStarted, Warned
    from edgeelad.api.score import ScoredQuestion, evaluate, score
    from edgeelad.api.student import Explanation, LoadedStudent, load
    from edgeelad.config import RunConfig, TeacherConfig, load_config
    from edgeelad.pool import read_pool
    from edgeelad.records import Evaluation, Question, ReasoningTree
    from edgeelad.run.records import Summary
    from edgeelad.teacher.protocol import AnswerReply, ChainReply, FirstErrorReply, JudgeReply, Teacher
    from edgeelad.uncertainty import Strategy

__version__ = "0.1.0"

# read when onnxruntime is imported: without it, recent versions keep a device id and send usage events
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "AnswerReply",
    "ChainReply",
    "Evaluation",
    "Event",
    "Explanation",
    "FirstErrorReply",
    "JudgeReply",
    "LoadedStudent",
    "Message",
    "Question",
    "ReasoningTree",
    "RunConfig",
    "ScoredQuestion",
    "StageAdvanced",
    "StageEnded",
    "StageStarted",
    "Strategy",
    "Summary",
    "Teacher",
    "TeacherConfig",
    "Warned",
    "distill",
    "errors",
    "evaluate",
    "load",
    "load_config",
    "read_pool",
    "score",
]

_MODULES = {
    "edgeelad.api.distill": ("distill",),
    "edgeelad.api.events": ("Event", "Message", "StageAdvanced", "StageEnded", "StageStarted", "Warned"),
    "edgeelad.api.score": ("ScoredQuestion", "evaluate", "score"),
    "edgeelad.api.student": ("Explanation", "LoadedStudent", "load"),
    "edgeelad.config": ("RunConfig", "TeacherConfig", "load_config"),
    "edgeelad.pool": ("read_pool",),
    "edgeelad.records": ("Evaluation", "Question", "ReasoningTree"),
    "edgeelad.run.records": ("Summary",),
    "edgeelad.teacher.protocol": ("AnswerReply", "ChainReply", "FirstErrorReply", "JudgeReply", "Teacher"),
    "edgeelad.uncertainty": ("Strategy",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a name of the API (PEP 562)."""
    if name == "errors":
        return importlib.import_module("edgeelad.errors")
    if name not in _PLACES:
        raise AttributeError(f"module 'edgeelad' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
