"""What can be said of an episode by reading it once, and what about it looks wrong.

Numbers and findings only; how they are shown is others' business. Nothing is judged that an
episode cannot show: whether red and blue are swapped, for one, only eyes can tell.

Letters: T frames, A arms, H, W image.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.geometry import angle_between
from apt_training.episodes.episode import EpisodeFacts, LabelSource, Storage
from apt_training.episodes.read import Episode

Array = NDArray[np.float64]

FAST_M_S, FAST_DEG_S = 1.5, 360.0
"""An end-effector that moves faster than this between two frames has probably jumped."""
STILL_M, STILL_DEG = 1e-3, 0.5
"""What moves less than this stands still."""
GRIPPER_MOVES = 0.02
FAR_LABEL_M = 0.15
"""A commanded pose this far from the measured one is probably in another frame."""
FROZEN_SHARE = 0.2
MOST_PAIRS = 200
"""Pairs of neighbouring images that are compared at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmSummary:
    """What one arm did."""

    name: str
    lower: Array
    """(3,) of the box that the end-effector reached, in the world [m]."""
    upper: Array
    """(3,) [m]."""
    travel_m: float
    step_m: float
    """Largest step between two frames."""
    step_deg: float
    step_frame: int
    """Frame behind the largest step in translation."""
    speed_m_s: float
    speed_deg_s: float
    gripper: tuple[float, float]
    """Least and greatest opening, 0 closed .. 1 open."""
    gripper_moves: int
    """How often it crossed the middle of its range."""
    label_gap_m: float | None
    """Mean distance between commanded and measured; None without commands."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraSummary:
    """What one camera gave."""

    name: str
    storage: Storage
    height: int
    width: int
    intrinsics: Array
    """(3, 3) of the first frame [px]."""
    field_of_view_deg: float
    """Horizontal, of the whole stored image."""
    masked_share: float
    """Of the pixels of the first frame."""
    travel_m: float
    """How far it moved in all; 0 for a fixed camera."""
    turn_deg: float
    """Largest angle from its first pose."""
    frozen_share: float
    """Of neighbouring images that were compared: those identical to the one before."""
    compared: int
    brightness: float
    """Mean of all pixels compared, 0..255."""

    @property
    def moves(self) -> bool:
        """Whether its pose changes."""
        return self.travel_m > STILL_M or self.turn_deg > STILL_DEG


@dataclass(frozen=True, kw_only=True, eq=False)
class Examination:
    """All of it."""

    path: Path
    facts: EpisodeFacts
    frames: int
    duration_s: float
    measured_rate_hz: float
    """Median over frames; 0 for a single frame."""
    longest_gap_s: float
    gaps: int
    """Intervals longer than one and a half periods."""
    size_bytes: int
    """Of the file, videos not counted."""
    arms: tuple[ArmSummary, ...]
    cameras: tuple[CameraSummary, ...]
    findings: tuple[str, ...]
    """What looks wrong, one sentence each."""


def examine(episode: Episode) -> Examination:
    """Read ``episode`` and look at it.

    Raises:
        EpisodeError: it cannot be read.
    """
    episode.check()
    facts, times = episode.facts, episode.timestamps
    intervals = np.diff(times)
    period_s = 1.0 / facts.rate_hz
    arms = tuple(_examine_arm(episode, index, intervals) for index in range(len(facts.arms)))
    cameras = tuple(_examine_camera(episode, name) for name in facts.cameras)
    seen = Examination(
        path=episode.path, facts=facts, frames=len(episode), duration_s=float(times[-1] - times[0]),
        measured_rate_hz=1.0 / float(np.median(intervals)) if len(intervals) else 0.0,
        longest_gap_s=float(intervals.max(initial=0.0)), gaps=int((intervals > 1.5 * period_s).sum()),
        size_bytes=episode.path.stat().st_size, arms=arms, cameras=cameras, findings=())
    return Examination(**{**vars(seen), 'findings': tuple(_findings(seen))})


def compared_frames(frames: int, most_pairs: int = MOST_PAIRS) -> list[int]:
    """First frames of the neighbouring pairs to compare: all of them, or as many spread evenly."""
    if frames - 1 <= most_pairs:
        return list(range(frames - 1))
    return np.linspace(0, frames - 2, most_pairs).round().astype(int).tolist()


def _examine_arm(episode: Episode, arm: int, intervals: Array) -> ArmSummary:
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


def _examine_camera(episode: Episode, name: str) -> CameraSummary:
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


def _findings(seen: Examination) -> list[str]:
    found = []
    if not seen.facts.prompts and not seen.facts.subtasks:
        found.append('there is no instruction: of use for the VA prior only')
    if seen.gaps:
        found.append(f'{seen.gaps} of {seen.frames - 1} intervals are longer than one and a half periods of '
                     f'{seen.facts.rate_hz:g} Hz, the longest {seen.longest_gap_s:.3f} s')
    if seen.frames > 1 and abs(seen.measured_rate_hz / seen.facts.rate_hz - 1) > 0.05:
        found.append(f'the file says {seen.facts.rate_hz:g} Hz, its timestamps {seen.measured_rate_hz:.2f} Hz')
    idle = [arm for arm in seen.arms if arm.travel_m < STILL_M]
    if len(idle) == len(seen.arms):
        found.append('no arm moves')
    if all(arm.gripper[1] - arm.gripper[0] < GRIPPER_MOVES for arm in seen.arms):
        stays = ', '.join(f'{arm.name} stays at {arm.gripper[0]:.2f}' for arm in seen.arms)
        found.append(f'no gripper moves: {stays}')
    for arm in seen.arms:
        found += _arm_findings(arm)
    for camera in seen.cameras:
        found += _camera_findings(camera, arms_moved=len(idle) < len(seen.arms))
    still = [camera.name for camera in seen.cameras if 'wrist' in camera.name and not camera.moves]
    # Which arm carries which camera is not in the file, but as many of them may rest as arms do.
    if len(still) > len(idle):
        found.append(f'{" and ".join(still)} should move with an arm by name, but the pose never changes')
    return found


def _arm_findings(arm: ArmSummary) -> list[str]:
    found = []
    if arm.speed_m_s > FAST_M_S or arm.speed_deg_s > FAST_DEG_S:
        found.append(f'arm {arm.name} jumps: {arm.step_m:.3f} m and {arm.step_deg:.0f} deg in one step '
                     f'({arm.speed_m_s:.1f} m/s, {arm.speed_deg_s:.0f} deg/s), frame {arm.step_frame}')
    if arm.label_gap_m is not None and arm.label_gap_m > FAR_LABEL_M:
        found.append(f'arm {arm.name} is commanded {arm.label_gap_m:.2f} m away from where it is measured, on '
                     'average: are both in the same frame?')
    return found


def _camera_findings(camera: CameraSummary, *, arms_moved: bool) -> list[str]:
    found = []
    if camera.frozen_share > FROZEN_SHARE and arms_moved:
        found.append(f'camera {camera.name}: {camera.frozen_share:.0%} of {camera.compared} images compared are '
                     'identical to the one before: it froze, or is simulated and saw nothing move')
    if camera.brightness < 5:
        found.append(f'camera {camera.name} is black, mean brightness {camera.brightness:.1f} of 255')
    if not 10 < camera.field_of_view_deg < 160:
        found.append(f'camera {camera.name} has a field of view of {camera.field_of_view_deg:.0f} deg: are its '
                     f'intrinsics those of images {camera.width} px wide?')
    return found


def label_text(source: LabelSource) -> str:
    """What the policy learns to reproduce, for people."""
    return {LabelSource.TARGETS: 'commanded end-effector targets',
            LabelSource.JOINT_COMMANDS: 'commanded joints, by forward kinematics',
            LabelSource.MEASURED: 'measured poses of later frames'}[source]
