"""Every error that edgeelad raises on purpose.

A message says what is wrong, where, and what to do; the command line shows it as one line. The tree:

    EdgeeladError                    exit code 1
    ├── InputError                   unusable input
    │   ├── ConfigError              the configuration (exit code 2)
    │   ├── UsageError               arguments that contradict each other (exit code 2)
    │   ├── PoolError                a pool: names file, line and field
    │   ├── ModelError               a student folder, an ONNX graph, a tokenizer
    │   ├── PackageError             a package folder: missing, torn or altered files
    │   └── PromptTooLongError       a question that does not fit the student's context
    ├── MissingExtraError            a missing optional dependency: names the pip command
    ├── HubError                     the Hugging Face Hub: no connection, no access, no such repository
    ├── RunError                     a run folder: locked, damaged, not resumable
    ├── StorageError                 a full disk, a folder that is not writable
    ├── ParityError                  ONNX and torch disagree: carries the figures
    ├── TrainingError                fine-tuning failed (loss is not finite, nothing to train on)
    └── TeacherError                 the teacher's side; `is_retryable`: the same request may be sent again
        ├── TeacherUnavailableError  no connection, timeouts, server errors after all retries
        ├── TeacherRefusedError      credentials, quota, unknown model: final
        ├── TeacherReplyError        an unusable reply
        ├── CompletionCapError       replies end at the completion cap before they can be read: raise it, then resume
        └── BudgetError              a cap would be exceeded (exit code 3, everything is kept)
"""

from __future__ import annotations


class EdgeeladError(Exception):
    """Base of all errors raised on purpose; `exit_code` is the exit code of the command line."""

    exit_code = 1


class InputError(EdgeeladError):
    """Input from the user cannot be used."""


class ConfigError(InputError):
    """The configuration is wrong: unknown keys, values out of range, keys that contradict each other."""

    exit_code = 2


class UsageError(InputError):
    """Arguments are missing, or contradict each other."""

    exit_code = 2


class PoolError(InputError):
    """A pool or one of its rows cannot be used; the message names file, line, field and remedy."""


class ModelError(InputError):
    """A student folder, an ONNX graph or a tokenizer cannot be used."""


class PackageError(InputError):
    """A package is incomplete, damaged or altered."""


class PromptTooLongError(InputError):
    """A question leaves no room for an explanation in the student's context."""


class MissingExtraError(EdgeeladError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {module}, which is not installed; install it with: pip install 'edgeelad[{extra}]'"
        )


class HubError(EdgeeladError):
    """The Hugging Face Hub cannot be reached or refuses, or a repository on it is no package."""


class RunError(EdgeeladError):
    """A run folder is locked by another process or damaged, or cannot be resumed."""


class StorageError(EdgeeladError):
    """A file or folder cannot be written: full disk, no permission, not a folder."""


class ParityError(EdgeeladError):
    """The exported student and the torch student compute different things."""


class TrainingError(EdgeeladError):
    """Fine-tuning failed."""


class TeacherError(EdgeeladError):
    """The teacher failed; `is_retryable` says whether the same request may be sent again."""

    is_retryable = False


class TeacherUnavailableError(TeacherError):
    """No connection, a timeout, or a server error, after all retries."""

    is_retryable = True


class TeacherRefusedError(TeacherError):
    """The teacher refused finally: credentials, quota, permission, unknown model or malformed request."""


class TeacherReplyError(TeacherError):
    """The teacher's reply cannot be used."""


class CompletionCapError(TeacherError):
    """Reply after reply ends at the completion cap and cannot be read; everything so far is kept."""


class BudgetError(TeacherError):
    """The next request could exceed a cap in money, tokens, requests or questions; everything so far is kept."""

    exit_code = 3
