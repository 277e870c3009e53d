"""The command line of ``apt-finetune-vlm``."""

import pytest

from apt_training.vlm_finetune.main import main


@pytest.fixture
def run(tmp_path, caplog, capsys):
    """Exit status and log of a run."""
    def run(*words):
        status = main([*map(str, words), '--out', str(tmp_path / 'vlm'), '--workers', '0', '--no-half'])
        return status, caplog.text + capsys.readouterr().err
    return run


def test_a_few_steps_leave_a_model_and_its_evaluation(run, write_sheet, tmp_path):
    dataset, held_out = write_sheet(tmp_path / 'lessons', count=2), write_sheet(tmp_path / 'held_out', count=1)
    status, said = run(dataset, '--held-out', held_out, '--max-steps', '2', '--grounding-steps', '1', '--bs', '2')
    assert status == 0 and 'Evaluation: loss ' in said and 'answer_tokens_right ' in said
    made = {path.name for path in (tmp_path / 'vlm').iterdir()}
    assert made >= {'config.json', 'model.safetensors', 'tokenizer.json', 'preprocessor_config.json',
                    'examination.json'}


def test_an_empty_folder_is_named_with_the_program_that_fills_it(run, tmp_path):
    (tmp_path / 'empty').mkdir()
    status, said = run(tmp_path / 'empty')
    assert status == 2 and 'empty; apt-sim-vqa writes such folders' in said
    assert not (tmp_path / 'vlm').exists()


@pytest.mark.parametrize(('words', 'message'), [
    (('--lr', '5'), 'lr is 5.0; expected between 0 and 1'), (('--max-steps', '0'), 'steps is 0; expected 1 or more'),
    (('--grounding-steps', '-3'), 'grounding_warmup_steps is -3; expected 0 or more')])
def test_a_number_out_of_range_is_named(run, write_sheet, tmp_path, words, message):
    status, said = run(write_sheet(tmp_path / 'lessons', count=1), *words)
    assert status == 2 and message in said and not (tmp_path / 'vlm').exists()


def test_a_value_that_is_not_a_number_is_named(run, tmp_path):
    status, said = run(tmp_path, '--max-steps', 'many')
    assert status == 2 and "apt-finetune-vlm: --max-steps is 'many'; expected a whole number" in said


def test_a_missing_image_is_named(run, write_sheet, tmp_path):
    dataset = write_sheet(tmp_path / 'lessons', count=2)
    (dataset / '001_0.png').unlink()
    status, said = run(dataset, '--max-steps', '2', '--grounding-steps', '0', '--bs', '2')
    assert status == 2 and '001_0.png is missing or not an image' in said


def test_a_folder_without_a_model_is_named(run, write_sheet, tmp_path):
    (tmp_path / 'empty').mkdir()
    status, said = run(write_sheet(tmp_path / 'lessons', count=1), '--vlm', tmp_path / 'empty')
    assert status == 2 and 'cannot load the vision-language model' in said
