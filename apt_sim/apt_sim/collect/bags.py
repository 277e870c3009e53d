"""One demonstration as the bag that ``apt-record`` would have made of it, had it been done on the live robot.

Everything is said with the live nodes' own messages, and received when it was stamped. Arms and TF speak once a
control period. Pictures come once a step of the contract, not at the camera's ``rate_hz``: they are those of the
episode file, and at each of the converter's ticks there is a fresh one. Targets are what is to be learned, without
the disturbance that arms may follow. Joint commands are not in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from std_msgs.msg import String

from apt_policy.core.atomic import atomic_folder
from apt_policy.core.contract import RobotContract, contract_to_dict
from apt_policy.core.sample import Target
from apt_policy.core.stream_spec import PROMPT_KINDS, StreamKind
from apt_policy.core.stream_table import StreamTable
from apt_policy.core.topics import EpisodeMark
from apt_recorder.bag_writer import BagConfig, BagError, BagWriter
from apt_recorder.message_writer import MessageWriter
from apt_recorder.streams import recorded_streams
from apt_recorder.type_definitions import TypeDefinitions
from apt_sim.tasks.messages import TargetMessages
from apt_sim.world import messages
from apt_sim.world.cameras import Shot, calibrated
from apt_sim.world.physics import JointReadings, Simulation

CONTRACT = 'contract.yaml'
"""In every bag: the contract with the cameras where they stood."""
# A stamp of zero is none.
_BEGIN_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """What the robot says of itself, and is told, at the beginning of a control period."""

    stamp_ns: int
    readings: Mapping[str, JointReadings]
    """By arm."""
    target: Target
    shots: Mapping[str, Shot]
    """Pictures that are taken now, by camera."""


def write_bag(bag: Path, simulation: Simulation, moments: Sequence[Moment], *, instruction: str,
              notes: Mapping[str, str]) -> None:
    """Write the bag of one episode, whole or not at all.

    Args:
        simulation: still in the episode, for what does not change in it.
        moments: every control period.
        notes: go into the description as ``custom_data``.

    Raises:
        BagError: the disk is full, or the folder cannot be made.
    """
    contract = calibrated(simulation)
    with atomic_folder(bag, overwrite=True) as fresh:
        try:
            definitions = TypeDefinitions()
            bag_writer = BagWriter(fresh, BagConfig(), definitions)
            writer = MessageWriter(bag_writer, definitions, recorded_streams(contract))
            _tell(writer, contract, simulation, _shifted(moments), instruction)
            bag_writer.close({**notes, 'episodes': '1', 'simulated_time': 'true'})
            # Keys in their order: arms and cameras are in the model's.
            (fresh / CONTRACT).write_text(yaml.safe_dump(contract_to_dict(contract), sort_keys=False))
        except (BagError, OSError) as error:
            raise BagError(f'cannot write {bag}: {error.__cause__ or error}; nothing of it is kept') from error


def _tell(writer: MessageWriter, contract: RobotContract, simulation: Simulation, moments: Sequence[Moment],
          instruction: str) -> None:
    start_ns = moments[0].stamp_ns
    find = StreamTable(contract).find
    writer.write(find(StreamKind.STATIC_TRANSFORMS).topic, start_ns, messages.static_frames(start_ns, simulation))
    for kind in PROMPT_KINDS:
        writer.write(find(kind).topic, start_ns, String(data=instruction))
    clock, mark = find(StreamKind.CLOCK).topic, find(StreamKind.EPISODE_MARK).topic
    writer.write(mark, start_ns, String(data=EpisodeMark.BEGIN.value))
    frames, words = messages.MovingFrames(simulation), TargetMessages(contract)
    for moment in moments:
        now_ns = moment.stamp_ns
        writer.write(clock, now_ns, messages.clock(now_ns))
        positions = {name: readings.position for name, readings in moment.readings.items()}
        writer.write(find(StreamKind.TRANSFORMS).topic, now_ns, frames.message(now_ns, positions))
        for name, readings in moment.readings.items():
            joints = messages.joint_states(now_ns, contract.arms[name], readings)
            writer.write(find(StreamKind.JOINT_STATE, name).topic, now_ns, joints)
        for name, shot in moment.shots.items():
            info, image = (find(kind, name).topic for kind in (StreamKind.CAMERA_INFO, StreamKind.IMAGE))
            writer.write(info, now_ns, messages.camera_info(simulation, name, now_ns))
            writer.write(image, now_ns, messages.image(contract, name, shot))
        for topic, message in words.of(moment.target):
            writer.write(topic, now_ns, message)
    # What was told last is due then; a tick at this very instant is none of the episode's.
    end_ns = moments[-1].target.due_ns
    writer.write(clock, end_ns, messages.clock(end_ns))
    writer.write(mark, end_ns, String(data=EpisodeMark.END.value))


def _shifted(moments: Sequence[Moment]) -> list[Moment]:
    """The same on a clock that does not know what the process simulated before."""
    by_ns = _BEGIN_NS - moments[0].stamp_ns
    return [replace(
        moment, stamp_ns=moment.stamp_ns + by_ns,
        target=replace(moment.target, due_ns=moment.target.due_ns + by_ns),
        shots={name: replace(shot, stamp_ns=shot.stamp_ns + by_ns) for name, shot in moment.shots.items()})
        for moment in moments]
