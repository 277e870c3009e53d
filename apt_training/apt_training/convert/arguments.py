"""Command line of ``apt-convert``, with the flags of each source."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from apt_policy.cli import UsageError, flag, require_words


@dataclass(frozen=True, kw_only=True)
class GeneralArguments:
    """Flags of every source."""

    inputs: Annotated[tuple[Path, ...], Positional, flag('INPUT [INPUT ...]', default='')] = ()
    """Bags as rosbag2 folders, .mcap or .db3 files, folders of bags; with --from lerobot datasets."""
    contract: Annotated[Path, flag('FILE')]
    """Contract of the robot, such as config/aloha.yaml."""
    out: Annotated[Path, flag('FOLDER')]
    """Folder for the episodes."""
    source: Annotated[Literal['rosbag', 'lerobot'], flag(name='from')] = 'rosbag'
    """Kind of input."""
    storage: Literal['jpeg', 'raw', 'video'] = 'jpeg'
    """Encoding of images."""
    jpeg_quality: Annotated[int, flag('1-100')] = 95
    """Quality of JPEG images."""
    force: bool = False
    """Convert again what is there."""
    workers: Annotated[int, flag('N', default='one per processor')] = 0
    """Worker processes."""
    executor: Literal['processes', 'ray'] = 'processes'
    """Executor of the jobs; ray: a cluster that sees the same files."""
    ray_address: Annotated[str | None, flag('ADDRESS', default='RAY_ADDRESS, else a cluster on this machine')] = None
    """Address of the cluster."""
    sheet: bool = True
    """Draw a contact sheet of all episodes."""
    quiet: bool = False
    """Print no table of streams per input."""


@dataclass(frozen=True, kw_only=True)
class RosbagArguments:
    """Flags that say how bags become episodes (``--from rosbag``)."""

    split_by: Literal['auto', 'marks', 'prompt', 'bag'] = 'auto'
    """Bags: beginning of an episode; auto: marks if there are any, else new prompts, else the bag."""
    labels: Literal['auto', 'targets', 'joints', 'measured'] = 'auto'
    """Bags: action labels; auto: targets, else joint commands, else later poses."""
    ee_from: Literal['auto', 'tf', 'joints'] = 'auto'
    """Bags: source of measured poses; auto: TF, and joints for an arm that it lacks."""
    reference: Annotated[str | None, flag('STREAM', default='one frame per contract step')] = None
    """Bags: camera or arm whose every message gives a frame."""
    stamp_on_receipt: Annotated[tuple[str, ...], flag('STREAM [STREAM ...]', default='')] = ()
    """Bags: cameras, arms or tf whose messages count from their arrival, not from their stamps."""
    cameras: Annotated[tuple[str, ...] | None, flag('CAMERA [CAMERA ...]', default='all of the contract')] = None
    """Bags: cameras to use."""
    max_drops: Annotated[float, flag('SHARE')] = 0.2
    """Bags: an episode that lacks more of its frames is left out."""
    namespace: Annotated[str, flag('NAME')] = ''
    """Bags: namespace of the robot in them."""
    reader: Literal['auto', 'rosbags', 'rosbag2'] = 'auto'
    """Bags: library that reads the files; auto: rosbag2_py of a sourced ROS distribution, else rosbags."""
    prompt: Annotated[str, flag('TEXT')] = ''
    """Bags: instruction for episodes during which none was given."""


@dataclass(frozen=True, kw_only=True)
class LerobotArguments:
    """Flags that say how LeRobot datasets are read (``--from lerobot``)."""

    lerobot_map: Annotated[Path | None, flag('FILE', default='ALOHA names')] = None
    """LeRobot: columns of the joints and features of the cameras (YAML)."""
    intrinsics: Annotated[Path | None, flag('FILE', default='')] = None
    """LeRobot: intrinsics of the cameras, and mounts of moving ones (YAML)."""
    fov: Annotated[float | None, flag('DEG', default='')] = None
    """LeRobot: horizontal field of view for cameras without intrinsics."""
    lerobot_rate: Annotated[float | None, flag('HZ', default='that of the contract')] = None
    """LeRobot: frames kept per second."""


@dataclass(frozen=True, kw_only=True)
class ConvertArguments(LerobotArguments, RosbagArguments, GeneralArguments):
    """Convert recordings to the episodes that a policy is trained on."""

    def __post_init__(self) -> None:
        """Check numbers, and that each flag of a source is given with that source.

        Raises:
            UsageError: a value cannot be used.
        """
        require_words('INPUT', self.inputs)
        if self.workers < 0:
            raise UsageError(f'--workers is {self.workers}; expected 0 (one per processor) or more')
        if not 1 <= self.jpeg_quality <= 100:
            raise UsageError(f'--jpeg-quality is {self.jpeg_quality}; expected 1 to 100')
        other, source = (LerobotArguments, 'lerobot') if self.source == 'rosbag' else (RosbagArguments, 'rosbag')
        for field in fields(other):
            if getattr(self, field.name) != field.default:
                raise UsageError(f'--{field.name.replace("_", "-")} needs --from {source}')
