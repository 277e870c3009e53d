"""The simulated robot as a ROS node: what drivers, cameras and /clock publish on a real one.

It wires the simulation to topics and keeps its pace. The loop and everything in MuJoCo belong to one
thread; callbacks run in another and only leave requests.
"""

import queue
import threading
import time
from collections.abc import Callable
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
from apt_policy.ros.params import ParameterSet
from apt_policy.ros.qos import advertise, profile, subscribe
from apt_sim.world import messages
from apt_sim.world.cameras import CameraRig
from apt_sim.world.commands import Refusal, arm_command, finger_command
from apt_sim.world.pace import Beat, Pacer
from apt_sim.world.parameters import SimulatorParams
from apt_sim.world.physics import Simulation
from apt_sim.world.scene import LIGHTS, SceneSettings, Variation
from apt_sim.world.viewer import Viewer

_OBJECTS_HZ = 20.0
_TICK_S = 0.01
_RESET_TIMEOUT_S = 5.0
_DEAF_NS = 100_000_000
_REPEAT_S = 1.0
_SLOW = 0.9


class Simulator(Node):
    """The node ``aloha_sim``."""

    def __init__(self) -> None:
        """Build the scene and every port.

        Raises:
            ParameterError, ContractError, SceneError, LayoutError, AssetsMissing: see there.
        """
        super().__init__('aloha_sim')
        self._declared = ParameterSet(self, SimulatorParams)
        self._params = self._declared.values
        self._contract = load_contract(self._params.contract)
        self._streams = StreamTable(self._contract)
        params = self._params
        settings = SceneSettings(objects=params.objects, objects_on_table=params.objects_on_table,
                                 trays=params.trays, trays_on_table=params.trays_on_table,
                                 variation=LIGHTS if params.vary_lights else Variation(),
                                 image_width=params.width, image_height=params.height)
        self._simulation = Simulation(self._contract, settings, seed=self._params.seed)
        self._seed = self._params.seed
        self._deaf_until_ns = 0
        self._frames = messages.MovingFrames(self._simulation)
        self._requests: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._beats = _beats(self._contract)
        self._steps = max(1, round(min(_TICK_S, *self._state_periods()) / settings.timestep_s))
        self._advertise()
        self._listen()

    def _state_periods(self) -> list[float]:
        return [1.0 / arm.state_rate_hz for arm in self._contract.arms.values()]

    def _advertise(self) -> None:
        find = self._streams.find
        # Reliable publishers are heard by every kind of subscriber.
        sensor = profile(Role.SENSOR, reliability=Reliability.RELIABLE)
        state = profile(Role.STATE, reliability=Reliability.RELIABLE)
        # An old time is worth nothing.
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

    def _listen(self) -> None:
        for name in self._contract.arms:
            subscribe(self, self._streams.find(StreamKind.JOINT_COMMAND, name), partial(self._on_group, name))
            subscribe(self, self._streams.find(StreamKind.GRIPPER_COMMAND, name), partial(self._on_single, name))
        self.create_service(Trigger, '~/reset', self._on_reset)

    # Callbacks: in the executor's thread -------------------------------------------------------

    def _on_group(self, name: str, message: JointGroupCommand) -> None:
        command = arm_command(self._contract.arms[name], message.name, message.cmd)
        if isinstance(command, Refusal):
            self._refuse(self._contract.arms[name].joint_group_topic, command)
        else:
            self._requests.put(partial(self._obey, self._simulation.command_joints, name, command))

    def _on_single(self, name: str, message: JointSingleCommand) -> None:
        command = finger_command(self._contract.arms[name], message.name, message.cmd)
        if isinstance(command, Refusal):
            self._refuse(self._contract.arms[name].joint_single_topic, command)
        else:
            self._requests.put(partial(self._obey, self._simulation.command_finger, name, command))

    def _refuse(self, topic: str, refusal: Refusal) -> None:
        self.get_logger().warning(f'refused on {topic}: {refusal.reason}; the arm holds its last command',
                                  throttle_duration_sec=_REPEAT_S)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        done = threading.Event()
        self._requests.put(partial(self._reset, self._declared.values.reset_seed))
        self._requests.put(done.set)
        response.success = done.wait(_RESET_TIMEOUT_S)
        response.message = (f'episode of seed {self._seed}' if response.success
                            else f'the simulation did not answer within {_RESET_TIMEOUT_S} s')
        return response

    # The loop: in the main thread ---------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Simulate and publish until ``stop`` is set.

        Raises:
            GraphicsError: no OpenGL for the cameras, or no display for the viewer.
        """
        rig = CameraRig(self._simulation) if self._params.render else None
        viewer = Viewer(self._simulation) if self._params.viewer else None
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
        pacer = Pacer(self._params.speed, wall_ns=time.monotonic_ns(), sim_ns=simulation.time_ns)
        report = Beat(1.0, start_ns=time.monotonic_ns() + 1_000_000_000)
        while not stop.wait(pacer.wait_s(time.monotonic_ns(), simulation.time_ns)):
            self._take_requests()
            simulation.step(self._steps)
            self._publish_state()
            if rig is not None:
                self._publish_images(rig)
            wall_ns = time.monotonic_ns()
            if viewer is not None:
                viewer.refresh(wall_ns)
            if report.due(wall_ns):
                self._publish_report(pacer.factor(wall_ns, simulation.time_ns))

    def _take_requests(self) -> None:
        while True:
            try:
                self._requests.get_nowait()()
            except queue.Empty:
                return

    def _obey(self, command: Callable[[str, Any], None], arm: str, value: Any) -> None:
        if self._simulation.time_ns >= self._deaf_until_ns:
            command(arm, value)

    def _reset(self, seed: int) -> None:
        self._seed = seed if seed >= 0 else self._seed + 1
        self._simulation.reset(self._seed)
        # Commands that are under way were meant for the episode that ended.
        self._deaf_until_ns = self._simulation.time_ns + _DEAF_NS
        self.get_logger().info(f'reset: episode of seed {self._seed}')

    def _publish_state(self) -> None:
        now_ns = self._simulation.time_ns
        self._clock_out.publish(messages.clock(now_ns))
        readings = {name: self._simulation.readings(name) for name in self._contract.arms}
        if self._beats['tf'].due(now_ns):
            positions = {name: reading.position for name, reading in readings.items()}
            self._frames_out.publish(self._frames.message(now_ns, positions))
        if self._beats['objects'].due(now_ns) and self._objects_out.get_subscription_count() > 0:
            self._objects_out.publish(messages.objects(self._simulation))
        for name, reading in readings.items():
            if self._beats[name].due(now_ns):
                message = messages.joint_states(now_ns, self._contract.arms[name], reading)
                self._joints_out[name].publish(message)

    def _publish_images(self, rig: CameraRig) -> None:
        now_ns = self._simulation.time_ns
        for name in self._contract.cameras:
            if self._beats[name].due(now_ns):
                self._infos_out[name].publish(messages.camera_info(self._simulation, name, now_ns))
                self._images_out[name].publish(messages.image(self._contract, name, rig.shoot(name)))

    def _publish_report(self, factor: float) -> None:
        self._factor_out.publish(Float64(data=factor))
        wanted = self._params.speed
        slow = factor < _SLOW * wanted
        if slow:
            self.get_logger().warning(
                f'real-time factor {factor:.2f}, wanted {wanted:g}: this machine is too slow or too busy; '
                'time in the simulation passes more slowly, nothing is lost', throttle_duration_sec=30.0)
        self._diagnostics_out.publish(encode.diagnostics(self._simulation.time_ns, 'simulation', [(
            f'{self.get_name()}: pace', int(slow), f'real-time factor {factor:.2f}',
            {'wanted': f'{wanted:g}', 'seed': str(self._seed)})]))


def _beats(contract: RobotContract) -> dict[str, Beat]:
    """When each arm, each camera and TF publish; cameras take turns, so that no tick renders all."""
    beats = {name: Beat(arm.state_rate_hz) for name, arm in contract.arms.items()}
    # TF goes with the fastest arm: an image's instant then always has its transform.
    # Every listener decodes every link of it, in Python: no more often than anybody acts on it.
    beats['tf'] = Beat(contract.control_rate_hz)
    beats['objects'] = Beat(_OBJECTS_HZ)
    for turn, (name, camera) in enumerate(contract.cameras.items()):
        share = turn / len(contract.cameras)
        beats[name] = Beat(camera.rate_hz, start_ns=round(share / camera.rate_hz * 1e9))
    return beats
