"""Names of datasets, groups and attributes in an episode file.

The layout is that of the published data tools, with attributes of this suite. docs/data.md describes the values.
"""

# Datasets at the top.
EE_POSE = 'ee_pose'
GRIPPER = 'gripper'
EE_POSE_DESIRED = 'ee_pose_desired'
GRIPPER_DESIRED = 'gripper_desired'
TIMESTAMP = 'timestamp'
SUBTASK_DESCRIPTION = 'subtask_description'
SUBTASK_START = 'subtask_start_index'

# Datasets in the group of a camera.
RGB = 'rgb'
CAMERA_POSE = 'pose'
INTRINSICS = 'K'
MASK = 'mask'
MASK_IS_CONSTANT = 'constant'
"""Attribute of :data:`MASK`: True if all rows equal the first one."""

# Attributes of the published tools.
PROMPT_PREFIX = 'prompt_text'
COMPRESS = 'compress'
IS_BGR = 'is_bgr'
EE_INDICES = 'ee_indices'

# Attributes of this suite.
FORMAT_VERSION = 'apt_format'
RATE = 'rate_hz'
START = 'start_stamp_s'
ARMS = 'arms'
CAMERAS = 'cameras'
LABEL_SOURCE = 'label_source'
CONTRACT = 'contract'
CONTRACT_HASH = 'contract_hash'
SOURCE_HASH = 'source_hash'
CONVERTER = 'converter_version'
UNITS = 'units'
FRAMES = 'frames'

VERSION = 1
UNITS_TEXT = 'm, rad, s; gripper 0 closed .. 1 open; K in px, centre of the first pixel at 0'
FRAMES_TEXT = 'ee_pose is world_from_ee; CAM/pose is world_from_camera, x right, y down, z forward'
PIXEL_CENTRE = 0.5
"""Offset from pixel coordinates of the file, which count from the centre of the first pixel as in OpenCV and ROS, to
those of the suite, which count from its corner [px]."""


def prompt_key(index: int) -> str:
    """Return the attribute of an instruction; the names sort in the order of the indices."""
    return PROMPT_PREFIX if index == 0 else f'{PROMPT_PREFIX}_{index:04d}'
