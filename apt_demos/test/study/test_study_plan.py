"""Plan of the study: complete, fair, and valid for the commands' parsers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from apt_demos.steps.step import select_steps
from apt_demos.study.main import main
from apt_demos.study.plan import FULL, QUICK, StudySetup, Variant, score_file, steps
from apt_policy.cli import parse
from apt_sim.collect.arguments import CollectArguments
from apt_sim.evaluation.arguments import SimEvalArguments
from apt_sim.vqa.arguments import VqaArguments
from apt_training.bulk.output_folder import prepare_output_folder
from apt_training.train.arguments import TrainFlags
from apt_training.train.flags import resolve
from apt_training.vlm_finetune.arguments import VlmFinetuneArguments

CONTRACT = Path(__file__).resolve().parents[3] / 'apt_bringup' / 'config' / 'aloha_small.yaml'
OUT = Path('out/study')
OUTPUTS = {'--out', '--json'}
ARGUMENTS = {'apt_sim.vqa.main': VqaArguments, 'apt_sim.collect.main': CollectArguments,
             'apt_training.vlm_finetune.main': VlmFinetuneArguments, 'apt_training.train.main': TrainFlags,
             'apt_sim.evaluation.main': SimEvalArguments}


def phases(config=FULL, jobs=2, **own):
    return steps(StudySetup(out=OUT, contract=CONTRACT, config=config, **own), jobs=jobs)


def values(step):
    """Parse a step's arguments with the parser of its command."""
    module, words = step.module, list(step.arguments)
    if module == 'torch.distributed.run':
        at = words.index('-m')
        module, words = words[at + 1], words[at + 2:]
    return parse(ARGUMENTS[module], words, program=module)


def trainings(config=FULL):
    return {step.name: values(step) for phase in phases(config) for step in phase
            if step.module == 'apt_training.train.main'}


def used_by(step):
    """Return the folders that a step reads."""
    before = [None, *step.arguments]
    read = {Path(word) for word, flag in zip(step.arguments, before, strict=False)
            if word.startswith(str(OUT)) and flag not in OUTPUTS | {'--ckpt-dir'}}
    if step.module == 'apt_training.train.main' and (given := values(step)).load_from_va is None and given.stage == '1':
        read.add(given.ckpt_dir / given.va_name)
    return read


@pytest.mark.parametrize('config', [FULL, QUICK])
def test_every_step_uses_only_what_earlier_phases_made(config):
    made = set()
    for phase in phases(config):
        for step in phase:
            for folder in used_by(step):
                assert any(folder == product or folder in product.parents for product in made), (step.name, folder)
        made |= {step.output for step in phase}


def test_no_two_steps_make_the_same():
    every = [step for phase in phases() for step in phase]
    assert all(count == 1 for of in ('name', 'output', 'command')
               for count in Counter(getattr(step, of) for step in every).values())
    assert len(every) == 3 + 3 + 9 + 9


@pytest.mark.parametrize('config', [FULL, QUICK])
def test_every_command_understands_its_words(config):
    for phase in phases(config):
        for step in phase:
            if step.module == 'apt_training.train.main':
                assert resolve(values(step)).contract == CONTRACT
            else:
                values(step)


def test_all_ways_take_the_same_number_of_steps_over_the_same_things():
    given = trainings()
    for seed in range(FULL.seeds):
        one, two, frozen = (given[f'{variant.value} {seed}'] for variant in Variant)
        prior = given[f'prior {seed}']
        assert one.max_steps == 2 * FULL.iterations
        assert one.max_steps == prior.max_steps + two.max_steps == prior.max_steps + frozen.max_steps
        for name in ('data', 'vlm', 'contract', 'batch_size', 'seed', 'config', 'lr', 'augment', 'noise_samples'):
            assert len({str(getattr(each, name)) for each in (one, two, frozen, prior)}) == 1, name
        assert (one.load_from_va, two.load_from_va, frozen.load_from_va) == (False, None, None)
        assert (one.freeze_prior, two.freeze_prior, frozen.freeze_prior) == (None, None, True)
        assert two.va_name == frozen.va_name == prior.va_name and prior.stage == '0'
        assert one.seed == seed


def test_seeds_share_data_and_model_and_nothing_else():
    given = trainings()
    assert len({(str(each.data), each.vlm) for each in given.values()}) == 1
    assert {each.seed for each in given.values()} == {0, 1, 2}
    assert len({each.vla_name or each.va_name for each in given.values()}) == len(given) == 12


def test_scores_are_named_after_the_policy_of_their_rollouts():
    by_file = {step.output: values(step) for step in phases()[-1]}
    for variant in Variant:
        for seed in range(FULL.seeds):
            given = by_file.pop(score_file(OUT, FULL, variant, seed))
            assert Path(given.checkpoint) == OUT / 'runs' / f'{variant.value}_{seed}'
            assert (given.episodes, given.split) == (FULL.trials, ','.join(FULL.splits))
    assert not by_file


def test_splits_are_those_that_the_skills_allow():
    assert FULL.splits == ('seen', 'unseen_object', 'unseen_container', 'unseen_wording', 'composed')
    assert QUICK.splits == ('seen', 'unseen_object', 'unseen_wording')


def test_more_rollouts_keep_the_trained_policies():
    few, many = ({step.output for phase in phases(replace(FULL, trials=trials)) for step in phase}
                 for trials in (7, 70))
    made_anew = {path.relative_to(OUT).parts[0] for path in many - few}
    assert made_anew == {'scores_70'} and len(many - few) == 9


@pytest.mark.parametrize(('jobs', 'processes'), [(1, 1), (2, 2), (4, 4), (12, 8), (64, 32)])
def test_processes_share_the_batch_of_the_lessons(jobs, processes):
    lessons = phases(jobs=jobs)[1][0]
    assert values(lessons).batch_size == 32 // processes and f'--nproc-per-node {processes} ' in lessons.command


def test_a_folder_of_other_sizes_is_refused_before_anything_starts(tmp_path, capsys):
    out = tmp_path / 'out'
    prepare_output_folder(out, {**StudySetup(out=out, contract=CONTRACT, config=QUICK).facts(), 'sheets': 7})
    assert main(['--quick', '--out', str(out)]) == 2
    assert 'was made with sheets = 7, these settings have 60' in ' '.join(capsys.readouterr().err.split())
    assert [file.name for file in out.iterdir()] == ['generation.json']


def test_what_is_there_already_is_not_made():
    made = phases()
    with_vlm, with_data = phases(pretrained_vlm='models/table'), phases(existing_data=('data/train=2', 'data/again'))
    assert [step.name for phase in with_vlm for step in phase] == [
        step.name for phase in made for step in phase if step.name not in ('questions', 'lessons')]
    assert [step.name for step in with_data[0]] == ['questions']
    for each, words in ((with_vlm, '--vlm models/table '), (with_data, '--data data/train=2 data/again ')):
        trained = [step for phase in each for step in phase if step.module == 'apt_training.train.main']
        assert trained and all(words in step.command and values(step) for step in trained)


def test_more_rollouts_belong_to_the_same_study_and_another_model_does_not():
    one, more, other = (StudySetup(out=OUT, contract=CONTRACT, config=config, pretrained_vlm=vlm).facts() for config,
                        vlm in (
        (FULL, ''), (replace(FULL, trials=7, seeds=5), ''), (FULL, 'models/table')))
    assert one == more != other


def test_steps_can_be_chosen_by_name():
    chosen = select_steps(['trials one_stage 0', 'lessons'], phases())
    assert [[step.name for step in phase] for phase in chosen] == [['lessons'], ['trials one_stage 0']]


def test_a_mistake_in_a_name_ends_it_before_anything_starts(tmp_path, capsys):
    assert main(['--quick', '--out', str(tmp_path / 'out'), '--only', 'bake']) == 2
    said = ' '.join(capsys.readouterr().err.split())
    assert "study: unknown step 'bake'; expected some of 'questions', 'demonstrations', 'lessons'" in said
    assert not (tmp_path / 'out').exists()


def test_a_skill_that_does_not_exist_is_named(tmp_path, capsys):
    assert main(['--quick', '--out', str(tmp_path / 'out'), '--skills', 'pikc']) == 2
    assert "there is no skill 'pikc'; did you mean pick?" in ' '.join(capsys.readouterr().err.split())
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('words', [('--rollouts', '0'), ('--seeds', '-1'), ('--workers', '0'),
                                   ('--batch-size', 'many')])
def test_a_number_that_cannot_be_is_named(tmp_path, capsys, words):
    assert main(['--quick', '--out', str(tmp_path / 'out'), *words]) == 2
    expected = "'many'; expected a whole number" if words[1] == 'many' else f'{words[1]}; expected 1 or more'
    assert f'study: {words[0]} is {expected}' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
