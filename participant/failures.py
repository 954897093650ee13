# SPDX-License-Identifier: Apache-2.0
"""What a task's code raised, in words, and where in the task's own file."""

from pathlib import Path

MESSAGE_LIMIT = 500
TRAINING_FAILED = "training-failed"
"""The code of a training that the task's own code did not let come to its end."""
SOURCE = "__source__"
"""The name under which a module that was loaded from a task's file has the file's bytes."""


def describe_failure(error: BaseException) -> str:
    """What was raised, in one bounded text, with the last line of the task's own file that it passed.

    Where it passed none (a model and data that do not fit each other), with the last line at all.
    """
    last = own = ""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        last = f" ({Path(frame.f_code.co_filename).name}, line {traceback.tb_lineno})"
        own = last if SOURCE in frame.f_globals else own
        traceback = traceback.tb_next
    return f"{type(error).__name__}: {str(error)[:MESSAGE_LIMIT]}{own or last}"
