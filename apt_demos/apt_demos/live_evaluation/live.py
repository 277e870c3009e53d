"""Trials of a policy through the live node: simulator, bridge and policy as processes, over DDS.

The same scenes, instructions and referee as without ROS; what differs is that time does not stand still while
a plan is made. Plays the user: resets, instructs, enables, watches.
"""

from dataclasses import replace
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

from apt_bringup import graph
from apt_bringup.managed import bring_up
from apt_bringup.session import Session
from apt_demos.live_evaluation.live_robot import POLICY, SIMULATOR, LiveRobot
from apt_policy.core.contract import load_contract
from apt_sim.evaluation.evaluate import EvaluationSettings, TrialResult
from apt_sim.evaluation.live import LivePolicy
from apt_sim.evaluation.referee import Referee, Ruling, Verdict
from apt_sim.evaluation.trial import Trial, TrialDrawer, TrialPlan, trial_scene
from apt_sim.tasks.task import Situation
from apt_sim.world.scene import LIGHTS


def trial_graph(settings: EvaluationSettings, policy: LivePolicy) -> graph.Graph:
    """The simulated ALOHA with the table of the trials, and the policy."""
    planner = policy.planner
    described = graph.aloha(
        {'robot': 'sim', 'contract': settings.contract, 'checkpoint': planner.checkpoint, 'vlm': planner.vlm,
         'device': planner.device, 'seed': str(planner.seed), 'speed': str(policy.speed)},
        Path(get_package_share_directory('apt_bringup')))
    scene = trial_scene(load_contract(settings.contract), LIGHTS)
    more: dict[str, dict[str, graph.Value]] = {
        SIMULATOR: {'objects': scene.objects, 'objects_on_table': scene.objects_on_table, 'trays': scene.trays,
                     'trays_on_table': scene.trays_on_table, 'vary_lights': True, 'width': scene.image_width,
                     'height': scene.image_height},
        POLICY: {'replan_period_s': settings.replan_s, 'dtype': planner.dtype,
                 'denoising_steps': planner.denoising_steps, 'noise_scale': planner.noise_scale}}
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
        self._robot = LiveRobot(contract, session)
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
        verdict, end, approached = self._run(trial, scene)
        return TrialResult(
            split=plan.split.value, number=number, seed=trial.seed, success=verdict.ruling is Ruling.SUCCESS,
            approached=approached == trial.parts[0].task.object, failure=verdict.failure, reason=verdict.reason,
            instructions=tuple(part.instruction for part in trial.parts),
            duration_s=(end.stamp_ns - scene.stamp_ns) / 1e9, spent_s={})

    def close(self) -> None:
        """Leave the graph."""
        self._robot.close()

    def _run(self, trial: Trial, scene: Situation) -> tuple[Verdict, Situation, str]:
        """How the trial ended, the table then, and which object a hand came nearest to."""
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
        return verdict, now, referee.approached
