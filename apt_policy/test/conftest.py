"""Which tests are live, and the order of all."""

from pathlib import Path

import pytest

LIVE = Path(__file__).parent / 'ros'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Live nodes last: they live until the session ends, and beside their threads a planner is ten times slower."""
    for item in items:
        if LIVE in item.path.parents:
            item.add_marker(pytest.mark.live)
    items.sort(key=lambda item: item.get_closest_marker('live') is not None)
