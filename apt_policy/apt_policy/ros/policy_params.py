"""The parameters of the policy node.

Facts about the robot are the contract's, not parameters.
"""

from dataclasses import dataclass
from enum import Enum

from apt_policy.inference.chunking import ChunkMode
from apt_policy.inference.worker.worker import WorkerKind
from apt_policy.ros.params import Mutability, parameter
from apt_policy.ros.qos import Reliability


class Precision(Enum):
    """Floating-point type of the model's weights and activations."""

    AUTO = 'auto'
    FLOAT32 = 'float32'
    BFLOAT16 = 'bfloat16'


@dataclass(frozen=True, kw_only=True)
class PolicyParams:
    """Read when the node is configured, unless a field says otherwise."""

    contract: str = parameter('', 'path of the robot contract (YAML)', required=True)
    checkpoint: str = parameter('', 'trained weights, a file or a run folder; empty: an untrained tiny model')
    vlm: str = parameter('', 'Qwen3-VL by name or folder, in place of the one named in the checkpoint')
    device: str = parameter('auto', 'where the model runs: auto, cpu, cuda or cuda:N')
    dtype: Precision = parameter(
        Precision.AUTO, 'precision of the model; auto: float32 on a CPU, on a GPU the precision that the checkpoint '
        'records for its VLM, bfloat16 where it records none')
    use_ema: bool = parameter(False, 'run the averaged weights that the checkpoint has beside its last ones')
    denoising_steps: int = parameter(20, 'steps from noise to a plan', lower=1, upper=100)
    noise_scale: float = parameter(
        1.0, 'of the noise that plans start from; at 0 the same observation always gives the same plan',
        lower=0.0, upper=1.0)
    seed: int = parameter(0, 'of the noise that plans start from', lower=0, upper=2**31 - 1)

    worker: WorkerKind = parameter(
        WorkerKind.PROCESS, 'where inference runs; a process disturbs control less')
    inference_timeout_s: float = parameter(
        20.0, 'a plan that takes longer counts as hung and is a fault [s]', lower=0.05, upper=600.0)
    start_timeout_s: float = parameter(
        300.0, 'longest time to load and warm up the model [s]', lower=1.0, upper=3600.0)
    inference_threads: int = parameter(
        0, 'CPU threads of a worker process; 0 leaves one core to the rest', lower=0, upper=256)
    worker_nice: int = parameter(0, 'added to the niceness of a worker process', lower=0, upper=19)

    replan_period_s: float = parameter(
        0.0, 'shortest time between the observations of two plans [s]; 0 plans as often as the model can',
        lower=0.0, upper=10.0)
    chunk_mode: ChunkMode = parameter(ChunkMode.NEWEST_BLEND, 'how overlapping plans become one motion')
    blend_s: float = parameter(
        0.2, 'time over which a change of plan is blended in [s]', lower=0.0, upper=2.0)
    ensemble_size: int = parameter(4, 'most plans averaged by temporal_ensemble', lower=1, upper=16)

    default_prompt: str = parameter('', 'instruction to follow until another one comes; empty waits for one')
    dead_man_timeout_s: float = parameter(
        0.0, 'targets flow only while apt/dead_man says true at least this often [s]; 0 uses no switch',
        lower=0.0, upper=10.0)

    cameras: tuple[str, ...] = parameter((), 'cameras of the contract to use; empty uses all')
    stamp_on_receipt: tuple[str, ...] = parameter(
        (), 'cameras and arms whose drivers stamp wrongly: their messages count from their arrival')
    image_reliability: Reliability = parameter(
        Reliability.BEST_EFFORT, 'of image subscriptions; reliable hears only reliable publishers')
    image_deadline_s: float = parameter(
        0.0, 'longest gap between images before DDS reports it [s]; 0 asks for none. Drivers that offer '
        'no deadline cannot be heard with one', lower=0.0, upper=10.0)

    plan_markers: bool = parameter(True, 'publish plans as RViz markers', mutability=Mutability.ANYTIME)
