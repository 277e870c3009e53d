"""Plan of the tutorial, and its command line."""

from pathlib import Path

import pytest

from apt_demos.steps.step import select_steps
from apt_demos.tutorial.main import main
from apt_demos.tutorial.plan import TutorialConfig, steps

CONTRACT = Path(__file__).resolve().parents[3] / 'apt_bringup' / 'config' / 'aloha_tutorial.yaml'
STEPS = steps(Path('out'), CONTRACT, TutorialConfig())


def test_every_step_uses_only_what_earlier_ones_made():
    outputs, made = {'--out', '--json', '--plots', '--ckpt-dir', '--feature-cache'}, set()
    for one in STEPS:
        before = [None, *one.arguments]
        used = {Path(word) for word, flag in zip(one.arguments, before, strict=False)
                if word.startswith('out/') and flag not in outputs} - {one.output}
        assert used <= made, one.name
        made.add(one.output)


def test_steps_can_be_chosen_by_name():
    phases = tuple((one,) for one in STEPS)
    assert [one.name for one, in select_steps(['train', 'record training'], phases)] == ['record training', 'train']
    assert select_steps([], phases) == phases
    with pytest.raises(ValueError, match="unknown step 'trian'; expected some of 'record training'"):
        select_steps(['trian'], phases)


def test_a_mistake_in_a_name_ends_it_before_anything_starts(tmp_path, capsys):
    assert main(['--out', str(tmp_path / 'out'), '--only', 'bake']) == 2
    assert "unknown step 'bake'" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
