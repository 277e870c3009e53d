import functools
import itertools
import os
import re
import signal
import threading
import time

import numpy as np
import pytest

from apt_policy.core.sample import ArmState, Hold, HoldReason, Target
from apt_policy.inference.chunking import ChunkMode
from apt_policy.inference.hover_planner import Fault, HoverPlanner
from apt_policy.inference.ports import PlanFailure
from apt_policy.inference.report import ChunkAccepted, HoldChanged, PlannerFailed, PromptChanged
from apt_policy.inference.worker.process_worker import ProcessWorker
from apt_policy.inference.worker.thread_worker import ThreadWorker
from apt_policy.inference.worker.worker import WorkerState

STOPS = [
    ('deactivated', lambda rig: rig.loop.deactivate(), HoldReason.INACTIVE),
    ('disabled', lambda rig: rig.loop.enable(False), HoldReason.DISABLED),
    ('re-enabled', lambda rig: rig.loop.enable(True), HoldReason.NO_CHUNK),
    ('reset', lambda rig: rig.loop.reset(), HoldReason.NO_CHUNK),
    ('another prompt', lambda rig: rig.loop.set_prompt('sit'), HoldReason.NO_CHUNK),
    ('clock jump', lambda rig: rig.loop.clock_jumped('by 5 s'), HoldReason.CLOCK_JUMP),
    ('second publisher', lambda rig: rig.loop.second_publishers(('apt/left/target',)),
     HoldReason.SECOND_PUBLISHER),
]


def test_each_missing_condition_has_its_reason_in_turn(rig):
    rig = rig()
    assert rig.reason() is HoldReason.INACTIVE
    rig.loop.activate()
    assert rig.reason() is HoldReason.DISABLED
    rig.loop.enable(True)
    assert rig.reason() is HoldReason.NO_PROMPT
    rig.loop.set_prompt('wave')
    assert rig.reason() is HoldReason.NO_CHUNK
    rig.plan()
    assert rig.reason() is None
    counts = rig.loop.status().counts
    assert counts.targets_sent == 1 and counts.chunks == 1 and sum(counts.holds) == 4
    assert counts.holds[HoldReason.NO_PROMPT] == 1


def test_targets_follow_the_plan_of_the_planner(rig):
    rig = rig(planner=HoverPlanner(horizon=8, radius_m=0.02), blend_s=0.1).moving()
    targets = [rig.tick() for _ in range(20)]
    chunk = next(e.planned.chunk for e in rig.loop.drain_events() if isinstance(e, ChunkAccepted))
    for target in targets[10:]:
        due = np.interp(target.due_ns, chunk.due_ns, chunk.world_from_ee[:, 0, 1, 3])
        assert target.world_from_ee[0, 1, 3] == pytest.approx(due, abs=1e-9)
    assert rig.loop.status().clamped_ticks == 0


@pytest.mark.parametrize(('name', 'stop', 'reason'), STOPS, ids=[stop[0] for stop in STOPS])
def test_a_stop_takes_effect_at_the_next_tick(rig, name, stop, reason):
    rig = rig().moving()
    stop(rig)
    assert rig.reason() is reason


@pytest.mark.parametrize(('name', 'stop', 'reason'), STOPS, ids=[stop[0] for stop in STOPS])
def test_a_plan_inferred_before_a_stop_is_dropped(rig, name, stop, reason):
    rig = rig().moving()
    rig.observe()
    epoch = rig.loop.status().epoch
    stop(rig)
    rig.worker.finish()
    assert rig.reason() is reason
    assert rig.loop.status().epoch > epoch
    assert rig.loop.status().counts.chunks_dropped == 1 and rig.loop.status().counts.chunks == 1


def test_a_prompt_that_comes_while_images_are_decoded_discards_the_observation(rig):
    rig = rig().ready()
    rig.source.on_snapshot = lambda: rig.loop.set_prompt('sit')
    rig.observe()
    assert rig.worker.request is None
    rig.source.on_snapshot = lambda: None
    rig.observe()
    assert rig.worker.request.observation.prompt == 'sit'


def test_nothing_is_observed_while_nothing_may_move(rig):
    rig = rig(dead_man_timeout_s=0.5)
    enable, instruct = (lambda: rig.loop.enable(True)), (lambda: rig.loop.set_prompt('go'))
    for step in (lambda: None, rig.loop.activate, enable, instruct):
        step()
        rig.observe()
        assert rig.worker.request is None
    rig.loop.dead_man(True)
    rig.observe()
    assert rig.worker.request is not None


def test_a_busy_worker_is_not_given_another_observation(rig):
    rig = rig().ready()
    rig.observe()
    first = rig.worker.request
    rig.tick()
    rig.observe()
    assert rig.worker.request is first


def test_plans_are_made_no_more_often_than_asked_but_at_once_after_a_new_prompt(rig):
    rig = rig(replan_period_s=0.1).moving()
    first = rig.worker.request
    while rig.worker.request is first:
        rig.tick()
        rig.observe()
    second = rig.worker.request
    assert second.observation.stamp_ns - first.observation.stamp_ns == 100_000_000
    rig.worker.finish()
    rig.tick()
    rig.loop.set_prompt('sit')
    rig.observe()
    assert rig.worker.request is not second


@pytest.mark.parametrize(('text', 'words'), [
    ('', 'empty'), (' \t\n ', 'empty'), ('x' * 10_240, '10240 bytes; the limit is 2048'),
    ('\u00e4' * 1025, '2050 bytes'),
    ('wave\x00', 'U\\+0000 at index 4'), ('a\x1b[31m', 'U\\+001B'), ('a\udcff', 'U\\+DCFF')])
def test_a_bad_prompt_is_refused_and_the_present_one_stays(rig, text, words):
    rig = rig().moving()
    epoch = rig.loop.status().epoch
    answer = rig.loop.set_prompt(text)
    assert not answer.accepted and re.search(words, answer.message)
    assert rig.loop.status().prompt == 'wave' and rig.loop.status().epoch == epoch == answer.epoch
    assert rig.reason() is None


def test_the_same_prompt_again_does_not_disturb_the_plan(rig):
    rig = rig().moving()
    answer = rig.loop.set_prompt(' wave\n')
    assert answer.accepted and 'already' in answer.message
    assert rig.reason() is None


def test_a_prompt_is_one_line(rig):
    rig = rig().ready()
    assert rig.loop.set_prompt('  put the\tcube\ninto  the tray ').accepted
    assert rig.loop.status().prompt == 'put the cube into the tray'
    assert PromptChanged(prompt='put the cube into the tray') in rig.loop.drain_events()


def test_a_new_plan_after_a_prompt_blends_in_from_the_last_target(rig):
    rig = rig(planner=HoverPlanner(horizon=8, radius_m=0.05, period_s=0.8)).moving()
    last = [rig.tick() for _ in range(15)][-1]
    assert np.linalg.norm(last.world_from_ee[0, :3, 3] - rig.source.arms[0].world_from_ee[:3, 3]) > 0.03
    rig.loop.set_prompt('sit')
    rig.tick()
    rig.plan()
    targets = [rig.tick() for _ in range(12)]
    np.testing.assert_allclose(targets[0].world_from_ee, last.world_from_ee, atol=1e-9)
    steps = np.diff([t.world_from_ee[0, :3, 3] for t in targets], axis=0)
    assert np.linalg.norm(steps, axis=-1).max() < 0.15 * 0.1 + 0.05 * 2 * np.pi / 0.8 * 0.02


def test_after_arms_were_moved_by_hand_a_plan_begins_where_they_are(rig, make):
    rig = rig().moving()
    rig.loop.enable(False)
    rig.tick()
    rig.source.arms = tuple(ArmState(world_from_ee=make.pose(z=0.4) @ arm.world_from_ee, gripper=0.1)
                            for arm in rig.source.arms)
    rig.loop.enable(True)
    rig.plan()
    target = rig.tick()
    assert isinstance(target, Target)
    np.testing.assert_allclose(target.world_from_ee[0], rig.source.arms[0].world_from_ee, atol=1e-9)


def test_a_first_target_far_from_the_arm_is_refused(rig):
    rig = rig(blend_s=0.0).ready()
    rig.plan()
    rig.source.arms = tuple(ArmState(world_from_ee=arm.world_from_ee @ np.diag([1.0, -1, -1, 1]), gripper=0.5)
                            for arm in rig.source.arms)
    outcome = rig.tick()
    assert outcome.reason is HoldReason.FAR_FROM_CURRENT and 'left' in outcome.detail
    assert rig.loop.status().counts.targets_sent == 0


def test_a_plan_with_nan_is_discarded_and_recorded_until_re_enabled(rig):
    rig = rig(planner=HoverPlanner(horizon=8, fault=Fault.RETURNS_NAN, good_plans=1)).moving()
    rig.plan()
    outcome = rig.tick()
    assert outcome.reason is HoldReason.NON_FINITE and 'NaN' in outcome.detail
    rig.observe()
    assert rig.worker.state is WorkerState.IDLE
    assert rig.loop.status().fault == outcome and rig.reason() is HoldReason.NON_FINITE
    assert rig.loop.enable(True).accepted
    assert rig.reason() is HoldReason.NO_CHUNK


@pytest.mark.parametrize(('change', 'words'), [
    (lambda chunk: {'gripper': chunk.gripper[:-1]}, '\\(7, 2\\)'),
    (lambda chunk: {'world_from_ee': chunk.world_from_ee[:, :1]}, '\\(8, 1, 4, 4\\)'),
    (lambda chunk: {'world_from_ee': chunk.world_from_ee * 2}, 'rigid'),
    (lambda chunk: {'step_ns': 0}, 'a step of 0 ns'),
    (lambda chunk: {'valid_arms': np.ones(3, bool)}, 'arms \\(3,\\)')])
def test_a_malformed_plan_is_a_recorded_failure(rig, make, change, words):
    rig = rig().moving()
    rig.observe()
    planned = make.replace(make.planned(np.tile(np.eye(4), (8, 2, 1, 1))), request=rig.worker.request)
    rig.worker.finish(make.replace(planned, chunk=make.replace(
        planned.chunk, epoch=rig.worker.request.epoch, **change(planned.chunk))))
    outcome = rig.tick()
    assert outcome.reason is HoldReason.INFERENCE_FAILED and re.search(words, outcome.detail)


def test_a_plan_for_an_absent_arm_is_refused(rig, make):
    rig = rig().ready()
    rig.source.snapshot = lambda ns, prompt: make.observation(stamp_ns=ns, arms=(rig.source.arms[0], None))
    rig.observe()
    planned = make.planned(np.tile(np.eye(4), (8, 2, 1, 1)), epoch=rig.worker.request.epoch)
    rig.worker.finish(make.replace(planned, request=rig.worker.request))
    assert 'arm 1' in rig.tick().detail


def test_the_first_fault_stays_on_record_and_is_told_once(rig):
    rig = rig().moving()
    rig.loop.drain_events()
    rig.worker.finish(PlanFailure(message='out of memory'))
    assert rig.reason() is HoldReason.INFERENCE_FAILED
    rig.loop.second_publishers(('apt/left/target',))
    rig.loop.clock_jumped('by 5 s')
    rig.source.camera_age_s = 9.0
    assert {rig.reason() for _ in range(50)} == {HoldReason.INFERENCE_FAILED}
    events = rig.loop.drain_events()
    assert [type(event) for event in events] == [PlannerFailed, HoldChanged]
    assert events[1].hold == Hold(reason=HoldReason.INFERENCE_FAILED, detail='out of memory')
    assert events[1].previous is HoldReason.NONE


def test_the_first_cause_stays_on_record_while_it_lasts(rig):
    rig = rig().moving()
    rig.source.camera_age_s = 0.3
    assert rig.reason() is HoldReason.STALE_STREAM
    rig.source.refusal = Hold(reason=HoldReason.BAD_INPUT, detail='cam: encoding')
    rig.observe()
    # The plan ends meanwhile, too: a consequence.
    assert {rig.reason() for _ in range(60)} == {HoldReason.STALE_STREAM}
    rig.source.camera_age_s = 0.02
    assert rig.reason() is HoldReason.BAD_INPUT
    rig.source.camera_age_s = 0.3
    assert rig.reason() is HoldReason.BAD_INPUT
    told = [event.hold.reason for event in rig.loop.drain_events() if isinstance(event, HoldChanged)]
    assert told == [HoldReason.NONE, HoldReason.STALE_STREAM, HoldReason.BAD_INPUT]


def test_without_a_plan_the_input_at_fault_is_the_reason_and_not_the_plan(rig):
    rig = rig().ready()
    assert rig.reason() is HoldReason.NO_CHUNK
    rig.source.refusal = Hold(reason=HoldReason.BAD_INPUT, detail='cam: encoding')
    rig.observe()
    assert rig.reason() is HoldReason.BAD_INPUT


def test_a_plan_that_ends_before_the_next_one_holds(rig):
    rig = rig().moving()
    reasons = [rig.reason() for _ in range(45)]
    assert reasons[:38] == [None] * 38 and reasons[-1] is HoldReason.CHUNK_EXPIRED
    rig.plan()
    assert rig.reason() is None


@pytest.mark.parametrize(('age_s', 'reason'), [
    (-1.0, HoldReason.MISSING_STREAM), (0.26, HoldReason.STALE_STREAM)])
def test_a_stream_that_is_not_there_holds_and_its_return_resumes(rig, age_s, reason):
    rig = rig().moving()
    last = rig.tick()
    rig.source.camera_age_s = age_s
    outcome = rig.tick()
    assert outcome.reason is reason and 'cam' in outcome.detail
    rig.source.camera_age_s = 0.02
    np.testing.assert_allclose(rig.tick().world_from_ee, last.world_from_ee, atol=1e-9)


def test_an_input_that_cannot_be_read_is_the_reason_until_one_can(rig):
    rig = rig().moving()
    rig.source.refusal = Hold(reason=HoldReason.BAD_INPUT, detail='cam: encoding')
    rig.observe()
    assert rig.tick() == rig.source.refusal
    rig.source.refusal = None
    rig.plan()
    assert rig.reason() is None


def test_stamps_that_jump_back_are_a_recorded_fault(rig):
    rig = rig().moving()
    rig.source.refusal = Hold(reason=HoldReason.CLOCK_JUMP, detail='the stamps of cam jumped back')
    rig.observe()
    rig.source.refusal = None
    assert rig.reason() is HoldReason.CLOCK_JUMP and rig.reason() is HoldReason.CLOCK_JUMP


def test_a_clock_that_goes_back_is_noticed_by_the_tick(rig):
    rig = rig().moving()
    rig.now_ns -= 600_000_000
    outcome = rig.tick()
    assert outcome.reason is HoldReason.CLOCK_JUMP and '0.580 s' in outcome.detail
    assert rig.source.cleared == 1
    rig.loop.enable(True)
    rig.plan()
    assert rig.reason() is None


def test_a_clock_jump_while_disabled_needs_no_operator(rig):
    rig = rig()
    rig.loop.activate()
    rig.loop.clock_jumped('by 5 s')
    assert rig.reason() is HoldReason.DISABLED


def test_a_second_publisher_must_be_gone_before_enabling(rig):
    rig = rig().moving()
    rig.loop.second_publishers(('apt/left/target',))
    assert rig.reason() is HoldReason.SECOND_PUBLISHER
    refused = rig.loop.enable(True)
    assert not refused.accepted and 'apt/left/target' in refused.message
    rig.loop.second_publishers(())
    assert rig.reason() is HoldReason.SECOND_PUBLISHER
    assert rig.loop.enable(True).accepted
    assert rig.reason() is HoldReason.NO_CHUNK


def test_the_arms_move_only_while_the_dead_man_switch_is_pressed(rig):
    rig = rig(dead_man_timeout_s=0.1).ready()
    assert rig.reason() is HoldReason.DEAD_MAN
    rig.loop.dead_man(True)
    rig.plan()
    assert rig.reason() is None
    rig.loop.dead_man(False)
    assert rig.reason() is HoldReason.DEAD_MAN
    rig.loop.dead_man(True)
    assert [rig.reason() for _ in range(7)] == [None] * 5 + [HoldReason.DEAD_MAN] * 2


def test_a_dead_planner_cannot_be_enabled_and_says_why(rig):
    rig = rig().moving()
    rig.worker.finish(PlanFailure(message='the planner process was ended by SIGKILL'))
    rig.worker.state = WorkerState.DEAD
    assert rig.reason() is HoldReason.INFERENCE_FAILED
    refused = rig.loop.enable(True)
    assert not refused.accepted and 'SIGKILL' in refused.message
    rig.loop.activate()
    assert not rig.loop.enable(True).accepted


def test_a_reset_without_a_planner_is_refused_with_what_happened_to_it(rig):
    rig = rig().moving()
    rig.worker.finish(PlanFailure(message='the planner process was ended by SIGKILL'))
    rig.worker.state = WorkerState.DEAD
    refused = rig.loop.reset()
    assert not refused.accepted and 'SIGKILL' in refused.message and 'configure the node again' in refused.message
    assert rig.reason() is HoldReason.INFERENCE_FAILED
    assert not rig.loop.reset().accepted
    assert rig.loop.status().fault is not None, 'a refusal changes nothing'


def test_enabling_an_inactive_node_is_refused(rig):
    refused = rig().loop.enable(True)
    assert not refused.accepted and 'activate' in refused.message


def test_latency_counts_from_the_observation_to_the_first_target(rig):
    rig = rig().ready()
    rig.observe()
    for _ in range(5):
        rig.tick()
    rig.worker.finish()
    for _ in range(5):
        rig.tick()
    counts = rig.loop.status().counts
    assert counts.latency.p50_s == counts.latency.p95_s == pytest.approx(0.12)
    assert 0 <= counts.inference.p50_s < 0.1


def test_real_time_chunking_commits_what_inference_usually_takes(rig):
    rig = rig(planner=HoverPlanner(horizon=8, radius_m=0.05), mode=ChunkMode.REAL_TIME).ready()
    rig.observe()
    assert rig.worker.request.prefix is None
    for _ in range(7):
        rig.tick()
    rig.worker.finish()
    rig.tick()
    rig.observe()
    assert len(rig.worker.request.prefix.gripper) == 2


def test_a_planner_process_that_is_killed_stops_the_arms_and_nothing_else(rig):
    worker = ProcessWorker(functools.partial(HoverPlanner, horizon=8, delay_s=0.2), cameras=1, image_size=16)
    try:
        worker.warm_up()
        rig = rig(worker=worker).ready()
        rig.observe()
        wait_for(rig, lambda outcome: isinstance(outcome, Target))
        rig.observe()
        os.kill(worker.pid, signal.SIGKILL)
        outcome = wait_for(rig, lambda outcome: isinstance(outcome, Hold))
        assert outcome.reason is HoldReason.INFERENCE_FAILED and 'SIGKILL' in outcome.detail
        refused = rig.loop.enable(True)
        assert not refused.accepted and 'SIGKILL' in refused.message
        assert rig.loop.status().worker is WorkerState.DEAD
        rig.loop.deactivate()
        assert rig.reason() is HoldReason.INACTIVE
    finally:
        worker.close()


def wait_for(rig, wanted):
    end_s = time.monotonic() + 20
    while not wanted(outcome := rig.tick()):
        assert time.monotonic() < end_s, outcome
        # Slower than the rig's own time, so that no plan ends before the worker is looked at again.
        time.sleep(0.02)
    return outcome


def test_many_threads_at_once_neither_deadlock_nor_mix_epochs(rig):
    worker = ThreadWorker(lambda: HoverPlanner(horizon=8, delay_s=0.001))
    rig = rig(worker=worker).ready()
    worker.warm_up()
    stop, errors, seen = threading.Event(), [], []
    numbers = itertools.count()

    def forever(action):
        def run():
            try:
                while not stop.is_set():
                    action()
                    time.sleep(0.001)
            except Exception as error:
                errors.append(error)
        return threading.Thread(target=run)

    def tick():
        outcome = rig.loop.tick(time.monotonic_ns())
        if isinstance(outcome, Target):
            seen.append((outcome.epoch, rig.loop.status().epoch))

    rig.now_ns = 0
    threads = [forever(action) for action in (
        tick, lambda: rig.loop.observe(time.monotonic_ns()), lambda: rig.loop.observe(time.monotonic_ns()),
        lambda: (rig.loop.set_prompt(f'prompt {next(numbers)}'), time.sleep(0.01)),
        lambda: (rig.loop.enable(next(numbers) % 3 > 0), time.sleep(0.01)),
        lambda: (rig.loop.reset(), time.sleep(0.02)), lambda: (rig.loop.drain_events(), rig.loop.status()))]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + 30
    while len(seen) < 50 and time.monotonic() < end_s and not errors:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    worker.close()
    assert not errors and len(seen) >= 50
    assert all(mine <= newest for mine, newest in seen)
    assert [mine for mine, _ in seen] == sorted(mine for mine, _ in seen)
