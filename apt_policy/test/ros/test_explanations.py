"""What is told about a hold follows from its fields, never from its text."""

import pytest
import rclpy

from apt_policy.core.align import ObservationAssembler
from apt_policy.core.contract import contract_from_dict
from apt_policy.core.sample import Hold, HoldReason
from apt_policy.core.transforms import TransformBuffer
from apt_policy.inference.motion_checks import first_stale_stream
from apt_policy.ros.inputs import RobotInputs
from apt_policy.ros.policy_params import PolicyParams
from apt_policy.ros.status import HoldLog
from apt_policy.ros.stream_warnings import StreamWarnings


@pytest.fixture
def node(domain):
    node = rclpy.create_node('explained')
    yield node
    node.destroy_node()


@pytest.fixture
def two_cameras(contract_file):
    """The small robot with the cameras ``cam`` and ``cam_high``."""
    import yaml
    fields = yaml.safe_load(contract_file.read_text())
    fields['cameras'] = {'cam': {**fields['cameras']['top'], 'image_topic': 'cam/image', 'info_topic': 'cam/info'},
                         'cam_high': {**fields['cameras']['wrist'], 'image_topic': 'high/image',
                                      'info_topic': 'high/info'}}
    for arm in fields['arms'].values():
        arm['reference_cameras'] = ['cam', 'cam_high']
    return contract_from_dict(fields, source='the test')


@pytest.fixture
def inputs(node, two_cameras):
    """Subscriptions, and notes about each of their topics."""
    warnings = StreamWarnings(lambda text: None)
    assembler = ObservationAssembler(two_cameras, TransformBuffer())
    for topic in ('/cam/image', '/high/image', '/left/joint_states', '/tf'):
        warnings.report_persistent(topic, f'note on {topic}')
    inputs = RobotInputs(node, two_cameras, PolicyParams(contract=''), assembler, warnings)
    yield inputs, assembler
    inputs.close()


def test_a_camera_whose_name_begins_like_another_gets_its_own_notes(inputs):
    inputs, _ = inputs
    assert inputs.warnings_for('cam') == ('note on /cam/image',)
    assert inputs.warnings_for('cam_high') == ('note on /high/image',)


def test_every_stream_that_can_be_late_leads_to_the_notes_on_its_topics(inputs):
    inputs, assembler = inputs
    reports = {report.stream: report for report in assembler.ages(10**9)}
    late = {name: first_stale_stream([report]) for name, report in reports.items()}
    assert {name: hold.stream for name, hold in late.items()} == {name: name for name in reports}
    told = {name: inputs.warnings_for(hold.stream) for name, hold in late.items()}
    assert told == {
        'cam': ('note on /cam/image',), 'cam_high': ('note on /high/image',),
        'left joint_states': ('note on /left/joint_states',), 'right joint_states': (),
        'TF left/base -> left/ee': ('note on /tf',), 'TF right/base -> right/ee': ('note on /tf',),
        'TF left/base -> wrist_optical': ('note on /tf',)}


def test_a_hold_without_a_stream_has_no_notes(inputs):
    assert inputs[0].warnings_for(None) == ()


class StoppedClock:
    """However busy the machine is."""

    def now_ns(self):
        return 0


def test_a_hold_is_logged_once_for_its_reason_and_stream_however_it_is_worded(node, capfd):
    log = HoldLog(node, StoppedClock())
    for stream, detail in (('top', 'top: 0.3 s old'), ('top', 'the top camera is late'), ('wrist', 'top: 0.3 s old')):
        log.log_hold(Hold(reason=HoldReason.STALE_STREAM, detail=detail, stream=stream))
    told = [line for line in capfd.readouterr().err.splitlines() if 'hold STALE_STREAM' in line]
    assert len(told) == 2 and 'top: 0.3 s old' in told[0]


def test_a_stream_with_another_fault_in_every_message_does_not_flood_the_log(node, capfd):
    log = HoldLog(node, StoppedClock())
    for size in range(50):
        log.log_hold(Hold(reason=HoldReason.BAD_INPUT, detail=f'{size} bytes are no JPEG image', stream='top'))
    told = [line for line in capfd.readouterr().err.splitlines() if 'hold BAD_INPUT' in line]
    assert len(told) == 3 and ['0 bytes' in told[0], '1 bytes' in told[1], '2 bytes' in told[2]] == [True] * 3
