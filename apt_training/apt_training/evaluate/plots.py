"""Figures of an evaluation: errors over the horizon, language probe, gates and examples."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from apt_training.episodes.episode import CameraFrame
from apt_training.evaluate.evaluation import Evaluation, Example
from apt_training.inspect.drawing import arm_colours, new_figure, project_into_view, style_axes

_GREY = '#888888'
_KINDS = {'position': ('position [mm]', 1e3), 'rotation': ('rotation [deg]', 1.0), 'gripper': ('gripper, 0..1', 1.0)}


def draw_errors(evaluation: Evaluation) -> Figure:
    """Plot each kind of error against the time ahead, one colour per arm."""
    errors, colours = evaluation.errors, arm_colours(evaluation.arms)
    figure = new_figure(13.0, 3.8)
    cells = figure.subplots(1, len(_KINDS))
    for axes, (kind, (label, scale)) in zip(cells, _KINDS.items(), strict=True):
        ahead_s = evaluation.step_s * np.arange(1, len(errors.mean.position) + 1)
        for arm, (name, colour) in enumerate(colours.items()):
            if errors.observations[arm]:
                mean, best, hold = (scale * getattr(part, kind)[:, arm]
                                    for part in (errors.mean, errors.best, errors.hold))
                axes.plot(ahead_s, mean, color=colour, lw=1.8, label=name)
                axes.plot(ahead_s, best, color=colour, lw=1.2, ls='--')
                axes.plot(ahead_s, hold, color=colour, lw=1.0, ls=':', alpha=0.7)
        axes.set_title(label, fontsize=10, loc='left')
        axes.set_xlabel('time ahead [s]', fontsize=9)
        axes.set_ylim(bottom=0)
        style_axes(axes)
    for style, name in (('-', f'mean of {errors.samples} samples'), ('--', 'best of them'), (':', 'no motion')):
        cells[0].plot([], [], color=_GREY, ls=style, label=name)
    figure.legend(*cells[0].get_legend_handles_labels(), loc='outside lower center', ncols=8, fontsize=8, frameon=False)
    return figure


def draw_probe(evaluation: Evaluation) -> Figure | None:
    """Plot how much plans change with the instruction and with the noise; return None without a probe."""
    probe = evaluation.probe
    if probe is None:
        return None
    figure = new_figure(9.0, 2.9)
    for axes, (kind, (label, scale)) in zip(figure.subplots(1, len(_KINDS)), _KINDS.items(), strict=True):
        bars = {'swapped': probe.moved[kind], 'noise': probe.floor[kind]}
        drawn = axes.bar(list(bars), [scale * value for value in bars.values()], width=0.6,
                         color=['#d95f02', '#bbbbbb'])
        axes.bar_label(drawn, fmt='%.3g', fontsize=8, padding=2)
        axes.margins(y=0.18)
        axes.set_title(label, fontsize=10, loc='left')
        style_axes(axes)
    figure.suptitle(f'change of plans with the instruction relative to the noise floor: {probe.ratio:.2f}',
                    fontsize=10, x=0.01, ha='left')
    return figure


def draw_gates(evaluation: Evaluation) -> Figure:
    """Plot mean and range of every gate."""
    gates = evaluation.gates
    figure = new_figure(max(5.0, 1.0 + 0.6 * len(gates)), 3.0)
    axes = figure.subplots()
    blocks, mean = [gate.block for gate in gates], np.array([gate.mean for gate in gates])
    reach = np.array([[gate.mean - gate.least, gate.greatest - gate.mean] for gate in gates]).T
    axes.axhline(0.5, color='#dddddd', lw=1.0)
    axes.errorbar(blocks, mean, yerr=reach, fmt='o', color='#1f77b4', ecolor='#9ec5e5', elinewidth=3, ms=5)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(blocks, [f'{gate.block}\nVLM {gate.vlm_layer}' for gate in gates], fontsize=8)
    axes.set_xlabel('after block, and the VLM layer mixed in', fontsize=9)
    axes.set_title("gates: 1 keeps the expert's stream, 0 uses the VLM's feature", fontsize=10, loc='left')
    style_axes(axes)
    return figure


def draw_examples(evaluation: Evaluation) -> Figure | None:
    """Draw predicted paths and the label into the first camera's image; return None without examples."""
    if not evaluation.examples:
        return None
    columns = min(3, len(evaluation.examples))
    rows = -(-len(evaluation.examples) // columns)
    figure = new_figure(4.4 * columns, 3.8 * rows + 0.4)
    cells = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in cells:
        axes.axis('off')
    colours = arm_colours(evaluation.arms)
    for axes, example in zip(cells, evaluation.examples, strict=False):
        _draw_example(axes, example, colours)
    for name, colour in colours.items():
        cells[0].plot([], [], color=colour, label=f'{name}, predicted')
    cells[0].plot([], [], color='black', label='label')
    figure.legend(*cells[0].get_legend_handles_labels(), loc='outside lower center', ncols=6, fontsize=9, frameon=False)
    return figure


def _draw_example(axes: Any, example: Example, colours: dict[str, str]) -> None:
    sample = example.sample
    view = CameraFrame(rgb=sample.rgb[0], mask=None,
                       intrinsics=sample.intrinsics[0], world_from_camera=sample.world_from_camera[0])
    axes.imshow(view.rgb)
    for arm, colour in enumerate(colours.values()):
        if arm >= len(sample.valid_arms) or not sample.valid_arms[arm]:
            continue
        for path in example.predicted[:, :, arm]:
            _draw_path(axes, view, path, color=colour, lw=0.9, alpha=0.55)
        _draw_path(axes, view, sample.future[:, arm], color='white', lw=2.6)
        _draw_path(axes, view, sample.future[:, arm], color='black', lw=1.2)
    rows, columns = (np.flatnonzero(sample.mask[0].any(axis)) for axis in (1, 0))
    axes.set_xlim(columns.min(initial=view.rgb.shape[1]), columns.max(initial=1))
    axes.set_ylim(rows.max(initial=1), rows.min(initial=view.rgb.shape[0]))
    axes.set_title(f'“{sample.prompt}”\n{sample.source.rpartition("/")[2]}', fontsize=8, loc='left')


def _draw_path(axes: Any, view: CameraFrame, states: NDArray[np.float64], **style: Any) -> None:
    """Draw the path of (T, 17) states where the camera sees it."""
    seen = [spot for state in states if (spot := project_into_view(view, state[[3, 7, 11]])) is not None]
    if len(seen) > 1:
        axes.plot(*np.array(seen).T, **style)
