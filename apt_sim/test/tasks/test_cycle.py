"""The course of a session: driven by the physics stage in place of a live robot."""

from dataclasses import replace

import pytest

from apt_policy.core.sample import Target
from apt_policy.core.topics import EpisodeMark
from apt_sim.tasks.cycle import Cycle, Instruct, Mark, Reset
from apt_sim.tasks.draw import NoTaskError
from apt_sim.tasks.task import Skill


def perform(cycle, stage, seconds=60.0, obey=True):
    """Everything that a session asks for, in order, targets as 'target' once each time they begin."""
    log, now = [], stage.reset(0)
    for _ in range(round(seconds * 50)):
        acts = cycle.tick(now)
        for act in acts:
            if isinstance(act, Reset):
                now = stage.reset(act.seed)
                cycle.was_reset(now.stamp_ns)
            word = 'target' if isinstance(act, Target) else act
            if word != 'target' or log[-1:] != ['target']:
                log.append(word)
        targets = [act for act in acts if isinstance(act, Target)]
        now = stage.follow(targets[0]) if targets and obey else stage.wait()
        if cycle.finished:
            break
    return log


def test_each_episode_is_instructed_marked_and_ended_in_this_order(stage, contract):
    cycle = Cycle(contract, [Skill.PICK], seed=5, episodes=2)
    log = perform(cycle, stage)
    kinds = [act if isinstance(act, str) else type(act) for act in log]
    assert kinds == 2 * [Reset, Instruct, Mark, 'target', Mark]
    assert [act.seed for act in log if isinstance(act, Reset)] == [5, 6]
    assert [act.mark for act in log if isinstance(act, Mark)] == 2 * [EpisodeMark.BEGIN, EpisodeMark.END]
    assert cycle.finished and cycle.tally['succeeded'] == 2


def test_a_demonstration_that_failed_is_discarded_and_does_not_count(stage, contract):
    """The arms do not follow: nothing is picked, however well it was shown."""
    cycle = Cycle(contract, [Skill.PICK], seed=5, episodes=1)
    log = perform(cycle, stage, seconds=25.0, obey=False)
    marks = [act for act in log if isinstance(act, Mark)]
    assert marks[1].mark is EpisodeMark.DISCARD and 'was not done' in marks[1].reason
    assert cycle.tally['failed'] >= 1 and not cycle.finished


def test_breaking_off_discards_what_is_open_and_only_that(stage, contract):
    idle = Cycle(contract, [Skill.PICK], seed=5, episodes=1)
    assert idle.break_off('Ctrl-C') == []
    running = Cycle(contract, [Skill.PICK], seed=5, episodes=1)
    perform(running, stage, seconds=2.0)
    assert [act.mark for act in running.break_off('Ctrl-C')] == [EpisodeMark.DISCARD]
    assert running.finished


def test_scenes_that_allow_nothing_are_passed_over_until_it_is_hopeless(contract, scene):
    cycle, seeds = Cycle(contract, [Skill.PICK], seed=0, episodes=1), []
    empty = scene(objects={})

    def go_on():
        for tick in range(10_000):
            now = replace(empty, stamp_ns=tick * 20_000_000)
            for act in cycle.tick(now):
                seeds.append(act.seed)
                cycle.was_reset(now.stamp_ns)

    with pytest.raises(NoTaskError, match='draw another scene'):
        go_on()
    assert seeds == list(range(20))
