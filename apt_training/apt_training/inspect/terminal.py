"""Terminal output of the summary of an episode, and of one frame."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apt_policy.core.geometry import pose_to_quaternion
from apt_training.episodes.read import Episode
from apt_training.inspect.summary import ArmSummary, CameraSummary, EpisodeSummary, label_text


def print_episode_summary(summary: EpisodeSummary, console: Console) -> None:
    """Print facts, arms, cameras and warnings."""
    console.print(Text(str(summary.path), style='bold'), soft_wrap=True)
    console.print(_facts(summary))
    console.print(_arms(summary.arms))
    if summary.cameras:
        console.print(_cameras(summary.cameras))
    for warning in summary.warnings:
        console.print(Text(f'! {warning}', style='yellow'), soft_wrap=True)
    if not summary.warnings:
        console.print(Text('no warnings', style='green'))
    console.print(Text('Swapped red and blue are not detected: check the images with --png.', style='dim'))


def print_frame(episode: Episode, index: int, console: Console) -> None:
    """Print all values of one frame but the pixels.

    Raises:
        EpisodeError: the frame does not exist.
    """
    facts = episode.facts
    views = {name: episode.view(name, index) for name in facts.cameras}
    console.print(Text(f'{episode.path}, frame {index} of 0 .. {len(episode) - 1}', style='bold'), soft_wrap=True)
    console.print(Text(f'stamp {episode.timestamps[index]:.6f} s, instruction {episode.prompt(index)!r}'),
                  soft_wrap=True)
    table = new_table('pose', 'x [m]', 'y [m]', 'z [m]', 'quaternion x y z w', 'grip')
    for arm, name in enumerate(facts.arms):
        _add_pose(table, f'ee {name}', episode.world_from_ee[index, arm], episode.gripper[index, arm])
        if episode.desired_world_from_ee is not None:
            wanted = None if episode.desired_gripper is None else episode.desired_gripper[index, arm]
            _add_pose(table, f'  commanded {name}', episode.desired_world_from_ee[index, arm], wanted)
    for name, view in views.items():
        _add_pose(table, name, view.world_from_camera, None)
    console.print(table)
    for name, view in views.items():
        height, width = view.rgb.shape[:2]
        (fx, _, cx), (_, fy, cy) = view.intrinsics[:2]
        colours = ', '.join(f'{mean:.0f}' for mean in view.rgb.mean(axis=(0, 1)))
        console.print(Text(f'{name}: {width}x{height}, fx {fx:.1f} fy {fy:.1f} cx {cx:.1f} cy {cy:.1f} px '
                           f'(pixel centres at +0.5), mean r, g, b {colours}'), soft_wrap=True)


def _facts(summary: EpisodeSummary) -> Table:
    facts = summary.facts
    table = Table.grid(padding=(0, 2))
    spoken = '\n'.join(facts.prompts) or '-'
    rows = {
        'instruction' if len(facts.prompts) < 2 else 'instructions, one drawn': spoken,
        'frames': f'{summary.frames}, {summary.duration_s:.2f} s at {facts.rate_hz:g} Hz '
                  f'(by timestamps {summary.measured_rate_hz:.2f} Hz, longest gap {summary.longest_gap_s:.3f} s)',
        'labels': label_text(facts.label_source),
        'contract': '-' if facts.contract is None else
                    ', '.join(f'{key} {facts.contract.get(key)}' for key in ('image_size', 'horizon', 'step_s')),
        'file': f'{summary.size_bytes / 1e6:.2f} MB'
                + (f', converter {facts.converter_version}' if facts.converter_version else '')
                + (f', source {facts.source_hash[:12]}' if facts.source_hash else '')}
    if facts.subtasks:
        rows['subtasks'] = '\n'.join(f'from frame {part.start}: {part.description}' for part in facts.subtasks)
    if facts.ee_indices is not None:
        rows['learn from'] = ', '.join(facts.arms[index] for index in facts.ee_indices)
    for name, text in rows.items():
        table.add_row(Text(name, style='dim'), Text(text))
    return table


def _arms(arms: Sequence[ArmSummary]) -> Table:
    table = new_table('arm', *(arm.name for arm in arms))
    for axis, name in enumerate('xyz'):
        table.add_row(f'reached {name}', *(f'{arm.lower[axis]:.3f} .. {arm.upper[axis]:.3f} m' for arm in arms))
    table.add_row('way', *(f'{arm.travel_m:.2f} m' for arm in arms))
    table.add_row('largest step', *(f'{1e3 * arm.step_m:.0f} mm, {arm.step_deg:.1f}°' for arm in arms))
    table.add_row('fastest', *(f'{arm.speed_m_s:.2f} m/s, {arm.speed_deg_s:.0f}°/s' for arm in arms))
    table.add_row('gripper', *(f'{arm.gripper[0]:.2f} .. {arm.gripper[1]:.2f}' for arm in arms))
    table.add_row('opens or closes', *(f'{arm.gripper_moves} times' for arm in arms))
    if any(arm.label_gap_m is not None for arm in arms):
        table.add_row('commanded off by', *('-' if arm.label_gap_m is None else f'{1e3 * arm.label_gap_m:.1f} mm'
                                            for arm in arms))
    return table


def _cameras(cameras: Sequence[CameraSummary]) -> Table:
    table = new_table('camera', 'image', 'as', 'view', 'masked', 'pose', 'same', 'mean')
    for camera in cameras:
        pose = f'{camera.travel_m:.2f} m, {camera.turn_deg:.0f}°' if camera.moves else 'fixed'
        table.add_row(camera.name, f'{camera.width}x{camera.height}', camera.storage.value,
                      f'{camera.field_of_view_deg:.0f}°', f'{camera.masked_share:.0%}', pose,
                      f'{camera.frozen_share:.0%}', f'{camera.brightness:.0f}')
    return table


def new_table(*columns: str) -> Table:
    """Create a table whose first column is text and whose other columns are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify='right' if index else 'left', header_style='dim', no_wrap=True)
    return table


def _add_pose(table: Table, name: str, pose: NDArray[np.float64], gripper: float | None) -> None:
    translation, quaternion = pose_to_quaternion(pose)
    table.add_row(name, *(f'{value:.3f}' for value in translation),
                  ' '.join(f'{value:.3f}' for value in quaternion), '' if gripper is None else f'{gripper:.2f}')
