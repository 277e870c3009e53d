"""Demonstration loop, driven by a task scene in place of a live robot."""

from dataclasses import replace

import pytest

from apt_policy.core.sample import Target
from apt_policy.core.topics import EpisodeMark
from apt_sim.tasks.demonstration_loop import DemonstrationLoop, PublishEpisodeMark, PublishInstruction, ResetScene
from apt_sim.tasks.task import Skill
from apt_sim.tasks.task_sampler import NoTaskError


def perform(cycle, task_scene, seconds=60.0, obey=True):
    """Run the loop and return its actions in order; a series of targets is one 'target'."""
    log, now = [], task_scene.reset(0)
    for _ in range(round(seconds * 50)):
        acts = cycle.tick(now)
        for act in acts:
            if isinstance(act, ResetScene):
                now = task_scene.reset(act.seed)
                cycle.on_reset_done(now.stamp_ns)
            word = 'target' if isinstance(act, Target) else act
            if word != 'target' or log[-1:] != ['target']:
                log.append(word)
        targets = [act for act in acts if isinstance(act, Target)]
        now = task_scene.step(targets[0]) if targets and obey else task_scene.hold()
        if cycle.finished:
            break
    return log


def test_each_episode_is_instructed_marked_and_ended_in_this_order(task_scene, contract):
    cycle = DemonstrationLoop(contract, [Skill.PICK], seed=5, episodes=2)
    log = perform(cycle, task_scene)
    kinds = [act if isinstance(act, str) else type(act) for act in log]
    assert kinds == 2 * [ResetScene, PublishInstruction, PublishEpisodeMark, 'target', PublishEpisodeMark]
    assert [act.seed for act in log if isinstance(act, ResetScene)] == [5, 6]
    assert [act.mark for act in log if isinstance(act, PublishEpisodeMark)] == 2 * [EpisodeMark.BEGIN, EpisodeMark.END]
    assert cycle.finished and cycle.counts['succeeded'] == 2


def test_a_demonstration_that_failed_is_discarded_and_does_not_count(task_scene, contract):
    """The arms hold, so the object is not lifted."""
    cycle = DemonstrationLoop(contract, [Skill.PICK], seed=5, episodes=1)
    log = perform(cycle, task_scene, seconds=25.0, obey=False)
    marks = [act for act in log if isinstance(act, PublishEpisodeMark)]
    assert marks[1].mark is EpisodeMark.DISCARD and 'was not done' in marks[1].reason
    assert cycle.counts['failed'] >= 1 and not cycle.finished


def test_aborting_discards_an_open_episode_only(task_scene, contract):
    idle = DemonstrationLoop(contract, [Skill.PICK], seed=5, episodes=1)
    assert idle.abort('Ctrl-C') == []
    running = DemonstrationLoop(contract, [Skill.PICK], seed=5, episodes=1)
    perform(running, task_scene, seconds=2.0)
    assert [act.mark for act in running.abort('Ctrl-C')] == [EpisodeMark.DISCARD]
    assert running.finished


def test_scenes_without_a_feasible_task_are_skipped_up_to_a_limit(contract, scene):
    cycle, seeds = DemonstrationLoop(contract, [Skill.PICK], seed=0, episodes=1), []
    empty = scene(objects={})

    def go_on():
        for tick in range(10_000):
            now = replace(empty, stamp_ns=tick * 20_000_000)
            for act in cycle.tick(now):
                seeds.append(act.seed)
                cycle.on_reset_done(now.stamp_ns)

    with pytest.raises(NoTaskError, match='use another scene'):
        go_on()
    assert seeds == list(range(20))
