"""The order of the tests."""

from pathlib import Path

import pytest

LIVE = Path(__file__).parent / 'ros'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Live nodes last: they live until the session ends, and beside their threads a planner is ten times slower."""
    items.sort(key=lambda item: LIVE in item.path.parents)
