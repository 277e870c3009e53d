"""Builder of frames from the rows and images of a LeRobot episode: joint positions become end-effector poses.

LeRobot datasets have neither intrinsics nor camera poses: forward kinematics and fixed poses come from the contract,
the rest from a calibration.

Letters: T rows, J joints, A arms, D columns, K selected rows.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import GripperRange, RobotContract
from apt_policy.core.gripper import opening_from_reading
from apt_policy.core.images import letterbox
from apt_policy.core.kinematics import KinematicsError, forward_kinematics
from apt_training.convert.lerobot.files import LerobotError
from apt_training.convert.lerobot.folder import EpisodeEntry, EpisodeRows, LerobotFolder
from apt_training.convert.lerobot.map import Calibration, LerobotMap, column_indices
from apt_training.episodes.episode import CameraFrame, Frame, LabelSource

Array = NDArray[np.float64]


class LerobotFrameBuilder:
    """Builder of the frames of one dataset; picklable."""

    def __init__(self, contract: RobotContract, folder: LerobotFolder, names: LerobotMap,
                 calibrations: Mapping[str, Calibration]) -> None:
        """Check that dataset, map, calibration and contract fit together.

        Args:
            contract: the robot.
            folder: the dataset.
            names: map from columns and features.
            calibrations: calibration by camera.

        Raises:
            LerobotError: arms, cameras or features are missing, or a camera has no calibration.
        """
        _require_same('arms', names.arms, contract.arms)
        _require_same('cameras', names.cameras, contract.cameras)
        self._contract, self._names, self._calibrations = contract, names, dict(calibrations)
        try:
            self._kinematics = forward_kinematics(contract)
        except KinematicsError as error:
            raise LerobotError(str(error)) from error
        self._columns = {key: {arm: column_indices(columns, folder.columns(key), f'{folder.root}, {key}')
                               for arm, columns in names.arms.items()} for key in self.features}
        for arm, columns in names.arms.items():
            if len(columns.joints) != len(contract.arms[arm].joints):
                raise LerobotError(f'the map has {len(columns.joints)} joints of arm {arm}, expected '
                                   f'{len(contract.arms[arm].joints)}: {", ".join(contract.arms[arm].joints)}')
        self._check_cameras(folder)

    @property
    def features(self) -> tuple[str, ...]:
        """Features to read besides images."""
        return tuple(filter(None, (self._names.state, self._names.action)))

    @property
    def images(self) -> tuple[str, ...]:
        """Image features of cameras."""
        return tuple(key for key in self._names.cameras.values() if key is not None)

    @property
    def labels(self) -> LabelSource:
        """Source of the labels."""
        return LabelSource.MEASURED if self._names.action is None else LabelSource.JOINT_COMMANDS

    def frames(self, folder: LerobotFolder, episode: EpisodeEntry, rows: EpisodeRows, selected: Sequence[int],
               stamps_s: Sequence[float]) -> Iterator[Frame]:
        """Yield a frame for each selected row.

        Args:
            folder: the dataset.
            episode: the episode.
            rows: its rows.
            selected: (K,) numbers of rows, which do not decrease.
            stamps_s: (K,) stamps of the frames [s].

        Raises:
            LerobotError: an image is missing or damaged.
        """
        poses, gripper = self._states(rows, self._names.state, selected)
        desired = None if self._names.action is None else self._states(rows, self._names.action, selected)
        streams = {name: folder.frames(episode, rows, key, selected)
                    for name, key in self._names.cameras.items() if key is not None}
        for index, stamp_s in enumerate(stamps_s):
            images = {name: next(stream) for name, stream in streams.items()}
            views = {name: self._view(name, images.get(name), poses[index]) for name in self._contract.cameras}
            yield Frame(stamp_s=stamp_s, world_from_ee=poses[index], gripper=gripper[index], views=views,
                        desired_world_from_ee=None if desired is None else desired[0][index],
                        desired_gripper=None if desired is None else desired[1][index])

    def _states(self, rows: EpisodeRows, key: str, selected: Sequence[int]) -> tuple[Array, Array]:
        """Return (K, A, 4, 4) world_from_ee and (K, A) openings, 0 closed .. 1 open."""
        values = rows.values[key][list(selected)]
        poses, grippers = [], []
        for name, arm in self._contract.arms.items():
            joints, gripper = self._columns[key][name]
            poses.append(arm.world_from_base.matrix @ self._kinematics[name].base_from_ee(values[:, joints]))
            columns = self._names.arms[name]
            gripper_range = GripperRange(joint=str(columns.gripper), closed=columns.gripper_closed,
                                         open=columns.gripper_open)
            grippers.append([opening_from_reading(float(reading), gripper_range) for reading in values[:, gripper]])
        return np.stack(poses, axis=1), np.stack(grippers, axis=1)

    def _view(self, name: str, rgb: NDArray[np.uint8] | None, world_from_ee: Array) -> CameraFrame:
        """Return a letterboxed image as in the live node; black and masked for a camera that the dataset lacks."""
        side, pose = self._contract.image_size, self._world_from_camera(name, world_from_ee)
        if rgb is None:
            pinhole = np.array([[side, 0.0, side / 2], [0.0, side, side / 2], [0.0, 0.0, 1.0]])
            return CameraFrame(rgb=np.zeros((side, side, 3), np.uint8), mask=np.zeros((side, side), np.bool_),
                               intrinsics=pinhole, world_from_camera=pose)
        try:
            intrinsics = self._calibrations[name].intrinsics(rgb.shape[1], rgb.shape[0])
        except LerobotError as error:
            raise LerobotError(f'camera {name}: {error}') from error
        fit = letterbox(rgb, intrinsics, side)
        return CameraFrame(rgb=fit.rgb, mask=fit.mask, intrinsics=fit.intrinsics, world_from_camera=pose)

    def _world_from_camera(self, name: str, world_from_ee: Array) -> Array:
        camera = self._contract.cameras[name]
        if camera.world_from_camera is not None:
            return camera.world_from_camera.matrix
        mount = self._mount(name)
        world_from_arm = world_from_ee[list(self._contract.arms).index(str(camera.tf_anchor))]
        return world_from_arm if mount is None else world_from_arm @ mount

    def _mount(self, name: str) -> Array | None:
        calibration = self._calibrations.get(name)
        if calibration is not None and calibration.ee_from_camera is not None:
            return calibration.ee_from_camera.matrix
        mount = self._contract.cameras[name].ee_from_camera
        return None if mount is None else mount.matrix

    def _check_cameras(self, folder: LerobotFolder) -> None:
        present = {name: key for name, key in self._names.cameras.items() if key is not None}
        for name, key in present.items():
            if key not in folder.image_keys:
                raise LerobotError(f'{folder.root} has no image feature {key!r} for camera {name}; it has '
                                   f'{", ".join(folder.image_keys) or "none"}: correct the map, or set null')
            if name not in self._calibrations:
                raise LerobotError(f'camera {name} has no intrinsics, and LeRobot datasets have none: give its '
                                   'calibration with --intrinsics, or assume a field of view with --fov')
            camera = self._contract.cameras[name]
            if camera.world_from_camera is None and self._mount(name) is None:
                raise LerobotError(f'camera {name} moves with arm {camera.tf_anchor}, and LeRobot datasets have no TF: '
                                   f'give ee_from_camera of {name} in the --intrinsics file or in the contract')
        for arm, facts in self._contract.arms.items():
            missing = [name for name in facts.reference_cameras if name not in present]
            if missing:
                raise LerobotError(f'{folder.root} lacks camera {missing[0]}, a reference camera of arm {arm}: use a '
                                   'contract with reference_cameras of the dataset')


def _require_same(what: str, got: Mapping[str, object], expected: Mapping[str, object]) -> None:
    if set(got) != set(expected):
        raise LerobotError(f'the map has the {what} {", ".join(got)}, expected all {what} of the contract: '
                           f'{", ".join(expected)}')
