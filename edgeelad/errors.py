"""Every error that edgeelad raises on purpose.

A message says what is wrong, where, and what to do; the command line prints it as one line. The tree:

    EdgeeladError                    exit code 1
    ├── InputError                   something the user gave cannot be used
    │   ├── ConfigError              the run configuration (exit code 2)
    │   ├── UsageError               flags that do not go together (exit code 2)
    │   ├── PoolError                a pool file: names file, line and field
    │   ├── ModelError               a student folder, an ONNX graph, a tokenizer
    │   ├── PackageError             a package folder: missing, torn or altered files
    │   └── PromptTooLongError       a prompt that does not fit the student's context
    ├── MissingExtraError            an optional dependency is not installed: names the pip command
    ├── RunError                     a run folder: locked, from another version, not resumable
    ├── StorageError                 the disk is full or not writable
    ├── ParityError                  ONNX and torch disagree: carries the figures
    ├── TrainingError                fine-tuning cannot go on (loss is not finite, nothing to train on)
    └── TeacherError                 the teacher's side; `is_retryable` says whether the same call may be sent again
        ├── TeacherUnavailableError  no connection, timeouts, 5xx after all retries
        ├── TeacherRefusedError      credentials, quota, unknown model: final
        ├── TeacherReplyError        a reply that cannot be used
        ├── CompletionCapError       replies end at the completion cap before they can be read: raise it, then resume
        └── BudgetError              a cap would be passed (exit code 3, everything kept)
"""

from __future__ import annotations


class EdgeeladError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 1


class InputError(EdgeeladError):
    """Something that the user gave cannot be used."""


class ConfigError(InputError):
    """The run configuration is wrong: unknown key, value out of range, keys that contradict each other."""

    exit_code = 2


class UsageError(InputError):
    """Command-line flags that do not go together."""

    exit_code = 2


class PoolError(InputError):
    """A pool file or row cannot be read; the message names file, line, field and remedy."""


class ModelError(InputError):
    """A student folder, an ONNX graph or a tokenizer cannot be used."""


class PackageError(InputError):
    """A package folder is missing files, torn or altered."""


class PromptTooLongError(InputError):
    """A prompt leaves no room for an explanation in the student's context."""


class MissingExtraError(EdgeeladError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {module}, which is not installed; install it with: pip install 'edgeelad[{extra}]'"
        )


class RunError(EdgeeladError):
    """A run folder is locked by another process, damaged, or cannot be resumed."""


class StorageError(EdgeeladError):
    """A file or folder cannot be written: disk full, no permission, not a folder."""


class ParityError(EdgeeladError):
    """The exported student does not compute what the torch student computes."""


class TrainingError(EdgeeladError):
    """Fine-tuning cannot go on."""


class TeacherError(EdgeeladError):
    """The teacher's side failed; `is_retryable` says whether sending the same request again is safe and sensible."""

    is_retryable = False


class TeacherUnavailableError(TeacherError):
    """No connection, a timeout, or a server error, after all retries."""

    is_retryable = True


class TeacherRefusedError(TeacherError):
    """The teacher refused for good: credentials, quota, permission, unknown model or malformed request."""


class TeacherReplyError(TeacherError):
    """The teacher replied with something that cannot be used."""


class CompletionCapError(TeacherError):
    """Reply after reply ends at the completion cap and cannot be read; everything so far is kept."""


class BudgetError(TeacherError):
    """A cap in money, tokens, requests or questions would be passed by the next call; everything so far is kept."""

    exit_code = 3
