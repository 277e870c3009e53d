"""Encoding of targets, chunks, status and plan markers as ``apt_msgs`` messages and RViz markers."""

from collections.abc import Sequence

import numpy as np
from apt_msgs.msg import ActionChunk, ArmTrajectory, EndEffectorTarget, PolicyStatus, StreamAge
from geometry_msgs.msg import Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from apt_policy.core.sample import Chunk
from apt_policy.core.streams import StreamReport
from apt_policy.inference.loop import LoopStatus
from apt_policy.ros import encode
from apt_policy.ros.stamps import to_duration

# Sizes and colours of the RViz markers.
_LINE_WIDTH_M = 0.006
_SPHERE_M = 0.012
_OPEN = (0.15, 0.75, 0.35)
_CLOSED = (0.85, 0.20, 0.15)


def end_effector_target(*, stamp_ns: int, arm: str, frame: str, base_from_ee: NDArray[np.float64],
                        gripper: float, sequence: int, epoch: int) -> EndEffectorTarget:
    """Encode one arm's target (4, 4) in the frame of its base, gripper 0 closed .. 1 open."""
    return EndEffectorTarget(header=encode.header(stamp_ns, frame), arm=arm, pose=encode.pose(base_from_ee),
                             gripper=float(gripper), sequence=sequence, epoch=epoch)


def action_chunk(chunk: Chunk, *, arms: Sequence[str], world_frame: str) -> ActionChunk:
    """Encode a chunk; absent arms are omitted.

    Args:
        chunk: planned chunk.
        arms: arm names in the contract's order.
        world_frame: name of the world frame.
    """
    trajectories = [
        ArmTrajectory(arm=name, poses=encode.poses(chunk.world_from_ee[:, index]),
                      gripper=chunk.gripper[:, index].tolist())
        for index, name in enumerate(arms) if chunk.valid_arms[index]]
    return ActionChunk(
        header=encode.header(chunk.stamp_ns, world_frame), epoch=chunk.epoch, prompt=chunk.prompt,
        step=to_duration(chunk.step_ns), inference_time=to_duration(round(chunk.inference_s * 1e9)),
        arms=trajectories)


def policy_status(status: LoopStatus, streams: Sequence[StreamReport], *, stamp_ns: int,
                  detail: str) -> PolicyStatus:
    """Encode the status of the loop and its inputs.

    Args:
        status: status of the loop.
        streams: reports of all streams.
        stamp_ns: stamp of the header [ns].
        detail: sentence for the user beside the hold reason.
    """
    counts = status.counts
    return PolicyStatus(
        header=encode.header(stamp_ns, ''), hold_reason=int(status.hold.reason), detail=detail,
        enabled=status.enabled, epoch=status.epoch, targets_sent=counts.targets_sent, chunks=counts.chunks,
        holds=list(counts.holds), inference_time_p50=counts.inference.p50_s,
        inference_time_p95=counts.inference.p95_s, latency_p50=counts.latency.p50_s,
        latency_p95=counts.latency.p95_s, streams=[stream_age(report) for report in streams])


def stream_age(report: StreamReport) -> StreamAge:
    """Encode the report of one stream."""
    return StreamAge(stream=report.stream, age=report.age_s, max_age=report.max_age_s, rate=report.rate_hz,
                     expected_rate=report.expected_hz, ok=report.ok)


def plan_markers(chunk: Chunk, *, arms: Sequence[str], world_frame: str) -> MarkerArray:
    """Encode a chunk for RViz: a line along each arm's path and a sphere per state, green open, red closed."""
    markers = []
    for index, name in enumerate(arms):
        if not chunk.valid_arms[index]:
            continue
        points = [encode.point(pose) for pose in chunk.world_from_ee[:, index]]
        colors = [_gripper_color(opening) for opening in chunk.gripper[:, index]]
        lifetime = to_duration(chunk.step_ns * len(points))
        for kind, space, size in ((Marker.LINE_STRIP, 'path', _LINE_WIDTH_M),
                                  (Marker.SPHERE_LIST, 'states', _SPHERE_M)):
            marker = Marker(header=encode.header(chunk.stamp_ns, world_frame), ns=f'{name}/{space}', id=0,
                            type=kind, action=Marker.ADD, scale=Vector3(x=size, y=size, z=size),
                            points=points, colors=colors, lifetime=lifetime)
            marker.pose.orientation.w = 1.0
            markers.append(marker)
    return MarkerArray(markers=markers)


def _gripper_color(opening: float) -> ColorRGBA:
    share = float(np.clip(opening, 0.0, 1.0))
    red, green, blue = (share * o + (1 - share) * c for o, c in zip(_OPEN, _CLOSED, strict=True))
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)
