"""The language of the code, as executable rules: one meaning for a class name, docstrings that are plain sentences.

``docs/glossary.md`` has the words. Everything is read with ``ast``, so the tests need neither ROS nor torch.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = subprocess.run([sys.executable, ROOT / 'scripts' / 'packages'], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.split()
SOURCES = {str(path.relative_to(ROOT)): path for package in PACKAGES
           for path in sorted((ROOT / package / package).rglob('*.py')) if path.read_text().strip()}
# A docstring that begins with one of them answers a question that the reader has not asked yet.
FRAGMENTS = {
    'Of', 'What', 'Where', 'Whether', 'How', 'Who', 'Whoever', 'Whose', 'Which', 'Why', 'Likewise', 'As', 'Also', 'And',
    'But', 'So', 'Told', 'It', 'Its', 'They', 'Their', 'Nobody', 'Somebody'}
NOT_SAID = re.compile(r'\b(somebody|nobody|whoever|likewise)\b', re.IGNORECASE)


def docstrings(tree):
    """Name, line and text of the docstrings of a module, its classes, functions and fields."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, 'name', 'module'), node.body[0].lineno, text
        if isinstance(node, (ast.Module, ast.ClassDef)):
            for field, after in pairwise(node.body):
                if isinstance(field, (ast.Assign, ast.AnnAssign)) and isinstance(after, ast.Expr) \
                        and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                    yield ast.unparse(field).split('\n')[0][:40], after.lineno, after.value.value


def fragments(source):
    """Docstrings of ``source`` that are no plain sentences, as lines to read."""
    for name, line, text in docstrings(ast.parse(source)):
        first = re.match(r'\W*(\w+)', text)
        if (first and first[1] in FRAGMENTS) or text.startswith('One that') or NOT_SAID.search(text):
            yield f'line {line}, {name}: {text[:80]!r}'


@pytest.mark.parametrize('path', SOURCES)
def test_docstrings_are_plain_sentences(path):
    assert not list(fragments(SOURCES[path].read_text()))


@pytest.mark.parametrize('text', ['Of all arms.', 'Whether it moves.', 'Path, by whoever asks.'])
def test_a_fragment_is_found_wherever_it_stands(text):
    assert list(fragments(f'"""{text}"""\n'))
    assert list(fragments(f'class A:\n    b: int = 1\n    """{text}"""\n'))
    assert list(fragments(f'def f():\n    """{text}"""\n'))
    assert not list(fragments('def f():\n    """Return the pose of the arm."""\n'))


def test_no_public_class_name_stands_for_two_things():
    homes = defaultdict(list)
    for path, file in SOURCES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
                homes[node.name].append(path)
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}
