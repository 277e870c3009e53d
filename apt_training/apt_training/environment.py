"""Environment variables of processes that are started."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment_variables(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables within the block, for processes that start in it: numpy and torch read them on import."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
