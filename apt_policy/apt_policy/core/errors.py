"""Base class of the errors that a user can put right."""


class UserError(Exception):
    """Mistake in what a user gave: arguments, files, a robot, or a machine that lacks something.

    A program prints its message as one line and ends with status 2, without a traceback. The message says what was
    got, what was expected, and what to do.
    """
