"""A DDS domain of its own for each test that needs one."""

from collections.abc import Iterator

import pytest
from domain_coordinator import domain_id


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A domain that no other test on this machine uses; nothing leaves the machine."""
    with domain_id() as domain:
        monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
        monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        yield
