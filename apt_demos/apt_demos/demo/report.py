"""Report of the demonstration: a table for the terminal, and a plot of targets and reached poses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from apt_demos.demo.arguments import SLOWEST_SPEED
from apt_demos.demo.demo_runner import InstructionResult
from apt_demos.demo.recording import ArmTrack, IssueCause, Recording
from apt_policy.console import print_error

_AXES = 'xyz'


def print_results(results: Sequence[InstructionResult], console: Console) -> None:
    """Print the outcome of each instruction."""
    for result in results:
        console.print(f'"{result.instruction.prompt}": {result.outcome or "not scored"}',
                      style='green' if result.done else 'yellow', markup=False, highlight=False)


def print_conclusion(recordings: Sequence[Recording], console: Console, *, speed: float) -> None:
    """Print the conclusion; a slow machine is reported as such and not as a failure.

    Args:
        recordings: recordings of all instructions.
        console: output for the user.
        speed: simulated seconds per second of wall time.
    """
    issues = [each for recording in recordings for each in recording.issues()]
    for each in issues:
        print_error(console, f'{"TOO SLOW" if each.cause is IssueCause.SLOW_MACHINE else "FAILED"}: {each.text}')
    if any(each.cause is IssueCause.SLOW_MACHINE for each in issues):
        advice = (f'simulate slower: DEMO_SPEED={slower(speed):g}' if slower(speed) < speed
                  else 'close other programs, or use a machine with more cores')
        print_error(console, f'This machine did not keep up with the simulation at speed {speed:g}, so this run says '
                          f'nothing about the policy. To see the policy work, {advice}')
    if not issues:
        console.print('OK: target rate and tracking errors are within their limits.', style='green')


def slower(speed: float) -> float:
    """Return the speed to try after one that was too fast for the machine."""
    return max(SLOWEST_SPEED, speed / 2)


def print_table(recording: Recording, console: Console, *, title: str) -> None:
    """Print rates, latencies, holds and tracking errors."""
    table = Table(title=f'"{title}": {recording.duration_s:.1f} s on the robot clock, {recording.wall_s:.1f} s on the '
                        f'wall (real-time factor {recording.real_time_factor:.2f})')
    table.add_column('what')
    table.add_column('measured', justify='right')
    table.add_column('expected', justify='right')
    for stream in recording.streams:
        table.add_row(f'in   {stream.stream}', f'{stream.rate_hz:.1f} Hz', f'{stream.expected_hz:.1f} Hz')
    table.add_row('out  targets', f'{recording.target_rate_hz:.1f} Hz', f'{recording.control_rate_hz:.1f} Hz')
    table.add_row('out  chunks', f'{recording.chunks / recording.duration_s:.1f} Hz', '')
    table.add_section()
    table.add_row('observation to target p50 / p95', _milliseconds(*recording.latency_s), '')
    table.add_row('inference p50 / p95', _milliseconds(*recording.inference_s), '')
    table.add_section()
    for reason, ticks in recording.holds.items():
        table.add_row(f'held {reason}', f'{ticks} ticks', '')
    if not recording.holds:
        table.add_row('held', '0 ticks', '')
    table.add_section()
    for name, track in recording.arms.items():
        table.add_row(f'tracking {name} p50 / p95', _tracking(track), '')
    console.print(table)


def _milliseconds(p50: float, p95: float) -> str:
    return f'{1e3 * p50:.0f} / {1e3 * p95:.0f} ms'


def _tracking(track: ArmTrack) -> str:
    if not len(track.stamp_ns):
        return 'no target'
    near, far = 1e3 * np.percentile(track.position_error, [50, 95])
    turn, twist = np.degrees(np.percentile(track.rotation_error, [50, 95]))
    return f'{near:.1f} / {far:.1f} mm, {turn:.1f} / {twist:.1f} deg'


def write_plot(recording: Recording, path: Path) -> None:
    """Plot position and gripper of every arm, target against reached, as PNG."""
    figure = Figure(figsize=(6 * len(recording.arms), 9), layout='constrained')
    FigureCanvasAgg(figure)
    rows = figure.subplots(5, len(recording.arms), sharex=True, squeeze=False)
    starts = [track.stamp_ns[0] for track in recording.arms.values() if len(track.stamp_ns)]
    for column, (name, track) in zip(rows.T, recording.arms.items(), strict=True):
        seconds = (track.stamp_ns - min(starts, default=0)) / 1e9
        for index, axis in enumerate(_AXES):
            column[index].plot(seconds, track.base_from_target[:, index, 3], label='target', lw=2, alpha=0.5)
            column[index].plot(seconds, track.base_from_reached[:, index, 3], label='reached', lw=1)
            column[index].set_ylabel(f'{axis} in base [m]')
        column[3].plot(seconds, 1e3 * track.position_error, color='tab:red')
        column[3].set_ylabel('position error [mm]')
        column[4].plot(seconds, track.gripper, color='tab:green')
        column[4].set_ylabel('gripper 0..1')
        column[4].set_xlabel('time on the robot clock [s]')
        column[0].set_title(f'{name} arm')
        column[0].legend(loc='upper right')
    figure.savefig(path, dpi=110)
