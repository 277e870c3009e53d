"""Report of an evaluation on the terminal."""

from collections.abc import Mapping

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apt_policy.model.checkpoint import Checkpoint
from apt_training.evaluate.evaluation import Evaluation
from apt_training.evaluate.metrics import HorizonErrors, StateErrors, mean_over_horizon
from apt_training.evaluate.probe import ProbeResult
from apt_training.inspect.terminal import new_table


def print_evaluation(evaluation: Evaluation, checkpoint: Checkpoint, console: Console) -> None:
    """Print errors, language probe and gates."""
    console.print(Text(f'{checkpoint.source}: {checkpoint.expert.stage.value}, iteration {checkpoint.iteration}',
                       style='bold'), soft_wrap=True)
    console.print(Text(f'{evaluation.observations} observations of {evaluation.episodes} episodes, '
                       f'{evaluation.errors.samples} samples of each, seed {evaluation.seed}'), soft_wrap=True)
    console.print(_errors(evaluation))
    _print_probe(evaluation, console)
    console.print(_gates(evaluation))


def _errors(evaluation: Evaluation) -> Table:
    """Return a table with the overall errors, then those of each arm at a few times of the horizon."""
    errors = evaluation.errors
    table = new_table('error', 'position', 'rotation', 'gripper', 'best position', 'no motion')
    table.add_row('mean of all', *_cells({kind: mean_over_horizon(getattr(errors, kind), errors.observations)
                                          for kind in ('mean', 'best', 'hold')}), style='bold')
    steps = len(errors.mean.position)
    for arm, name in enumerate(evaluation.arms):
        for step in sorted({0, (steps - 1) // 2, steps - 1}):
            if errors.observations[arm]:
                table.add_row(f'{name} after {(step + 1) * evaluation.step_s:.2g} s',
                              *_cells(_errors_at(errors, step, arm)))
    table.caption = f'best: least error of {errors.samples} samples; no motion: an arm that does not move'
    table.caption_justify = 'left'
    return table


def _errors_at(errors: HorizonErrors, step: int, arm: int) -> Mapping[str, Mapping[str, float]]:
    def row(part: StateErrors) -> Mapping[str, float]:
        return {'position': part.position[step, arm], 'rotation': part.rotation[step, arm],
                'gripper': part.gripper[step, arm]}
    return {'mean': row(errors.mean), 'best': row(errors.best), 'hold': row(errors.hold)}


def _cells(row: Mapping[str, Mapping[str, float]]) -> list[str]:
    mean = row['mean']
    return [_mm(mean['position']), f'{mean["rotation"]:.2f}°', f'{mean["gripper"]:.3f}',
            _mm(row['best']['position']), _mm(row['hold']['position'])]


def _print_probe(evaluation: Evaluation, console: Console) -> None:
    probe = evaluation.probe
    if probe is None:
        console.print(Text(f'language: probe skipped, {evaluation.probe_note}', style='dim'), soft_wrap=True)
        return
    console.print(Text(f'language: the policy {probe.language_following.value}', style='bold'))
    console.print(_probe(probe))


def _probe(probe: ProbeResult) -> Table:
    table = new_table('', 'position', 'rotation', 'gripper')
    rows = {'change with another instruction, same noise': probe.moved,
            'change with other noise, same instruction': probe.floor,
            'error with the own instruction': probe.error_own, 'error with another instruction': probe.error_swapped}
    for name, means in rows.items():
        table.add_row(name, _mm(means['position']), f'{means["rotation"]:.2f}°', f'{means["gripper"]:.3f}')
    table.caption = (f'{probe.ratio:.3f} times the noise floor; {probe.observations} observations, '
                     f'{probe.instructions} instructions')
    table.caption_justify = 'left'
    return table


def _gates(evaluation: Evaluation) -> Table:
    table = new_table('gate after block', 'mixes in VLM layer', 'mean', 'spread', 'least', 'greatest')
    for gate in evaluation.gates:
        table.add_row(str(gate.block), str(gate.vlm_layer), f'{gate.mean:.3f}', f'{gate.spread:.3f}',
                      f'{gate.least:.3f}', f'{gate.greatest:.3f}')
    table.caption = "1: the expert's own stream, 0: the VLM's feature, 0.5: untrained"
    table.caption_justify = 'left'
    return table


def _mm(metres: float) -> str:
    if not np.isfinite(metres):
        return '-'
    return f'{1e3 * metres:.1f} mm' if metres >= 1e-4 or metres == 0 else f'{1e3 * metres:.1g} mm'
