"""Trials of a policy through the live node: simulator, bridge and policy as processes, over DDS.

The same scenes, instructions and referee as without ROS; what differs is that time does not stand still while
a plan is made. Plays the user: resets, instructs, enables, watches.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from apt_msgs.srv import SetPrompt
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from apt_bringup import graph
from apt_bringup.managed import bring_up
from apt_bringup.session import Session
from apt_bringup.sim.scene import LIGHTS
from apt_bringup.tasks.eyes import Eyes
from apt_bringup.tasks.task import Situation
from apt_bringup.trials.evaluate import EvaluationSettings, TrialResult
from apt_bringup.trials.referee import Referee, Ruling, Verdict
from apt_bringup.trials.trial import Trial, TrialDrawer, TrialPlan, trial_scene
from apt_policy.core.contract import RobotContract, load_contract
from apt_policy.ros.qos import Role, profile

_SIMULATOR, _POLICY = 'aloha_sim', 'apt_policy'
# A request that DDS lost is made again; none does harm when it comes twice.
_ANSWER_S = 3.0
_PATIENCE_S = 60.0
# Of the robot's time, until everything that belongs to the episode before has arrived.
_SETTLE_NS = 300_000_000


class LiveError(RuntimeError):
    """A graph that does not do what it is asked; the message names node and request."""


@dataclass(frozen=True, kw_only=True)
class LivePolicy:
    """What the policy node is started with."""

    checkpoint: str
    vlm: str
    device: str
    denoising_steps: int
    seed: int
    speed: float
    """Simulated seconds per second, if the machine keeps up."""


def trial_graph(settings: EvaluationSettings, policy: LivePolicy) -> graph.Graph:
    """The simulated ALOHA with the table of the trials, and the policy."""
    described = graph.aloha(
        {'robot': 'sim', 'contract': settings.contract, 'checkpoint': policy.checkpoint, 'vlm': policy.vlm,
         'device': policy.device, 'seed': str(policy.seed), 'speed': str(policy.speed)},
        Path(get_package_share_directory('apt_bringup')))
    scene = trial_scene(load_contract(settings.contract), LIGHTS)
    more: dict[str, dict[str, graph.Value]] = {
        _SIMULATOR: {'objects': scene.objects, 'objects_on_table': scene.objects_on_table, 'trays': scene.trays,
                     'trays_on_table': scene.trays_on_table, 'vary_lights': True, 'width': scene.image_width,
                     'height': scene.image_height},
        _POLICY: {'replan_period_s': settings.replan_s, 'denoising_steps': policy.denoising_steps}}
    return replace(described, nodes=tuple(
        replace(node, parameters={**node.parameters, **more.get(node.name, {})}) for node in described.nodes))


class LiveEvaluator:
    """Runs the trials of a list of plans on one graph, one after the other."""

    def __init__(self, settings: EvaluationSettings, session: Session, plans: tuple[TrialPlan, ...],
                 episodes: int) -> None:
        """Bring the policy up; ``rclpy`` is initialised.

        Raises:
            BringUpError, LiveError: see there.
        """
        self._settings, self._plans, self._episodes = settings, plans, episodes
        contract = load_contract(settings.contract)
        self._robot = _Robot(contract, session)
        for node in session.managed:
            bring_up(self._robot, self._robot.spinner, node.full_name, give_up=lambda: bool(session.ended))
        self._drawer = TrialDrawer(contract, self._robot.reset)

    def __call__(self, job: int) -> TrialResult:
        """Trial ``job % episodes`` of plan ``job // episodes``.

        Raises:
            LiveError: a node ended, or does not answer.
        """
        plan, number = self._plans[job // self._episodes], job % self._episodes
        trial, scene, _ = self._drawer.begin(plan, number)
        verdict, end = self._run(trial, scene)
        return TrialResult(
            split=plan.split.value, number=number, seed=trial.seed, success=verdict.ruling is Ruling.SUCCESS,
            reason=verdict.reason, instructions=tuple(part.instruction for part in trial.parts),
            duration_s=(end.stamp_ns - scene.stamp_ns) / 1e9, spent_s={})

    def close(self) -> None:
        """Leave the graph."""
        self._robot.close()

    def _run(self, trial: Trial, scene: Situation) -> tuple[Verdict, Situation]:
        robot, referee = self._robot, Referee(trial.parts, scene, patience=self._settings.patience)
        robot.instruct(referee.part.instruction)
        robot.enable(True)
        now, verdict = scene, Verdict(ruling=Ruling.GO_ON)
        while verdict.ruling in (Ruling.GO_ON, Ruling.NEXT):
            if verdict.ruling is Ruling.NEXT:
                robot.instruct(referee.part.instruction)
            now = robot.look(after_ns=now.stamp_ns)
            verdict = referee.see(now)
        robot.enable(False)
        return verdict, now


class _Robot(Node):
    """The graph as its user has it: services to ask, topics to see."""

    def __init__(self, contract: RobotContract, session: Session) -> None:
        super().__init__('trials')
        self._session = session
        self._eyes = Eyes(contract)
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self)
        self._seeds = self.create_client(SetParameters, f'{_SIMULATOR}/set_parameters')
        self._resets = self.create_client(Trigger, f'{_SIMULATOR}/reset')
        self._prompts = self.create_client(SetPrompt, f'{_POLICY}/set_prompt')
        self._enables = self.create_client(SetBool, f'{_POLICY}/enable')
        for name, arm in contract.arms.items():
            self.create_subscription(JointState, arm.joint_states_topic, partial(self._eyes.take_joints, name),
                                     profile(Role.STATE))
        self.create_subscription(MarkerArray, 'sim/objects', self._eyes.take_objects, profile(Role.STATUS))

    def reset(self, seed: int) -> Situation:
        """Begin the scene of a seed, with the policy standing still."""
        self.enable(False)
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        self._ask(self._seeds, SetParameters.Request(parameters=[Parameter(name='reset_seed', value=value)]),
                  lambda answer: '' if answer.results[0].successful else answer.results[0].reason)
        self._ask(self._resets, Trigger.Request(), lambda answer: '' if answer.success else answer.message)
        return self.look(after_ns=self._eyes.objects_ns + _SETTLE_NS)

    def instruct(self, instruction: str) -> None:
        """Give the policy an instruction."""
        self._ask(self._prompts, SetPrompt.Request(prompt=instruction),
                  lambda answer: '' if answer.accepted else answer.message)

    def enable(self, enabled: bool) -> None:
        """Let the arms move, or stop them."""
        self._ask(self._enables, SetBool.Request(data=enabled),
                  lambda answer: '' if answer.success else answer.message)

    def look(self, *, after_ns: int) -> Situation:
        """The first situation after an instant of the robot's clock."""
        self._until(lambda: self._eyes.objects_ns > after_ns and self._situation() is not None,
                    'joint states and sim/objects')
        now = self._situation()
        assert now is not None, 'waited for'
        return now

    def close(self) -> None:
        """Leave the graph."""
        self.spinner.shutdown()
        self.destroy_node()

    def _situation(self) -> Situation | None:
        return self._eyes.situation(self._eyes.objects_ns)

    def _ask(self, client: Client, request: Any, refusal: Callable[[Any], str]) -> None:
        what, deadline_s = client.srv_name, time.monotonic() + _PATIENCE_S
        self._until(client.service_is_ready, what)
        while time.monotonic() < deadline_s:
            future: Any = client.call_async(request)
            self.spinner.spin_until_future_complete(future, timeout_sec=_ANSWER_S)
            if future.done():
                if reason := refusal(future.result()):
                    raise LiveError(f'{what} refused: {reason}')
                return
            client.remove_pending_request(future)
        raise LiveError(f'{what} did not answer within {_PATIENCE_S:.0f} s')

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not done():
            if ended := self._session.ended:
                names = ', '.join(f'{name} (status {status})' for name, status in ended.items())
                raise LiveError(f'{names} ended while waiting for {what}; its last lines are above')
            if time.monotonic() > deadline_s:
                raise LiveError(f'waited {_PATIENCE_S:.0f} s for {what}')
            self.spinner.spin_once(timeout_sec=0.05)
