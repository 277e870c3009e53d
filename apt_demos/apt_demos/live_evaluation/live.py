"""Rollouts of a policy through the live node: simulator, IK bridge and policy as processes, over DDS.

Scenes, instructions and success checks are those of rollouts without ROS; the difference is that time continues during
inference. The evaluator plays the user: it resets, sets the prompt, enables and observes.
"""

from dataclasses import replace
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

from apt_bringup import graph
from apt_bringup.managed import bring_up
from apt_bringup.session import Session
from apt_demos.live_evaluation.live_robot import POLICY, SIMULATOR, LiveRobot
from apt_policy.core.contract import load_contract
from apt_sim.evaluation.evaluate import RolloutConfig, RolloutResult
from apt_sim.evaluation.live import LivePolicyConfig
from apt_sim.evaluation.rollout import Rollout, RolloutPlan, RolloutSampler, rollout_scene
from apt_sim.evaluation.success_checker import EpisodeState, EpisodeStatus, SuccessChecker
from apt_sim.tasks.task import GroundTruth
from apt_sim.world.scene import LIGHT_RANDOMIZATION


def rollout_graph(settings: RolloutConfig, policy: LivePolicyConfig) -> graph.Graph:
    """Return the graph of the simulated ALOHA with the scene of the rollouts, and the policy.

    Args:
        settings: configuration of the rollouts.
        policy: configuration of the nodes.
    """
    planner = policy.planner
    described = graph.aloha(
        {'robot': 'sim', 'contract': settings.contract, 'checkpoint': planner.checkpoint, 'vlm': planner.vlm,
         'device': planner.device, 'seed': str(planner.seed), 'speed': str(policy.speed)},
        Path(get_package_share_directory('apt_bringup')))
    scene = rollout_scene(load_contract(settings.contract), LIGHT_RANDOMIZATION)
    more: dict[str, dict[str, graph.Value]] = {
        SIMULATOR: {'objects': scene.objects, 'objects_on_table': scene.objects_on_table, 'trays': scene.trays,
                    'trays_on_table': scene.trays_on_table, 'vary_lights': True, 'width': scene.image_width,
                    'height': scene.image_height},
        POLICY: {'replan_period_s': settings.replan_s, 'dtype': planner.dtype,
                 'denoising_steps': planner.denoising_steps, 'noise_scale': planner.noise_scale}}
    return replace(described, nodes=tuple(
        replace(node, parameters={**node.parameters, **more.get(node.name, {})}) for node in described.nodes))


class LiveEvaluator:
    """Evaluator that runs the rollouts of a list of plans on one graph, one after the other."""

    def __init__(self, settings: RolloutConfig, session: Session, plans: tuple[RolloutPlan, ...],
                 episodes: int) -> None:
        """Bring up the policy; ``rclpy`` must be initialised.

        Args:
            settings: configuration of the rollouts.
            session: running graph.
            plans: what the rollouts of each split have in common.
            episodes: number of rollouts of each plan.

        Raises:
            BringUpError: the policy cannot be configured or activated.
            LiveGraphError: a node ended or does not respond.
        """
        self._settings, self._plans, self._episodes = settings, plans, episodes
        contract = load_contract(settings.contract)
        self._robot = LiveRobot(contract, session)
        for node in session.managed:
            bring_up(self._robot, self._robot.spinner, node.full_name, give_up=lambda: bool(session.ended))
        self._sampler = RolloutSampler(contract, self._robot.reset)

    def __call__(self, job: int) -> RolloutResult:
        """Run rollout ``job % episodes`` of plan ``job // episodes``.

        Raises:
            LiveGraphError: a node ended or does not respond.
        """
        plan, number = self._plans[job // self._episodes], job % self._episodes
        rollout, scene, _ = self._sampler.sample(plan, number)
        status, end, nearest_object = self._run(rollout, scene)
        return RolloutResult(
            split=plan.split.value, number=number, seed=rollout.seed, success=status.state is EpisodeState.SUCCESS,
            reached_target_object=nearest_object == rollout.instructed_tasks[0].task.object,
            failure=status.failure, reason=status.reason,
            instructions=tuple(each.instruction for each in rollout.instructed_tasks),
            duration_s=(end.stamp_ns - scene.stamp_ns) / 1e9, spent_s={})

    def close(self) -> None:
        """Destroy the client's node."""
        self._robot.close()

    def _run(self, rollout: Rollout, scene: GroundTruth) -> tuple[EpisodeStatus, GroundTruth, str]:
        """Return the final status, the ground truth then, and the object that a hand came nearest to."""
        robot, checker = self._robot, SuccessChecker(rollout.instructed_tasks, scene, patience=self._settings.patience)
        robot.set_prompt(checker.current_task.instruction)
        robot.enable(True)
        now, status = scene, EpisodeStatus(state=EpisodeState.RUNNING)
        while status.state in (EpisodeState.RUNNING, EpisodeState.NEXT_INSTRUCTION):
            if status.state is EpisodeState.NEXT_INSTRUCTION:
                robot.set_prompt(checker.current_task.instruction)
            now = robot.wait_for_state(after_ns=now.stamp_ns)
            status = checker.update(now)
        robot.enable(False)
        return status, now, checker.nearest_object
