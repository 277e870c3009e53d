"""Summary of an episode from reading it once, with warnings about suspicious values.

The summary cannot detect everything: swapped red and blue, for example, are visible only in the images.

Letters: T frames, A arms, H, W image.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.geometry import angle_between
from apt_training.episodes.episode import EpisodeFacts, ImageStorage, LabelSource
from apt_training.episodes.read import Episode

Array = NDArray[np.float64]

FAST_M_S, FAST_DEG_S = 1.5, 360.0
"""Speed of an end-effector above which its pose has probably jumped [m/s], [deg/s]."""
STILL_M, STILL_DEG = 1e-3, 0.5
"""Motion below which a camera or arm counts as fixed [m], [deg]."""
GRIPPER_MOVES = 0.02
"""Range of openings below which a gripper counts as fixed."""
FAR_LABEL_M = 0.15
"""Mean distance above which commanded and measured poses are probably in different frames [m]."""
FROZEN_SHARE = 0.2
"""Fraction of identical images above which a camera is reported as frozen."""
MAX_PAIRS = 200
"""Maximum number of pairs of neighbouring images that are compared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmSummary:
    """Motion of one arm."""

    name: str
    lower: Array
    """Lower corner (3,) of the box that the end-effector reached, in the world [m]."""
    upper: Array
    """Upper corner (3,) [m]."""
    travel_m: float
    """Length of the path [m]."""
    step_m: float
    """Largest translation between two frames [m]."""
    step_deg: float
    """Largest rotation between two frames [deg]."""
    step_frame: int
    """Frame after the largest translation."""
    speed_m_s: float
    """Largest translational speed [m/s]."""
    speed_deg_s: float
    """Largest rotational speed [deg/s]."""
    gripper: tuple[float, float]
    """Smallest and largest opening, 0 closed .. 1 open."""
    gripper_moves: int
    """Number of crossings of the middle of its range."""
    label_gap_m: float | None
    """Mean distance between commanded and measured positions [m]; None without commands."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraSummary:
    """Images and motion of one camera."""

    name: str
    storage: ImageStorage
    height: int
    width: int
    intrinsics: Array
    """Intrinsics (3, 3) of the first frame [px]."""
    field_of_view_deg: float
    """Horizontal field of view of the whole image [deg]."""
    masked_share: float
    """Fraction of masked pixels of the first frame."""
    travel_m: float
    """Length of its path [m]; 0 for a fixed camera."""
    turn_deg: float
    """Largest rotation from its first pose [deg]."""
    frozen_share: float
    """Fraction of compared images that equal the one before."""
    compared: int
    """Number of compared pairs of images."""
    brightness: float
    """Mean of all compared pixels, 0..255."""

    @property
    def moves(self) -> bool:
        """True if its pose changes."""
        return self.travel_m > STILL_M or self.turn_deg > STILL_DEG


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeSummary:
    """Summary of one episode."""

    path: Path
    facts: EpisodeFacts
    frames: int
    duration_s: float
    measured_rate_hz: float
    """Median rate by timestamps [Hz]; 0 for a single frame."""
    longest_gap_s: float
    """Longest interval between two frames [s]."""
    gaps: int
    """Number of intervals longer than 1.5 periods."""
    size_bytes: int
    """Size of the file without videos [B]."""
    arms: tuple[ArmSummary, ...]
    cameras: tuple[CameraSummary, ...]
    warnings: tuple[str, ...]
    """Sentences about suspicious values."""


def summarize_episode(episode: Episode) -> EpisodeSummary:
    """Read an episode and summarize it.

    Raises:
        EpisodeError: it cannot be read.
    """
    episode.check()
    facts, times = episode.facts, episode.timestamps
    intervals = np.diff(times)
    period_s = 1.0 / facts.rate_hz
    arms = tuple(_summarize_arm(episode, index, intervals) for index in range(len(facts.arms)))
    cameras = tuple(_summarize_camera(episode, name) for name in facts.cameras)
    summary = EpisodeSummary(
        path=episode.path, facts=facts, frames=len(episode), duration_s=float(times[-1] - times[0]),
        measured_rate_hz=1.0 / float(np.median(intervals)) if len(intervals) else 0.0,
        longest_gap_s=float(intervals.max(initial=0.0)), gaps=int((intervals > 1.5 * period_s).sum()),
        size_bytes=episode.path.stat().st_size, arms=arms, cameras=cameras, warnings=())
    return EpisodeSummary(**{**vars(summary), 'warnings': tuple(_warnings(summary))})


def compared_frames(frames: int, max_pairs: int = MAX_PAIRS) -> list[int]:
    """Return the first frames of the neighbouring pairs to compare: all, or ``max_pairs`` evenly spaced ones."""
    if frames - 1 <= max_pairs:
        return list(range(frames - 1))
    return np.linspace(0, frames - 2, max_pairs).round().astype(int).tolist()


def _summarize_arm(episode: Episode, arm: int, intervals: Array) -> ArmSummary:
    poses, gripper = episode.world_from_ee[:, arm], episode.gripper[:, arm]
    steps_m = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1)
    steps_deg = np.rad2deg(angle_between(poses[:-1, :3, :3], poses[1:, :3, :3]))
    desired = episode.desired_world_from_ee
    gap = None
    if desired is not None:
        gap = float(np.linalg.norm(desired[:, arm, :3, 3] - poses[:, :3, 3], axis=-1).mean())
    return ArmSummary(
        name=episode.facts.arms[arm], lower=poses[:, :3, 3].min(axis=0), upper=poses[:, :3, 3].max(axis=0),
        travel_m=float(steps_m.sum()), step_m=float(steps_m.max(initial=0.0)),
        step_deg=float(steps_deg.max(initial=0.0)), step_frame=int(steps_m.argmax()) + 1 if len(steps_m) else 0,
        speed_m_s=float((steps_m / intervals).max(initial=0.0)),
        speed_deg_s=float((steps_deg / intervals).max(initial=0.0)),
        gripper=(float(gripper.min()), float(gripper.max())),
        gripper_moves=int(np.diff(gripper > (gripper.min() + gripper.max()) / 2).sum()) if np.ptp(gripper) > 0.1 else 0,
        label_gap_m=gap)


def _summarize_camera(episode: Episode, name: str) -> CameraSummary:
    reader = episode.camera(name)
    first = episode.view(name, 0)
    poses = reader.world_from_camera
    firsts = compared_frames(len(episode))
    identical, brightness, last_index, last = 0, [float(first.rgb.mean())], 0, first.rgb
    for index in firsts:
        if index != last_index:
            last = episode.view(name, index).rgb
        following = episode.view(name, index + 1).rgb
        identical += np.array_equal(last, following)
        brightness.append(float(following.mean()))
        last_index, last = index + 1, following
    height, width = first.rgb.shape[:2]
    return CameraSummary(
        name=name, storage=reader.storage, height=height, width=width, intrinsics=first.intrinsics,
        field_of_view_deg=float(np.rad2deg(2 * np.arctan(width / 2 / first.intrinsics[0, 0]))),
        masked_share=0.0 if first.mask is None else float(1 - first.mask.mean()),
        travel_m=float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1).sum()),
        turn_deg=float(np.rad2deg(angle_between(poses[:1, :3, :3], poses[:, :3, :3])).max()),
        frozen_share=identical / len(firsts) if firsts else 0.0, compared=len(firsts),
        brightness=float(np.mean(brightness)))


def _warnings(summary: EpisodeSummary) -> list[str]:
    found = []
    if not summary.facts.prompts and not summary.facts.subtasks:
        found.append('no instruction: the episode is usable for the VA prior only')
    if summary.gaps:
        found.append(f'{summary.gaps} of {summary.frames - 1} intervals are longer than one and a half periods of '
                     f'{summary.facts.rate_hz:g} Hz, the longest {summary.longest_gap_s:.3f} s')
    if summary.frames > 1 and abs(summary.measured_rate_hz / summary.facts.rate_hz - 1) > 0.05:
        found.append(f'the file has the rate {summary.facts.rate_hz:g} Hz, but its timestamps have '
                     f'{summary.measured_rate_hz:.2f} Hz')
    idle = [arm for arm in summary.arms if arm.travel_m < STILL_M]
    if len(idle) == len(summary.arms):
        found.append('no arm moves')
    if all(arm.gripper[1] - arm.gripper[0] < GRIPPER_MOVES for arm in summary.arms):
        stays = ', '.join(f'{arm.name} stays at {arm.gripper[0]:.2f}' for arm in summary.arms)
        found.append(f'no gripper moves: {stays}')
    for arm in summary.arms:
        found += _arm_warnings(arm)
    for camera in summary.cameras:
        found += _camera_warnings(camera, arms_moved=len(idle) < len(summary.arms))
    still = [camera.name for camera in summary.cameras if 'wrist' in camera.name and not camera.moves]
    # The file does not say which arm carries which camera, but at most as many may be fixed as arms are.
    if len(still) > len(idle):
        found.append(f'{" and ".join(still)} should move with an arm by its name, but its pose never changes')
    return found


def _arm_warnings(arm: ArmSummary) -> list[str]:
    found = []
    if arm.speed_m_s > FAST_M_S or arm.speed_deg_s > FAST_DEG_S:
        found.append(f'arm {arm.name} jumps: {arm.step_m:.3f} m and {arm.step_deg:.0f} deg in one step '
                     f'({arm.speed_m_s:.1f} m/s, {arm.speed_deg_s:.0f} deg/s), frame {arm.step_frame}')
    if arm.label_gap_m is not None and arm.label_gap_m > FAR_LABEL_M:
        found.append(f'arm {arm.name} is commanded {arm.label_gap_m:.2f} m away from where it is measured, on '
                     'average: check that both are in the same frame')
    return found


def _camera_warnings(camera: CameraSummary, *, arms_moved: bool) -> list[str]:
    found = []
    if camera.frozen_share > FROZEN_SHARE and arms_moved:
        found.append(f'camera {camera.name}: {camera.frozen_share:.0%} of {camera.compared} images compared are '
                     'identical to the one before: it froze, or is simulated and nothing moved')
    if camera.brightness < 5:
        found.append(f'camera {camera.name} is black, mean brightness {camera.brightness:.1f} of 255')
    if not 10 < camera.field_of_view_deg < 160:
        found.append(f'camera {camera.name} has a field of view of {camera.field_of_view_deg:.0f} deg: check that '
                     f'its intrinsics are for images {camera.width} px wide')
    return found


def label_text(source: LabelSource) -> str:
    """Return a description of the source of labels."""
    return {LabelSource.TARGETS: 'commanded end-effector targets',
            LabelSource.JOINT_COMMANDS: 'commanded joints, by forward kinematics',
            LabelSource.MEASURED: 'measured poses of later frames'}[source]
