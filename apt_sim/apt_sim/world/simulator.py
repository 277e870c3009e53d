"""ROS node of the simulated robot: topics of the drivers and cameras of a real one, and /clock.

The simulation loop and all of MuJoCo belong to one thread; callbacks run in another and only queue requests.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from rclpy.node import Node
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from apt_policy.core import topics
from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.core.stream_spec import Reliability, Role, StreamKind
from apt_policy.core.stream_table import StreamTable
from apt_policy.ros import encode
from apt_policy.ros.callbacks import Callbacks
from apt_policy.ros.params import Mutability, ParameterSet, parameter
from apt_policy.ros.qos import advertise, profile, subscribe
from apt_sim.world import messages
from apt_sim.world.cameras import CameraRig
from apt_sim.world.commands import CommandRejection, arm_command, finger_command
from apt_sim.world.graphics import Viewer
from apt_sim.world.pacing import RateTimer, RealTimePacer
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import LIGHT_RANDOMIZATION, RandomizationConfig, SceneConfig

# Rate of the markers with ground truth [Hz].
_OBJECTS_HZ = 20.0
# Longest tick of the loop [s]; arms with a higher state rate shorten it.
_TICK_S = 0.01
_RESET_TIMEOUT_S = 5.0
# Commands in flight at a reset belong to the previous episode and are ignored for this long.
_IGNORE_COMMANDS_NS = 100_000_000
_LOG_PERIOD_S = 1.0
# Share of the requested speed below which the node warns.
_SLOW = 0.9


@dataclass(frozen=True, kw_only=True)
class SimulatorParams:
    """ROS parameters of the node ``aloha_sim``; facts about the robot are in the contract."""

    contract: str = parameter('', 'path of the robot contract (YAML)', mutability=Mutability.NEVER, required=True)
    seed: int = parameter(0, 'seed of the first episode; every reset takes the next one', mutability=Mutability.NEVER,
                          lower=0, upper=2**31 - 1)
    reset_seed: int = parameter(-1, 'seed of the episode that a reset begins; -1 takes the next one',
                                mutability=Mutability.ANYTIME, lower=-1, upper=2**31 - 1)
    width: int = parameter(320, 'width of the images [px]', mutability=Mutability.NEVER, lower=16, upper=1920)
    height: int = parameter(240, 'height of the images [px]', mutability=Mutability.NEVER, lower=16, upper=1200)
    render: bool = parameter(True, 'publish camera images; false needs no OpenGL', mutability=Mutability.NEVER)
    speed: float = parameter(1.0, 'simulated seconds per second of wall time; a slow machine may not reach it',
                             mutability=Mutability.NEVER, lower=0.01, upper=100.0)
    objects: tuple[str, ...] = parameter(SceneConfig.objects, 'names of the objects to sample from',
                                         mutability=Mutability.NEVER)
    objects_on_table: int = parameter(0, 'number of objects on the table, sampled from the seed; 0: all',
                                      mutability=Mutability.NEVER, lower=0, upper=12)
    trays: tuple[str, ...] = parameter(SceneConfig.trays, 'colours of the trays to sample from',
                                       mutability=Mutability.NEVER)
    trays_on_table: int = parameter(0, 'number of trays on the table, sampled from the seed; 0: all, at most two fit',
                                    mutability=Mutability.NEVER, lower=0, upper=2)
    vary_lights: bool = parameter(False, 'randomise colours and lights in every episode', mutability=Mutability.NEVER)
    viewer: bool = parameter(False, 'open the interactive viewer of MuJoCo (needs a display)',
                             mutability=Mutability.NEVER)


class SimulatorNode(Node):
    """Node ``aloha_sim``."""

    def __init__(self) -> None:
        """Build the scene, publishers, subscriptions and services.

        Raises:
            ParameterError: a parameter is invalid.
            ContractError, SceneError: the contract cannot be read, or does not fit the simulated robot.
            LayoutError: the objects or trays do not fit on the table.
            MissingAssetsError: the robot description is not installed.
        """
        super().__init__('aloha_sim')
        self._declared = ParameterSet(self, SimulatorParams)
        self._params = self._declared.values
        self._contract = load_contract(self._params.contract)
        self._streams = StreamTable(self._contract)
        params = self._params
        settings = SceneConfig(objects=params.objects, objects_on_table=params.objects_on_table,
                               trays=params.trays, trays_on_table=params.trays_on_table,
                               variation=LIGHT_RANDOMIZATION if params.vary_lights else RandomizationConfig(),
                               image_width=params.width, image_height=params.height)
        self._simulation = Simulation(self._contract, settings, seed=self._params.seed)
        self._seed = self._params.seed
        self._ignore_commands_until_ns = 0
        self._frames = messages.LinkTransforms(self._simulation)
        self._requests: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._rate_timers = _timers(self._contract)
        self._steps = max(1, round(min(_TICK_S, *self._state_periods()) / settings.timestep_s))
        self._create_publishers()
        self._create_subscriptions()

    def _state_periods(self) -> list[float]:
        return [1.0 / arm.state_rate_hz for arm in self._contract.arms.values()]

    def _create_publishers(self) -> None:
        find = self._streams.find
        # Reliable publishers match every kind of subscriber.
        sensor = profile(Role.SENSOR, reliability=Reliability.RELIABLE)
        state = profile(Role.STATE, reliability=Reliability.RELIABLE)
        # Only the newest time is of use.
        self._clock_out = advertise(self, find(StreamKind.CLOCK), quality=profile(Role.TARGET))
        self._joints_out = {name: advertise(self, find(StreamKind.JOINT_STATE, name), quality=state)
                            for name in self._contract.arms}
        self._images_out, self._infos_out = (
            {name: advertise(self, find(kind, name), quality=sensor) for name in self._contract.cameras}
            for kind in (StreamKind.IMAGE, StreamKind.CAMERA_INFO))
        self._frames_out, self._static_out, self._diagnostics_out = (advertise(self, find(kind)) for kind in (
            StreamKind.TRANSFORMS, StreamKind.STATIC_TRANSFORMS, StreamKind.DIAGNOSTICS))
        self._objects_out = self.create_publisher(MarkerArray, topics.SIM_OBJECTS, profile(Role.STATUS))
        self._factor_out = self.create_publisher(Float64, topics.SIM_REAL_TIME_FACTOR, profile(Role.STATUS))

    def _create_subscriptions(self) -> None:
        for name in self._contract.arms:
            subscribe(self, self._streams.find(StreamKind.JOINT_COMMAND, name), partial(self._on_group, name))
            subscribe(self, self._streams.find(StreamKind.GRIPPER_COMMAND, name), partial(self._on_single, name))
        self.create_service(Trigger, '~/reset', self._on_reset)

    # Callbacks: in the executor's thread -------------------------------------------------------

    def _on_group(self, name: str, message: JointGroupCommand) -> None:
        command = arm_command(self._contract.arms[name], message.name, message.cmd)
        if isinstance(command, CommandRejection):
            self._log_rejection(self._contract.arms[name].joint_group_topic, command)
        else:
            self._requests.put(partial(self._execute, self._simulation.command_joints, name, command))

    def _on_single(self, name: str, message: JointSingleCommand) -> None:
        command = finger_command(self._contract.arms[name], message.name, message.cmd)
        if isinstance(command, CommandRejection):
            self._log_rejection(self._contract.arms[name].joint_single_topic, command)
        else:
            self._requests.put(partial(self._execute, self._simulation.command_finger, name, command))

    def _log_rejection(self, topic: str, rejection: CommandRejection) -> None:
        self.get_logger().warning(f'Command on {topic} rejected: {rejection.reason}. The arm holds its last command.',
                                  throttle_duration_sec=_LOG_PERIOD_S)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        done = threading.Event()
        self._requests.put(partial(self._reset, self._declared.values.reset_seed))
        self._requests.put(done.set)
        response.success = done.wait(_RESET_TIMEOUT_S)
        response.message = (f'episode of seed {self._seed}' if response.success
                            else f'the simulation did not reset within {_RESET_TIMEOUT_S} s')
        return response

    # The loop: in the main thread ---------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Simulate and publish until ``stop`` is set.

        Raises:
            GraphicsError: OpenGL for the cameras, or a display for the viewer, is not available.
        """
        rig = CameraRig(self._simulation) if self._params.render else None
        viewer = Viewer(self._simulation.model, self._simulation.data) if self._params.viewer else None
        try:
            with Callbacks(self, stop):
                self._loop(stop, rig, viewer)
        finally:
            if rig is not None:
                rig.close()
            if viewer is not None:
                viewer.close()

    def _loop(self, stop: threading.Event, rig: CameraRig | None, viewer: Viewer | None) -> None:
        simulation = self._simulation
        self._static_out.publish(messages.static_frames(simulation.time_ns, simulation))
        pacer = RealTimePacer(self._params.speed, wall_ns=time.monotonic_ns(), sim_ns=simulation.time_ns)
        report = RateTimer(1.0, start_ns=time.monotonic_ns() + 1_000_000_000)
        while not stop.wait(pacer.wait_s(time.monotonic_ns(), simulation.time_ns)):
            self._process_requests()
            simulation.step(self._steps)
            self._publish_state()
            if rig is not None:
                self._publish_images(rig)
            wall_ns = time.monotonic_ns()
            if viewer is not None:
                viewer.refresh(wall_ns)
            if report.due(wall_ns):
                self._publish_report(pacer.real_time_factor(wall_ns, simulation.time_ns))

    def _process_requests(self) -> None:
        while True:
            try:
                self._requests.get_nowait()()
            except queue.Empty:
                return

    def _execute(self, command: Callable[[str, Any], None], arm: str, value: Any) -> None:
        if self._simulation.time_ns >= self._ignore_commands_until_ns:
            command(arm, value)

    def _reset(self, seed: int) -> None:
        self._seed = seed if seed >= 0 else self._seed + 1
        self._simulation.reset(self._seed)
        self._ignore_commands_until_ns = self._simulation.time_ns + _IGNORE_COMMANDS_NS
        self.get_logger().info(f'Reset: episode of seed {self._seed}.')

    def _publish_state(self) -> None:
        now_ns = self._simulation.time_ns
        self._clock_out.publish(messages.clock(now_ns))
        readings = {name: self._simulation.readings(name) for name in self._contract.arms}
        if self._rate_timers['tf'].due(now_ns):
            positions = {name: reading.position for name, reading in readings.items()}
            self._frames_out.publish(self._frames.to_message(now_ns, positions))
        if self._rate_timers['objects'].due(now_ns) and self._objects_out.get_subscription_count() > 0:
            self._objects_out.publish(messages.objects(self._simulation))
        for name, reading in readings.items():
            if self._rate_timers[name].due(now_ns):
                message = messages.joint_states(now_ns, self._contract.arms[name], reading)
                self._joints_out[name].publish(message)

    def _publish_images(self, rig: CameraRig) -> None:
        now_ns = self._simulation.time_ns
        for name in self._contract.cameras:
            if self._rate_timers[name].due(now_ns):
                self._infos_out[name].publish(messages.camera_info(self._simulation, name, now_ns))
                self._images_out[name].publish(messages.image(self._contract, name, rig.render(name)))

    def _publish_report(self, factor: float) -> None:
        self._factor_out.publish(Float64(data=factor))
        speed = self._params.speed
        slow = factor < _SLOW * speed
        if slow:
            self.get_logger().warning(
                f'Real-time factor is {factor:.2f}, expected {speed:g}: this machine is too slow or too busy. '
                'Simulated time passes more slowly; no data is lost.', throttle_duration_sec=30.0)
        self._diagnostics_out.publish(encode.diagnostics(self._simulation.time_ns, 'simulation', [(
            f'{self.get_name()}: pace', int(slow), f'real-time factor {factor:.2f}',
            {'wanted': f'{speed:g}', 'seed': str(self._seed)})]))


def _timers(contract: RobotContract) -> dict[str, RateTimer]:
    """Return the publish timers of arms, cameras, TF and markers.

    Cameras are offset in time, so that no tick renders all of them.
    """
    timers = {name: RateTimer(arm.state_rate_hz) for name, arm in contract.arms.items()}
    # Every subscriber decodes all link transforms in Python, so TF has the control rate and not a higher one.
    timers['tf'] = RateTimer(contract.control_rate_hz)
    timers['objects'] = RateTimer(_OBJECTS_HZ)
    for index, (name, camera) in enumerate(contract.cameras.items()):
        share = index / len(contract.cameras)
        timers[name] = RateTimer(camera.rate_hz, start_ns=round(share / camera.rate_hz * 1e9))
    return timers
