"""Command lines: what is typed becomes a dataclass, what is mistyped one line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from tyro.conf import Positional

from apt_policy.cli import UsageError, flag, parse, require_at_least, require_words


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Convert things."""

    inputs: Annotated[tuple[Path, ...], Positional, flag('INPUT')] = ()
    """Files to convert."""
    out: Annotated[Path, flag('FOLDER')]
    """Folder to write."""
    source: Annotated[Literal['rosbag', 'lerobot'], flag(name='from')] = 'rosbag'
    """Kind of input."""
    batch_size: Annotated[int, flag('N', '--bs')] = 8
    """Items per batch."""
    sheet: bool = True
    """Draw a contact sheet."""
    workers: Annotated[int, flag('N', default='one per core')] = 0
    """Processes."""
    gc: Annotated[bool | None, flag('{True,False}', default='that of the recipe')] = None
    """Gradient checkpointing."""
    speed: Annotated[float | None, flag('X', default='')] = None
    """Speed."""

    def __post_init__(self):
        require_words('INPUT', self.inputs)
        require_at_least(0, workers=self.workers)


def read(words):
    return parse(Arguments, words.split(), program='apt-x', examples='examples:\n  apt-x a b\n  apt-x c',
                 renamed={'--jobs': '--workers'})


def test_words_become_values():
    given = read('a b --out o --from lerobot --bs 3 --gc --speed 0.5')
    assert given == Arguments(inputs=(Path('a'), Path('b')), out=Path('o'), source='lerobot', batch_size=3, gc=True,
                              speed=0.5)
    assert read('a --out o --no-gc --batch_size=4') == Arguments(inputs=(Path('a'),), out=Path('o'), batch_size=4,
                                                                 gc=False)
    assert read('a --out o --bs 1 --bs 2').batch_size == 2, 'the last one counts'


def test_words_after_a_separator_are_positional():
    assert read('--out o -- a b') == read('a b --out o')
    assert read('--out o -- --strange').inputs == (Path('--strange'),)


def test_an_old_name_works_and_the_new_one_is_said_once(capsys):
    assert read('a --out o --jobs 2 --jobs=3').workers == 3
    assert capsys.readouterr().err == 'apt-x: --jobs is now --workers; the old name ends with release 0.3\n'


@pytest.mark.parametrize(('words', 'text'), [
    ('a', 'missing: --out (see --help)'),
    ('--out o', 'missing: INPUT (see --help)'),
    ('a --out', '--out has no value (see --help)'),
    ('a --out o --sheet=False', '--sheet takes no value (see --help)'),
    ('a --out o --no-sheet=x', '--no-sheet takes no value (see --help)'),
    ('a --out o --wrokers 3', 'there is no --wrokers; did you mean --workers? (see --help)'),
    ('a --out o --quux', 'there is no --quux (see --help)'),
    ('a --out o --gc b', "unexpected word 'b' (see --help)"),
    ('a --out o --from rosbga', "--from is 'rosbga'; did you mean rosbag? Expected one of: rosbag, lerobot"),
    ('a --out o --from zzz', "--from is 'zzz'; expected one of: rosbag, lerobot"),
    ('a --out o --workers many', "--workers is 'many'; expected a whole number"),
    ('a --out o --workers -1', '--workers is -1; expected 0 or more'),
    ('a --out o --speed fast', "--speed is 'fast'; expected a number")])
def test_what_cannot_be_used_is_one_sentence(words, text):
    with pytest.raises(UsageError) as refused:
        read(words)
    assert str(refused.value) == text


def test_help_has_the_description_examples_and_the_words_of_each_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        read('--help')
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(text in said for text in ('Convert things.', '  apt-x a b\n', '--bs N, --batch-size N', 'one per core'))
