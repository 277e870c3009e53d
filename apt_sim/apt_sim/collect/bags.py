"""Conversion of one simulated demonstration to the bag that ``apt-record`` would have written on the live robot.

Messages are those of the live nodes, received at their stamps. Arms and TF are published once per control period.
Images come once per step of the contract, not at the camera's ``rate_hz``: they are those of the episode file, so that
each tick of the converter has a fresh one. Targets are the labels, without action noise. Joint commands are left out.
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
from apt_sim.world.cameras import CameraImage, calibrated_contract
from apt_sim.world.motors import JointReadings
from apt_sim.world.physics import Simulation

CONTRACT = 'contract.yaml'
"""Name of the contract in every bag; its camera poses are those of the episode."""
# The first stamp [ns]; zero means no stamp in ROS.
_BEGIN_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class ControlTick:
    """State and target of the robot at the beginning of a control period."""

    stamp_ns: int
    """Simulated time [ns]."""
    readings: Mapping[str, JointReadings]
    """Encoder readings by arm."""
    target: Target
    images: Mapping[str, CameraImage]
    """Images taken in this control period, by camera."""


def write_bag(bag: Path, simulation: Simulation, ticks: Sequence[ControlTick], *, instruction: str,
              notes: Mapping[str, str]) -> None:
    """Write the bag of one episode atomically.

    Args:
        bag: folder of the bag.
        simulation: simulation in the state of the episode, for calibration and static transforms.
        ticks: all control periods of the episode.
        instruction: instruction of the episode.
        notes: entries of ``custom_data`` in the bag's metadata.

    Raises:
        BagError: the disk is full, or the folder cannot be made.
    """
    contract = calibrated_contract(simulation)
    with atomic_folder(bag, overwrite=True) as fresh:
        try:
            definitions = TypeDefinitions()
            bag_writer = BagWriter(fresh, BagConfig(), definitions)
            writer = MessageWriter(bag_writer, definitions, recorded_streams(contract))
            _write_messages(writer, contract, simulation, _shifted(ticks), instruction)
            bag_writer.close({**notes, 'episodes': '1', 'simulated_time': 'true'})
            # Unsorted keys keep the order of arms and cameras, which is the model's.
            (fresh / CONTRACT).write_text(yaml.safe_dump(contract_to_dict(contract), sort_keys=False))
        except (BagError, OSError) as error:
            raise BagError(f'cannot write {bag}: {error.__cause__ or error}; the incomplete bag is removed') from error


def _write_messages(writer: MessageWriter, contract: RobotContract, simulation: Simulation,
                    ticks: Sequence[ControlTick],
                    instruction: str) -> None:
    start_ns = ticks[0].stamp_ns
    find = StreamTable(contract).find
    writer.write(find(StreamKind.STATIC_TRANSFORMS).topic, start_ns, messages.static_frames(start_ns, simulation))
    for kind in PROMPT_KINDS:
        writer.write(find(kind).topic, start_ns, String(data=instruction))
    clock, mark = find(StreamKind.CLOCK).topic, find(StreamKind.EPISODE_MARK).topic
    writer.write(mark, start_ns, String(data=EpisodeMark.BEGIN.value))
    frames, target_messages = messages.LinkTransforms(simulation), TargetMessages(contract)
    for tick in ticks:
        now_ns = tick.stamp_ns
        writer.write(clock, now_ns, messages.clock(now_ns))
        positions = {name: readings.position for name, readings in tick.readings.items()}
        writer.write(find(StreamKind.TRANSFORMS).topic, now_ns, frames.to_message(now_ns, positions))
        for name, readings in tick.readings.items():
            joints = messages.joint_states(now_ns, contract.arms[name], readings)
            writer.write(find(StreamKind.JOINT_STATE, name).topic, now_ns, joints)
        for name, image in tick.images.items():
            info_topic, image_topic = (
                find(kind, name).topic for kind in (StreamKind.CAMERA_INFO, StreamKind.IMAGE))
            writer.write(info_topic, now_ns, messages.camera_info(simulation, name, now_ns))
            writer.write(image_topic, now_ns, messages.image(contract, name, image))
        for topic, message in target_messages.messages_for(tick.target):
            writer.write(topic, now_ns, message)
    # The last target is due at this time; a converter's tick at this instant is outside the episode.
    end_ns = ticks[-1].target.due_ns
    writer.write(clock, end_ns, messages.clock(end_ns))
    writer.write(mark, end_ns, String(data=EpisodeMark.END.value))


def _shifted(ticks: Sequence[ControlTick]) -> list[ControlTick]:
    """Return the control periods with stamps that do not depend on earlier episodes of the process."""
    by_ns = _BEGIN_NS - ticks[0].stamp_ns
    return [replace(
        tick, stamp_ns=tick.stamp_ns + by_ns,
        target=replace(tick.target, due_ns=tick.target.due_ns + by_ns),
        images={name: replace(image, stamp_ns=image.stamp_ns + by_ns) for name, image in tick.images.items()})
        for tick in ticks]
