"""Parameters of the policy node. Facts about the robot are in its contract."""

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
    """Parameters of the policy node, read when it is configured unless a field says otherwise."""

    contract: str = parameter('', 'path of the robot contract (YAML)', required=True)
    checkpoint: str = parameter('', 'checkpoint file or folder; empty for an untrained tiny model')
    vlm: str = parameter('', 'hub name or folder of the Qwen3-VL; empty for the one named in the checkpoint')
    device: str = parameter('auto', 'device of the model: auto, cpu, cuda or cuda:N')
    dtype: Precision = parameter(
        Precision.AUTO, 'precision of the model; auto: float32 on a CPU, on a GPU the precision that the checkpoint '
        'records for its VLM, bfloat16 where it records none')
    use_ema: bool = parameter(False, 'use the exponential moving average of the weights')
    denoising_steps: int = parameter(20, 'number of diffusion steps from noise to a plan', lower=1, upper=100)
    noise_scale: float = parameter(
        1.0, 'scale of the initial diffusion noise; 0 makes sampling deterministic',
        lower=0.0, upper=1.0)
    seed: int = parameter(0, 'seed of the initial diffusion noise', lower=0, upper=2**31 - 1)

    worker: WorkerKind = parameter(
        WorkerKind.PROCESS, 'where inference runs; a process disturbs the control timer less than a thread')
    inference_timeout_s: float = parameter(
        20.0, 'duration after which a plan counts as hung, which is a fault [s]', lower=0.05, upper=600.0)
    start_timeout_s: float = parameter(
        300.0, 'longest time to load and warm up the model [s]', lower=1.0, upper=3600.0)
    inference_threads: int = parameter(
        0, 'CPU threads of a worker process; 0 leaves one core to the rest', lower=0, upper=256)
    worker_nice: int = parameter(0, 'increment of the niceness of a worker process', lower=0, upper=19)

    replan_period_s: float = parameter(
        0.0, 'shortest time between the observations of two plans [s]; 0 plans as often as possible',
        lower=0.0, upper=10.0)
    chunk_mode: ChunkMode = parameter(ChunkMode.NEWEST_BLEND, 'how overlapping plans become one motion')
    blend_s: float = parameter(
        0.2, 'time over which a new plan is blended in [s]', lower=0.0, upper=2.0)
    ensemble_size: int = parameter(4, 'largest number of plans averaged by temporal_ensemble', lower=1, upper=16)

    default_prompt: str = parameter('', 'instruction after configure; empty waits for one')
    dead_man_timeout_s: float = parameter(
        0.0, 'targets are published only while apt/dead_man is true at least this often [s]; 0 uses no switch',
        lower=0.0, upper=10.0)

    cameras: tuple[str, ...] = parameter((), 'cameras of the contract to use; empty for all')
    stamp_on_receipt: tuple[str, ...] = parameter(
        (), 'cameras and arms whose messages are stamped at arrival, because their drivers stamp wrongly')
    image_reliability: Reliability = parameter(
        Reliability.BEST_EFFORT, 'reliability of image subscriptions; reliable only matches reliable publishers')
    image_deadline_s: float = parameter(
        0.0, 'QoS deadline of image subscriptions [s]; 0 for none. A subscription with a deadline only matches '
        'publishers that offer one', lower=0.0, upper=10.0)

    plan_markers: bool = parameter(True, 'publish plans as RViz markers', mutability=Mutability.ANYTIME)
