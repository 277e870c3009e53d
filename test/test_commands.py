"""Commands: the documentation's are understood, help is quick, and flags agree with what they configure."""

import re
import shlex
import subprocess
import sys
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from apt_bringup import arguments as launch_arguments
from apt_bringup.run import DECLARED
from apt_policy.cli import parse
from apt_policy.ros import ctl

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted(page for page in (ROOT / 'docs').glob('*.md') if page.name != 'moved.md')]
# Program -> its package, which has modules ``main`` and ``arguments``, and the class of its flags.
PROGRAMS = {
    'apt-convert': ('apt_training.convert', 'ConvertArguments'),
    'apt-eval': ('apt_training.evaluate', 'EvalArguments'),
    'apt-export': ('apt_training.export', 'ExportArguments'),
    'apt-finetune-vlm': ('apt_training.vlm_finetune', 'VlmFinetuneArguments'),
    'apt-inspect': ('apt_training.inspect', 'InspectArguments'),
    'apt-record': ('apt_recorder', 'RecordArguments'),
    'apt-sim-collect': ('apt_sim.collect', 'CollectArguments'),
    'apt-sim-eval': ('apt_sim.evaluation', 'SimEvalArguments'),
    'apt-sim-vqa': ('apt_sim.vqa', 'VqaArguments'),
    'apt-train': ('apt_training.train', 'TrainFlags'),
    'demo': ('apt_demos.demo', 'DemoArguments'),
    'study': ('apt_demos.study', 'StudyArguments'),
    'tutorial': ('apt_demos.tutorial', 'TutorialArguments'),
}
MODULES = {f'{package}.main': program for program, (package, _) in PROGRAMS.items()}
HEAVY = {'torch', 'transformers', 'mujoco', 'cv2', 'scipy', 'h5py', 'pyarrow', 'matplotlib', 'rclpy', 'deepspeed',
         'ray'}
# As released with the method, and in our own releases before 0.2.
PUBLISHED = (
    'apt-train --backend deepspeed --gpus 4 --stage 0 --config base --va-name prior --va-conti --bs 8 --max-iter 9000 '
    '--ds-zero 2 --accum 2 --ckpt_dir runs --log_dir logs --dataloader_timeout 30 --gc --local_rank=0 --data a=1 b',
    'apt-train --stage 1 --vla-name robot --vla-conti --load-from-va --pretrained-ckpt x/ckpt.pt --vlm-mode full '
    '--vlm-lr 2e-5 --no-gc --draws 4 --preflight',
    'apt-teach data/questions --out models/vlm --bs 16 --steps 100 --looking 10 --no-half',
    'apt-pack out/runs/robot --out my_policy --half',
    'apt-eval run episodes --steps 5 --batch 4 --swap-with a --swap-with b',
    'apt-convert bag --contract robot.yaml --out episodes --jobs 2 --receive cam_high --no-sheet',
    'apt-sim-data --episodes 9 --out data --jobs 2 --disturb 0.01 --stumble 0.3 --still-cameras',
    'apt-sim-questions --sheets 10 --seed 1 --out data/held_out --jobs 3',
    'apt-sim-eval --checkpoint runs/vla --split seen --json out.json --jobs 2',
    'apt-operate --namespace left prompt "pick up the red cup" --timeout 3',
    'study --quick --jobs 2 --sheets 3 --looking 4 --lessons 5 --iterations 6 --batch 7 --trials 8',
    'tutorial --iterations 5 --fresh')
OLD = {'apt-operate': 'apt-ctl', 'apt-pack': 'apt-export', 'apt-sim-data': 'apt-sim-collect',
       'apt-sim-questions': 'apt-sim-vqa', 'apt-teach': 'apt-finetune-vlm'}


def commands_of(page):
    """Words of each command in the page's code blocks."""
    text = page.read_text()
    blocks = re.findall(r'^```\w*\n(.*?)^```', text, re.M | re.S) + re.findall(r'(?:^ {4}.*\n)+', text, re.M)
    for line in '\n'.join(blocks).replace('\\\n', ' ').splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # Prose or output with a lone quote.
        while words and (words[0] in ('$', 'sudo') or re.fullmatch(r'[A-Z_]+=.*', words[0])):
            words.pop(0)
        if '-m' in words and words[0] in ('python', 'python3', 'torchrun'):
            words = words[words.index('-m') + 1:]
        elif '--module' in words and words[0] == 'deepspeed':
            words = words[words.index('--module') + 1:]
        known = {*PROGRAMS, *MODULES, *OLD, 'apt-ctl', 'apt_bringup.run'}
        if words and words[0] in known and not {'...', '--help'} & set(words):
            yield words


def read(words):
    program, *argv = words
    program = OLD.get(program, MODULES.get(program, program))
    if program == 'apt-ctl':
        return ctl._parser().parse_args(argv)
    if program == 'apt_bringup.run':
        declared = DECLARED[argv[0]]
        given = launch_arguments.parse([word for word in argv if ':=' in word])
        paths = {argument.name for argument in declared if argument.is_path}
        given = {name: '' if name in paths else value for name, value in given.items()}
        return launch_arguments.resolve(given, declared)
    package, name = PROGRAMS[program]
    if '--ros-args' in argv:
        argv = argv[:argv.index('--ros-args')]
    return parse(getattr(import_module(f'{package}.arguments'), name), argv, program=program,
                 renamed=getattr(import_module(f'{package}.main'), '_RENAMED', {}))


DOCUMENTED = [(page.name, words) for page in PAGES for words in commands_of(page)]


@pytest.mark.parametrize(('page', 'words'), DOCUMENTED, ids=[' '.join([page, *words]) for page, words in DOCUMENTED])
def test_a_command_of_the_documentation_is_understood_and_has_no_old_name(page, words, capsys):
    read(words)
    assert words[0] not in OLD and 'is now' not in capsys.readouterr().err


def test_the_documentation_shows_every_command():
    assert len(DOCUMENTED) > 40
    shown = {words[0] for _, words in DOCUMENTED}
    assert {name for name in (*PROGRAMS, 'apt-ctl') if name.startswith('apt-')} <= shown


@pytest.mark.parametrize('line', PUBLISHED)
def test_a_published_command_is_understood(line):
    read(shlex.split(line))


@pytest.mark.parametrize('program', PROGRAMS)
def test_help_imports_nothing_that_takes_long(program):
    package, _ = PROGRAMS[program]
    code = (f'import sys\nfrom {package}.main import main\n'
            'try:\n    main(["--help"])\nexcept SystemExit as ended:\n    assert not ended.code\n'
            'print(*sys.modules, file=sys.stderr)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True)
    assert f'usage: {program} ' in done.stdout
    assert not HEAVY & set(done.stderr.split())


def choices(package, name, field):
    """Values that a flag accepts."""
    hint = get_type_hints(getattr(import_module(f'{package}.arguments'), name))[field]
    return {value for part in (hint, *get_args(hint)) for value in get_args(part) if isinstance(value, (str, int))}


@pytest.mark.parametrize(('program', 'field', 'module', 'enum'), [
    ('apt-convert', 'split_by', 'apt_training.convert.rosbag.config', 'SegmentationMode'),
    ('apt-convert', 'labels', 'apt_training.convert.rosbag.config', 'LabelMode'),
    ('apt-convert', 'ee_from', 'apt_training.convert.rosbag.config', 'EndEffector'),
    ('apt-convert', 'reader', 'apt_training.convert.rosbag.reader_backends', 'ReaderChoice'),
    ('apt-convert', 'storage', 'apt_training.episodes.episode', 'ImageStorage'),
    ('apt-record', 'storage', 'apt_recorder.storage', 'BagStorage'),
    ('apt-record', 'compress', 'apt_recorder.storage', 'Compression'),
    ('apt-train', 'backend', 'apt_training.train.config', 'BackendKind'),
    ('apt-train', 'precision', 'apt_training.train.config', 'TrainingPrecision'),
    ('apt-train', 'vlm_mode', 'apt_policy.model.config', 'VlmMode'),
    ('apt-train', 'transfer', 'apt_policy.model.stages', 'Transfer')])
def test_a_flag_accepts_what_can_be_configured(program, field, module, enum):
    kind = getattr(import_module(module), enum)
    assert issubclass(kind, Enum) and choices(*PROGRAMS[program], field) == {each.value for each in kind}


@pytest.mark.parametrize(('program', 'flags', 'module', 'config'), [
    ('apt-eval', {'samples': 'samples', 'seed': 'seed', 'noise_scale': 'noise_scale', 'workers': 'workers'},
     'apt_training.evaluate.evaluation', 'EvaluationConfig'),
    ('apt-finetune-vlm', {'max_steps': 'steps', 'grounding_steps': 'grounding_warmup_steps',
                          'batch_size': 'batch_size', 'lr': 'lr', 'seed': 'seed',
                          'save_every': 'save_every', 'workers': 'workers', 'half': 'half', 'vlm': 'vlm'},
     'apt_training.vlm_finetune.finetune', 'VlmFinetuneConfig'),
    ('apt-sim-eval', {'replan': 'replan_s', 'delay': 'delay_s', 'patience': 'patience'},
     'apt_sim.evaluation.evaluate', 'RolloutConfig'),
    ('apt-sim-eval', {'noise_scale': 'noise_scale'}, 'apt_policy.inference.planner_config', 'PlannerConfig'),
    ('apt-convert', {'max_drops': 'max_drops'}, 'apt_training.convert.rosbag.config', 'RosbagConversionConfig'),
    ('tutorial', {'episodes': 'episodes', 'held_out': 'held_out', 'max_steps': 'iterations', 'watch': 'watch_s'},
     'apt_demos.tutorial.plan', 'TutorialConfig')])
def test_a_flag_has_the_default_of_what_it_configures(program, flags, module, config):
    package, name = PROGRAMS[program]
    arguments, settings = getattr(import_module(f'{package}.arguments'), name), getattr(import_module(module), config)
    assert {flag: getattr(arguments, flag) for flag in flags} == {
        flag: getattr(settings, field) for flag, field in flags.items()}


@pytest.mark.parametrize('quick', [False, True])
def test_the_study_says_its_sizes(quick):
    from apt_demos.study.plan import FULL, QUICK
    from apt_demos.study.run import _sizes
    given = read(['study', *(['--quick'] if quick else [])])
    assert _sizes(given) == (QUICK if quick else FULL)
    done = subprocess.run([sys.executable, '-m', 'apt_demos.study.main', '--help'], capture_output=True, text=True,
                          timeout=60, check=True)
    said = ' '.join(done.stdout.replace('│', ' ').split())
    for field in ('sheets', 'looking', 'lessons', 'demonstrations', 'iterations', 'batch', 'trials'):
        assert f'default: {getattr(FULL, field)}, quick {getattr(QUICK, field)}' in said
    assert f'default: {FULL.seeds})' in said


@pytest.mark.parametrize('program', PROGRAMS)
def test_a_mistyped_flag_is_one_line_and_names_the_nearest(program):
    package, _ = PROGRAMS[program]
    flag = {'apt-eval': '--contract', 'apt-inspect': '--sheet', 'apt-record': '--storage', 'apt-sim-eval': '--contract',
            'apt-train': '--stage'}.get(program, '--out')
    done = subprocess.run([sys.executable, '-m', f'{package}.main', f'{flag}x', 'a'], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr == f'{program}: there is no {flag}x; did you mean {flag}? (see --help)\n'
