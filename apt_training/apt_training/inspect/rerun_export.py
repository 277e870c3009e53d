"""Export of an episode to the rerun viewer: images with their pinholes, poses, paths, grippers.

Only this module imports rerun, and only when it is used. Versions 0.23 to 0.41 have the same functions.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.colors import to_rgb

from apt_policy.core.atomic import atomic_file
from apt_policy.core.errors import UserError
from apt_training.episodes.episode import CameraFrame
from apt_training.episodes.read import Episode
from apt_training.inspect.drawing import arm_colours

TIMELINE = 'time'
_JPEG_QUALITY = 90
_AXES_M = 0.05


class RerunError(UserError, RuntimeError):
    """Error of a recording that cannot be made: rerun is missing or too old."""


def write_rerun(episode: Episode, target: Path) -> None:
    """Write a recording (.rrd) atomically.

    Raises:
        RerunError: rerun is not installed, or is too old.
        EpisodeError: the episode cannot be read.
        OSError: the file cannot be written.
    """
    rerun = _rerun()
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as fresh:
        recording = rerun.RecordingStream('apt_inspect', recording_id=episode.path.stem)
        recording.save(fresh)
        _log_constants(rerun, recording, episode)
        for index in range(len(episode)):
            recording.set_time(TIMELINE, duration=float(episode.timestamps[index] - episode.timestamps[0]))
            recording.set_time('frame', sequence=index)
            _log_frame(rerun, recording, episode, index)
        recording.flush()
        recording.disconnect()


def _log_constants(rerun: Any, recording: Any, episode: Episode) -> None:
    recording.log('world', rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    recording.log('instruction', rerun.TextDocument('\n\n'.join(episode.facts.prompts) or '-'), static=True)
    for arm, (name, colour) in enumerate(arm_colours(episode.facts.arms).items()):
        points, tint = episode.world_from_ee[:, arm, :3, 3], _tint(colour)
        recording.log(f'world/{name}/path', rerun.LineStrips3D([points], colors=[tint]), static=True)
        if episode.desired_world_from_ee is not None:
            wanted = episode.desired_world_from_ee[:, arm, :3, 3]
            recording.log(f'world/{name}/commanded_path', rerun.LineStrips3D([wanted], colors=[_pale(tint)]),
                          static=True)
        recording.log(f'world/{name}/ee', rerun.Arrows3D(vectors=_AXES_M * np.eye(3), colors=255 * np.eye(3)),
                      static=True)


def _log_frame(rerun: Any, recording: Any, episode: Episode, index: int) -> None:
    for camera in episode.facts.cameras:
        _log_view(rerun, recording, f'world/{camera}', episode.view(camera, index))
    for arm, name in enumerate(episode.facts.arms):
        pose = episode.world_from_ee[index, arm]
        recording.log(f'world/{name}/ee', rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        recording.log(f'gripper/{name}/measured', rerun.Scalars(float(episode.gripper[index, arm])))
        if episode.desired_gripper is not None:
            recording.log(f'gripper/{name}/commanded', rerun.Scalars(float(episode.desired_gripper[index, arm])))
        for axis, value in zip('xyz', pose[:3, 3], strict=True):
            recording.log(f'position/{name}/{axis}', rerun.Scalars(float(value)))


def _log_view(rerun: Any, recording: Any, place: str, view: CameraFrame) -> None:
    pose, (height, width) = view.world_from_camera, view.rgb.shape[:2]
    recording.log(place, rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
    recording.log(place, rerun.Pinhole(image_from_camera=view.intrinsics, width=width, height=height,
                                       camera_xyz=rerun.ViewCoordinates.RDF))
    done, jpeg = cv2.imencode('.jpg', cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR),
                              [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done, 'an 8-bit image of three channels can be encoded'
    recording.log(f'{place}/image', rerun.EncodedImage(contents=jpeg.tobytes(), media_type='image/jpeg'))


def _tint(colour: str) -> tuple[int, ...]:
    return tuple(int(255 * part) for part in to_rgb(colour))


def _pale(tint: tuple[int, ...]) -> tuple[int, ...]:
    return tuple((part + 255) // 2 for part in tint)


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise RerunError(f'rerun recordings need the rerun viewer: pip install "rerun-sdk>=0.23" '
                         f'({error})') from error
    if not hasattr(rerun, 'Scalars'):
        raise RerunError(f'rerun-sdk is {rerun.__version__}, expected 0.23 or later: pip install "rerun-sdk>=0.23"')
    return rerun
