"""The RunPolicy action over DDS."""

import pytest
from action_msgs.msg import GoalStatus
from apt_msgs.action import RunPolicy
from rclpy.action import ActionClient

from apt_policy.core.sample import HoldReason
from apt_policy.ros.stamps import to_duration


class Runner:
    """An action client that waits for answers."""

    def __init__(self, bench, client):
        self.bench, self.client = bench, client
        assert client.wait_for_server(60.0)
        self.feedback = []

    def ask(self, prompt='stack', limit_s=30.0):
        goal = RunPolicy.Goal(prompt=prompt, max_duration=to_duration(round(limit_s * 1e9)))
        future = self.client.send_goal_async(
            goal, feedback_callback=lambda told: self.feedback.append(told.feedback))
        return self._wait(future, 'the answer to a goal')

    def result(self, goal):
        return self._wait(goal.get_result_async(), 'the result')

    def cancel(self, goal):
        return self._wait(goal.cancel_goal_async(), 'the answer to a cancel')

    def _wait(self, future, what):
        self.bench.until(future.done, what)
        return future.result()


@pytest.fixture(scope='module')
def client(shared_bench):
    """For all tests: rclpy's executor may be deaf ever after if one is destroyed while it waits."""
    return ActionClient(shared_bench.listener.node, RunPolicy, 'apt_policy/run')


@pytest.fixture
def runner(bench, client):
    return Runner(bench, client)


def test_a_run_ends_when_its_time_is_up_and_the_arms_hold(bench, runner):
    goal = runner.ask('stack the cubes', limit_s=3.0)
    assert goal.accepted
    bench.until(lambda: any(told.data == 'stack the cubes' for told in bench.listener.prompts), 'the prompt of the run')
    end = runner.result(goal)
    assert end.status == GoalStatus.STATUS_SUCCEEDED
    assert end.result.termination_reason == RunPolicy.Result.TIME_UP
    assert runner.feedback and runner.feedback[-1].targets_sent > 0
    bench.held(HoldReason.NO_PROMPT)


def test_a_cancel_takes_effect_within_one_control_tick(bench, runner):
    goal = runner.ask()
    bench.flow()
    answered = runner.cancel(goal)
    before = bench.newest().targets_sent
    sent = len(bench.listener.targets)
    assert len(answered.goals_canceling) == 1
    end = runner.result(goal)
    assert end.status == GoalStatus.STATUS_CANCELED
    assert end.result.termination_reason == RunPolicy.Result.CANCELED
    assert bench.held(HoldReason.NO_PROMPT).targets_sent <= before + 25, 'far from a whole plan'
    assert len(bench.listener.targets) <= sent + 1


@pytest.mark.parametrize('state', ['disabled', 'inactive', 'unconfigured'])
def test_a_goal_is_rejected_unless_the_policy_is_active_and_enabled(bench, runner, state):
    if state == 'disabled':
        bench.enable(False)
    else:
        assert bench.transition('deactivate')
    if state == 'unconfigured':
        assert bench.transition('cleanup')
    assert not runner.ask().accepted
    assert bench.said('run refused: ') == 1


@pytest.mark.parametrize('prompt', ['', 'x' * 10_000], ids=['empty', '10 kB'])
def test_a_goal_with_a_prompt_that_cannot_be_followed_is_rejected(runner, prompt):
    assert not runner.ask(prompt).accepted


def test_a_second_goal_is_rejected_while_one_runs(runner):
    first = runner.ask()
    assert not runner.ask('another').accepted
    runner.cancel(first)
    assert runner.result(first).result.termination_reason == RunPolicy.Result.CANCELED


@pytest.mark.parametrize(('stop', 'reason'), [
    ('disable', RunPolicy.Result.DISABLED), ('deactivate', RunPolicy.Result.DEACTIVATED),
    ('cleanup', RunPolicy.Result.DEACTIVATED), ('fault', RunPolicy.Result.FAILED)])
def test_a_run_tells_why_it_ended_early(bench, runner, stop, reason):
    import rclpy
    from std_msgs.msg import Float64
    goal = runner.ask()
    assert goal.accepted
    if stop == 'disable':
        bench.enable(False)
    elif stop == 'fault':
        intruder = rclpy.create_node('intruder')
        intruder.create_publisher(Float64, 'apt/right/target_gripper', 1)
    else:
        assert bench.transition('deactivate')
        if stop == 'cleanup':
            assert bench.transition('cleanup')
    end = runner.result(goal)
    assert end.status == GoalStatus.STATUS_ABORTED
    assert end.result.termination_reason == reason, end.result.message
    if stop == 'fault':
        intruder.destroy_node()
        bench.until(lambda: bench.enable().success, 'the intruder to be gone')
