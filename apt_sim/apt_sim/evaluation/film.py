"""A film of one trial: what the cameras saw, under the instruction."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_sim.pictures import FONT
from apt_sim.tasks.task import Situation
from apt_sim.video import write_video
from apt_sim.world.cameras import CameraRig

_FRAMES_HZ = 10
_SIDE = 256
_BAR = 40


class Film:
    """Collects pictures; nothing is written until :meth:`save`."""

    def __init__(self, rig: CameraRig, contract: RobotContract) -> None:
        self._rig, self._cameras = rig, tuple(contract.cameras)
        self._pictures: list[NDArray[np.uint8]] = []
        self._due_ns: int | None = None

    def see(self, now: Situation, instruction: str) -> None:
        """Take a picture, if one is due."""
        if self._due_ns is not None and now.stamp_ns < self._due_ns:
            return
        self._due_ns = now.stamp_ns + 10**9 // _FRAMES_HZ
        self._pictures.append(_titled(np.hstack([self._shoot(name) for name in self._cameras]), instruction))

    def save(self, path: Path, reason: str) -> None:
        """Encode as H.264; the last picture names the reason for a second."""
        path.parent.mkdir(parents=True, exist_ok=True)
        last = [_titled(self._pictures[-1][_BAR:], reason)] * _FRAMES_HZ
        write_video([*self._pictures, *last], path, rate_hz=_FRAMES_HZ)

    def _shoot(self, name: str) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(self._rig.shoot(name).rgb, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST),
                          np.uint8)


def _titled(picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    bar = np.full((_BAR, picture.shape[1], 3), 24, np.uint8)
    cv2.putText(bar, title, (8, 26), FONT, 0.5, (240, 240, 240), 1, cv2.LINE_AA)
    return np.ascontiguousarray(np.vstack([bar, picture]))
