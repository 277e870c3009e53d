"""Contact sheet of a dataset: one row per episode.

``episode_figure`` shows one episode in more detail.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apt_training.episodes.episode import EpisodeError
from apt_training.episodes.read import Episode
from apt_training.inspect.drawing import (
    arm_colours,
    draw_strip,
    evenly_spaced,
    new_figure,
    overview_camera,
    save_figure,
)

COLUMNS = 6
MAX_ROWS = 40
_STRIP_PX = 120
_WIDTH_IN, _ROW_IN = 14.0, 1.1
_HEAD_IN, _FOOT_IN = 0.4, 0.4
_COLUMNS = (0, 1, 2, 4)
"""Columns of the grid that are used; the fourth separates labels of the last one from the third."""


def draw_contact_sheet(files: Sequence[Path], target: Path) -> None:
    """Write a contact sheet as PNG, with evenly spaced files if there are more than :data:`MAX_ROWS`.

    The row of an unreadable file has the reason.

    Args:
        files: episode files.
        target: file to write.

    Raises:
        ValueError: there are no files.
        OSError: the figure cannot be written.
    """
    if not files:
        raise ValueError('got no episode for the contact sheet, expected at least one')
    chosen = [Path(files[index]) for index in evenly_spaced(len(files), MAX_ROWS)]
    height_in = _HEAD_IN + _FOOT_IN + _ROW_IN * len(chosen)
    figure = new_figure(_WIDTH_IN, height_in, arranged=False)
    left_out = '' if len(chosen) == len(files) else f', {len(chosen)} of them shown'
    figure.text(0.01, 1 - 0.2 / height_in, f'{target.parent.name or target.stem}: {len(files)} episodes{left_out}',
                fontsize=11, va='center')
    grid = figure.add_gridspec(len(chosen), 5, width_ratios=[2.5, 7.7, 1.25, 0.1, 2.3], left=0.01, right=0.995,
                               top=1 - _HEAD_IN / height_in, bottom=_FOOT_IN / height_in, wspace=0.06, hspace=0.22)
    for row, file in enumerate(chosen):
        cells = [figure.add_subplot(grid[row, column]) for column in _COLUMNS]
        try:
            with Episode(file) as episode:
                _draw_row(cells, episode, last=row == len(chosen) - 1)
        except EpisodeError as error:
            _draw_failure(cells, file, error)
    save_figure(figure, target, dpi=100)


def _draw_row(cells: Sequence[Any], episode: Episode, *, last: bool) -> None:
    label, images, path, gripper = cells
    facts, duration_s = episode.facts, episode.timestamps[-1] - episode.timestamps[0]
    prompt = facts.prompts[0] if facts.prompts else episode.prompt(0) or 'no instruction'
    _write(label, textwrap.wrap(prompt, 32)[:3], [f'{len(episode)} frames, {duration_s:.1f} s', episode.path.stem])
    if facts.cameras:
        camera = overview_camera(episode)
        strip = draw_strip(episode, camera, evenly_spaced(len(episode), COLUMNS), _STRIP_PX)
        images.imshow(strip, interpolation='antialiased')
    images.axis('off')
    _draw_path(path, episode)
    _draw_grippers(gripper, episode, last=last)


def _draw_path(axes: Any, episode: Episode) -> None:
    for arm, colour in enumerate(arm_colours(episode.facts.arms).values()):
        points = episode.world_from_ee[:, arm, :2, 3]
        axes.plot(points[:, 0], points[:, 1], color=colour, lw=1.0)
        axes.plot(*points[0], 'o', color=colour, ms=3)
    axes.set_aspect('equal', adjustable='datalim')
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color('#dddddd')


def _draw_grippers(axes: Any, episode: Episode, *, last: bool) -> None:
    times = episode.timestamps - episode.timestamps[0]
    for arm, colour in enumerate(arm_colours(episode.facts.arms).values()):
        axes.plot(times, np.clip(episode.gripper[:, arm], 0, 1), color=colour, lw=1.0)
    axes.set_ylim(-0.08, 1.08)
    axes.set_yticks([0, 1], ['closed', 'open'], fontsize=6)
    axes.tick_params(labelsize=6, length=2, pad=1)
    axes.margins(x=0.01)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    if last:
        axes.set_xlabel('time [s]', fontsize=7)


def _draw_failure(cells: Sequence[Any], file: Path, error: EpisodeError) -> None:
    _write(cells[0], [], [file.stem])
    for axes in cells[1:]:
        axes.axis('off')
    cells[1].text(0.0, 0.5, '\n'.join(textwrap.wrap(str(error), 110)[:4]), fontsize=8, color='#b00020', va='center')


def _write(axes: Any, bold: Sequence[str], plain: Sequence[str]) -> None:
    axes.axis('off')
    for index, line in enumerate([*bold, *plain]):
        axes.text(0.0, 0.98 - 0.185 * index, line, fontsize=8, va='top',
                  weight='bold' if index < len(bold) else 'normal', color='black' if index < len(bold) else '#555555')
