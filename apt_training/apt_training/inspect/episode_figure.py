"""Figure of one episode: frames of every camera, paths of the arms, openings of the grippers.

Rings in the images are the end-effectors, projected through intrinsics and poses: where they miss the grippers, the
calibration is wrong.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apt_training.episodes.read import Episode
from apt_training.inspect.drawing import (
    Picture,
    arm_colours,
    draw_strip,
    evenly_spaced,
    new_figure,
    save_figure,
    style_axes,
)

COLUMNS = 8
_WIDTH_IN = 14.0
_PLOTS_IN = 3.9
_STRIP_PX = 200
_GREY = '#666666'


def draw_episode(episode: Episode, target: Path) -> None:
    """Write the figure of an episode as PNG.

    Raises:
        EpisodeError: the episode cannot be read.
        OSError: the file cannot be written.
    """
    facts, frames = episode.facts, evenly_spaced(len(episode), COLUMNS)
    strips = {name: draw_strip(episode, name, frames, _STRIP_PX) for name in facts.cameras}
    heights = [(_WIDTH_IN - 0.4) * picture.shape[0] / picture.shape[1] for picture in strips.values()]
    figure = new_figure(_WIDTH_IN, 0.8 + sum(heights) + 0.06 * len(heights) + _PLOTS_IN, apart_in=0.02)
    figure.suptitle(_title(episode), fontsize=11, x=0.01, ha='left')
    rows = figure.add_gridspec(len(strips) + 1, 1, height_ratios=[*heights, _PLOTS_IN])
    for row, camera in enumerate(strips):
        _draw_strip(figure.add_subplot(rows[row]), episode, camera, strips[camera], frames if row == 0 else ())
    below = rows[len(strips)].subgridspec(2, 4, width_ratios=[1.15, 1.15, 1.0, 1.0])
    _draw_path(figure.add_subplot(below[:, 0]), episode, (0, 1))
    _draw_path(figure.add_subplot(below[:, 1]), episode, (0, 2))
    _draw_positions(figure.add_subplot(below[0, 2:]), episode, frames)
    _draw_grippers(figure.add_subplot(below[1, 2:]), episode, frames)
    save_figure(figure, target)


def _title(episode: Episode) -> str:
    facts = episode.facts
    prompt = facts.prompts[0] if facts.prompts else episode.prompt(0) or 'no instruction'
    duration_s = episode.timestamps[-1] - episode.timestamps[0]
    return f'“{prompt}”\n{episode.path.name}   {len(episode)} frames, {duration_s:.1f} s at {facts.rate_hz:g} Hz'


def _draw_strip(axes: Any, episode: Episode, camera: str, picture: Picture, timed: Sequence[int]) -> None:
    """Draw a strip, with the times of the frames ``timed`` above."""
    axes.imshow(picture, interpolation='antialiased')
    axes.set_ylabel(camera, fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    width = picture.shape[1] / max(len(timed), 1)
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.set_xticks([(index + 0.5) * width for index in range(len(timed))],
                    [f'{episode.timestamps[frame] - episode.timestamps[0]:.1f} s' for frame in timed], fontsize=8)
    axes.tick_params(length=0)


def _draw_path(axes: Any, episode: Episode, dimensions: tuple[int, int]) -> None:
    """Draw the path of each arm, seen along one axis of the world."""
    first, second = dimensions
    for arm, (name, colour) in enumerate(arm_colours(episode.facts.arms).items()):
        points = episode.world_from_ee[:, arm, :3, 3]
        axes.plot(points[:, first], points[:, second], color=colour, lw=1.6, label=name)
        if episode.desired_world_from_ee is not None:
            wanted = episode.desired_world_from_ee[:, arm, :3, 3]
            axes.plot(wanted[:, first], wanted[:, second], color=colour, lw=0.9, ls=':')
        axes.plot(*points[0, list(dimensions)], 'o', color=colour, ms=6)
        axes.plot(*points[-1, list(dimensions)], 's', color=colour, ms=6, mfc='white')
    axes.set_aspect('equal', adjustable='datalim')
    axes.set_xlabel(f'{"xyz"[first]} [m]', fontsize=9)
    axes.set_ylabel(f'{"xyz"[second]} [m]', fontsize=9)
    axes.set_title({1: 'from above', 2: 'from the front'}[second] + ', in the world', fontsize=9, color=_GREY)
    axes.margins(0.12)
    axes.legend(fontsize=8, frameon=False, loc='best')
    style_axes(axes)


def _draw_positions(axes: Any, episode: Episode, frames: Sequence[int]) -> None:
    times = episode.timestamps - episode.timestamps[0]
    for arm, colour in enumerate(arm_colours(episode.facts.arms).values()):
        for axis, style in enumerate(('-', '--', '-.')):
            axes.plot(times, episode.world_from_ee[:, arm, axis, 3], color=colour, ls=style, lw=1.2)
    for name, style in zip('xyz', ('-', '--', '-.'), strict=True):
        axes.plot([], [], color=_GREY, ls=style, lw=1.2, label=name)
    axes.set_ylabel('position [m]', fontsize=9)
    _legend_above(axes, 3)
    axes.tick_params(labelbottom=False)
    _mark_frames(axes, times, frames)


def _draw_grippers(axes: Any, episode: Episode, frames: Sequence[int]) -> None:
    times = episode.timestamps - episode.timestamps[0]
    wanted = episode.desired_gripper
    for arm, colour in enumerate(arm_colours(episode.facts.arms).values()):
        axes.plot(times, episode.gripper[:, arm], color=colour, lw=1.4)
        if wanted is not None:
            axes.plot(times, wanted[:, arm], color=colour, lw=1.0, ls=':')
    axes.plot([], [], color=_GREY, lw=1.4, label='measured')
    if wanted is not None:
        axes.plot([], [], color=_GREY, lw=1.0, ls=':', label='commanded')
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([0, 1], ['closed', 'open'], fontsize=8)
    axes.set_ylabel('gripper', fontsize=9)
    axes.set_xlabel('time [s]', fontsize=9)
    _legend_above(axes, 2)
    _mark_frames(axes, times, frames)


def _mark_frames(axes: Any, times: Any, frames: Sequence[int]) -> None:
    for frame in frames:
        axes.axvline(times[frame], color='#dddddd', lw=0.8, zorder=0)
    axes.margins(x=0.01)
    style_axes(axes)


def _legend_above(axes: Any, columns: int) -> None:
    axes.legend(fontsize=8, frameon=False, ncols=columns, loc='lower right', bbox_to_anchor=(1.0, 0.99),
                borderaxespad=0.0)
