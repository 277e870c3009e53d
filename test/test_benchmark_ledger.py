"""The ledger of ``make bench``, and the program that runs all benchmarks."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'benchmarks' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_entry_is_merged_by_name_and_the_others_stay(tmp_path):
    record, path = load('ledger').record, tmp_path / 'out' / 'bench.json'
    for value in (1.0, 2.0):
        record(name='speed', value=value, unit='x', goal='>= 4', command='python b.py', path=path)
    record(name='jitter', value=3.0, unit='ms', goal='', command='python c.py', path=path)
    assert json.loads(path.read_text()) == [
        {'name': 'jitter', 'value': 3.0, 'unit': 'ms', 'goal': '', 'command': 'python c.py'},
        {'name': 'speed', 'value': 2.0, 'unit': 'x', 'goal': '>= 4', 'command': 'python b.py'}]


@pytest.mark.parametrize('text', ['{', '{"name": "x"}', '[1]'])
def test_a_ledger_that_is_none_is_refused_and_kept(tmp_path, text):
    path = tmp_path / 'bench.json'
    path.write_text(text)
    with pytest.raises(ValueError, match='remove it'):
        load('ledger').record(name='a', value=1.0, unit='s', goal='', command='x', path=path)
    assert path.read_text() == text


def test_one_failing_benchmark_does_not_hide_the_next(tmp_path, capfd):
    (tmp_path / 'bench_a.py').write_text('raise SystemExit(3)')
    (tmp_path / 'bench_b.py').write_text('print("measured")')
    assert load('run_all').run_all(tmp_path) == 1
    out = capfd.readouterr().out
    assert 'measured' in out
    assert '1 of 2 benchmarks succeeded; failed: bench_a.py' in out


def test_no_benchmark_at_all_is_a_failure(tmp_path):
    assert load('run_all').run_all(tmp_path) == 1
