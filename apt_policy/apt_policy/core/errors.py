"""Base class of the errors that a user can put right."""

from collections.abc import Iterable


class UserError(Exception):
    """Mistake in what a user gave: arguments, files, a robot, or a machine that lacks something.

    A program prints its message as one line, without a traceback, and ends with a status other than 0. The message
    says what was got, what was expected, and what to do.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the nearest of the known words; empty where none is near.

    Args:
        word: what was typed.
        known: what could have been typed.
    """
    from difflib import get_close_matches  # Takes longer to import than the rest of what stops a robot.
    near = get_close_matches(word, list(known), n=1)
    return f'; did you mean {near[0]}?' if near else ''
