"""Where the interfaces repeat what Python says, both say the same."""

from apt_msgs.action import RunPolicy
from apt_msgs.msg import PolicyStatus
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from tf2_msgs.msg import TFMessage

from apt_policy.core.sample import HoldReason


def test_hold_reasons_of_the_message_are_those_of_the_code():
    constants = {name.removeprefix('HOLD_'): getattr(PolicyStatus, name)
                 for name in dir(type(PolicyStatus)) + dir(PolicyStatus) if name.startswith('HOLD_')}
    assert constants == {reason.name: reason.value for reason in HoldReason}


def test_termination_reasons_are_distinct_and_never_zero():
    """Zero is what a result nobody filled in would say."""
    result = RunPolicy.Result
    reasons = [result.TIME_UP, result.CANCELED, result.DISABLED, result.DEACTIVATED, result.FAILED,
               result.CLIENT_GONE]
    assert len(set(reasons)) == len(reasons)
    assert 0 not in reasons


def test_the_underlay_is_wire_compatible():
    assert TFMessage.get_fields_and_field_types() == {
        'transforms': 'sequence<geometry_msgs/TransformStamped>'}
    assert JointGroupCommand.get_fields_and_field_types() == {'name': 'string', 'cmd': 'sequence<float>'}
    assert JointSingleCommand.get_fields_and_field_types() == {'name': 'string', 'cmd': 'float'}
