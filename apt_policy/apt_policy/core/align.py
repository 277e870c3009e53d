"""Assembly of observations from streams of stamped messages.

The live node, the bag converter and the tests use the same assembler; it never reads a
clock. Callbacks only store; :meth:`ObservationAssembler.snapshot` decodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.contract import RobotContract
from apt_policy.core.inputs import ArmInput, CameraInput, Link
from apt_policy.core.sample import ArmState, Hold, HoldReason, Observation, View
from apt_policy.core.streams import Arrival, StreamReport, TimeBase
from apt_policy.core.transforms import TransformSource


class ObservationAssembler:
    """Store of the robot's messages that assembles observations from them.

    Callbacks may run in one thread and :meth:`snapshot` in another.
    """

    def __init__(self, contract: RobotContract, transforms: TransformSource, *,
                 cameras: Sequence[str] | None = None,
                 time_bases: Mapping[str, TimeBase] | None = None) -> None:
        """Create the inputs of the contract's cameras and arms.

        Args:
            contract: robot contract.
            transforms: source of TF frames; cleared when the clock jumps back.
            cameras: names of the cameras to use; None uses all. The others are None in observations.
            time_bases: time base by camera or arm name; HEADER for names that are absent.

        Raises:
            ValueError: a name is not in the contract, or an arm has no reference camera among ``cameras``.
        """
        bases = dict(time_bases or {})
        used = list(contract.cameras) if cameras is None else list(cameras)
        _require_known('cameras', used, contract.cameras)
        _require_known('time_bases', bases, (*contract.cameras, *contract.arms))
        for name, arm in contract.arms.items():
            if not set(arm.reference_cameras) & set(used):
                raise ValueError(f'no camera of {", ".join(used) or "(none)"} is a reference camera of arm {name!r}; '
                                 f'add one of {", ".join(arm.reference_cameras)}')
        self._contract, self._transforms = contract, transforms
        self._links: set[str] = set()
        self._cameras = {name: self._camera_input(name, bases.get(name, TimeBase.HEADER))
                         for name in contract.cameras if name in used}
        self._arms = {name: self._arm_input(name, bases.get(name, TimeBase.HEADER))
                      for name in contract.arms}
        self._lock = Lock()
        self._jump = ''

    @property
    def transform_streams(self) -> frozenset[str]:
        """Names of the streams that come from TF, as in reports and holds."""
        return frozenset(self._links)

    def add_image(self, camera: str, message: Any, receive_ns: int) -> Arrival:
        """Store sensor_msgs/Image or CompressedImage by reference."""
        source = self._cameras[camera]
        return self._noted(source, source.add_image(message, receive_ns))

    def add_camera_info(self, camera: str, message: Any) -> None:
        """Store sensor_msgs/CameraInfo by reference; only the newest is kept."""
        self._cameras[camera].add_info(message)

    def add_joint_state(self, arm: str, message: Any, receive_ns: int) -> Arrival:
        """Store sensor_msgs/JointState by reference."""
        source = self._arms[arm]
        return self._noted(source, source.add_joint_state(message, receive_ns))

    def snapshot(self, tick_ns: int, prompt: str) -> Observation | Hold:
        """Assemble the observation as of ``tick_ns``, or return a hold for the first missing, stale or bad stream.

        Args:
            tick_ns: instant on the clock of the stamps [ns]; nothing newer is used.
            prompt: instruction to put into the observation.
        """
        history = []
        for step in reversed(range(self._contract.history)):
            states = self.arm_states(tick_ns - step * self._contract.step_ns)
            if isinstance(states, Hold):
                return states
            history.append(states)
        views: list[View | None] = []
        for name in self._contract.cameras:
            view = self._cameras[name].view(tick_ns) if name in self._cameras else None
            if isinstance(view, Hold):
                return self._explained(view)
            views.append(view)
        with self._lock:
            self._jump = ''
        return Observation(stamp_ns=tick_ns, prompt=prompt, views=tuple(views), history=tuple(history))

    def arm_states(self, stamp_ns: int) -> tuple[ArmState, ...] | Hold:
        """Return the state of every arm at ``stamp_ns``; no image is decoded, so the control tick can call it."""
        states = []
        for arm in self._arms.values():
            state = arm.state(stamp_ns)
            if isinstance(state, Hold):
                return self._explained(state)
            states.append(state)
        return tuple(states)

    def ages(self, tick_ns: int) -> tuple[StreamReport, ...]:
        """Report age and rate of every stream: cameras in the contract's order, then arms."""
        return tuple(report for source in self._sources() for report in source.reports(tick_ns))

    def clear(self) -> None:
        """Drop all stamped data after a jump of the clock; camera intrinsics stay."""
        for source in self._sources():
            source.clear()
        self._transforms.clear()

    def _sources(self) -> tuple[CameraInput | ArmInput, ...]:
        return *self._cameras.values(), *self._arms.values()

    def _noted(self, source: CameraInput | ArmInput, arrival: Arrival) -> Arrival:
        if arrival is Arrival.CLOCK_JUMP:
            with self._lock:
                self._jump = f'the stamps of {source.name} jumped back'
            for other in self._sources():
                if other is not source:
                    other.clear()
            self._transforms.clear()
        return arrival

    def _explained(self, hold: Hold) -> Hold:
        """Give the clock jump as the reason for a missing stream until all streams are back."""
        with self._lock:
            jump = self._jump
        if jump and hold.reason is HoldReason.MISSING_STREAM:
            return replace(hold, reason=HoldReason.CLOCK_JUMP, detail=f'{jump}; {hold.detail}')
        return hold

    def _camera_input(self, name: str, base: TimeBase) -> CameraInput:
        camera = self._contract.cameras[name]
        link = None
        if camera.world_from_camera is None and camera.tf_anchor is not None:
            mount = camera.ee_from_camera
            frame = camera.frame if mount is None else self._contract.arms[camera.tf_anchor].ee_frame
            link = self._link(camera.tf_anchor, frame, None if mount is None else mount.matrix)
        return CameraInput(name, camera, self._contract.image_size, link, base)

    def _arm_input(self, name: str, base: TimeBase) -> ArmInput:
        arm = self._contract.arms[name]
        reach_s = (self._contract.history - 1) * self._contract.step_s
        return ArmInput(name, arm, self._link(name, arm.ee_frame), base, reach_s)

    def _link(self, anchor: str, frame: str, mount: NDArray[np.float64] | None = None) -> Link:
        arm = self._contract.arms[anchor]
        link = Link(base=arm.base_frame, frame=frame, world_from_base=arm.world_from_base.matrix,
                    transforms=self._transforms, frame_from_mounted=mount)
        self._links.add(link.name)
        return link


def _require_known(what: str, names: Iterable[str], valid: Iterable[str]) -> None:
    unknown = [name for name in names if name not in set(valid)]
    if unknown:
        raise ValueError(f'{what} has {", ".join(map(repr, unknown))}, which the contract does not define; '
                         f'it has {", ".join(valid)}')
