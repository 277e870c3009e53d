"""Who else publishes on a topic of ours."""

import pytest

from apt_policy.ros.graph_monitor import exclude_own_publisher

OWN = ('apt_policy', '/')
UNNAMED = ('_NODE_NAME_UNKNOWN_', '_NODE_NAMESPACE_UNKNOWN_')
OTHER = ('teleop', '/')


@pytest.mark.parametrize(('found', 'expected'), [
    ([OWN], []),
    ([OWN, OWN], [OWN]),
    ([OTHER, OWN], [OTHER]),
    ([UNNAMED], []),
    ([UNNAMED, OWN], [UNNAMED]),
    ([UNNAMED, UNNAMED], [UNNAMED]),
    ([OTHER], [OTHER]),
])
def test_exactly_one_publisher_is_ours_even_while_the_graph_has_lost_its_name(found, expected):
    assert exclude_own_publisher(found, OWN) == expected
