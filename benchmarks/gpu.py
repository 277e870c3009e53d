"""``make gpu``: is the policy right on a GPU, how fast is it, how fast could it be, and what memory does it take?

Golden vectors in float32 and bfloat16; then the planner as it is (eager), part by part, beside the floors of bytes and
operations. Needs torch and transformers beside the sources of ``apt_policy``: no ROS, no simulator, no build.

    PYTHONPATH=apt_policy python3 benchmarks/gpu.py
"""

import argparse
import gc
import importlib.util
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from gpu_floors import Roofs, Work, count_work, measure_roofs
from gpu_models import SIZES, build, needed_bytes
from gpu_timing import DENOISE, OBSERVE, PARTS, PLAN, STEP, VLM, MarkedPolicy, clock_for, time_plans

from apt_policy.core.contract import RobotContract
from apt_policy.inference.planner import PolicyPlanner
from apt_policy.model.actions import ACTION_SIZE
from apt_policy.model.batch import move
from apt_policy.model.observation import blank_observation, encode_images, encode_robot_state, reference_candidates

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / 'apt_policy' / 'test' / 'model' / 'golden_vectors.py'
GOLDEN = ROOT / 'apt_policy' / 'test' / 'golden'
PRECISIONS = ('float32', 'bfloat16')
STEPS = 20
PROMPT = 'pick up the red cube and put it into the box'


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is run."""

    warm_up: int
    runs: int
    copy_bytes: int
    """Copied to find the bandwidth."""
    side: int
    """Of the matrices multiplied to find the rate."""
    sizes: tuple[str, ...]


# Far larger than a cache, and enough rows to fill every unit.
ON_CUDA = Effort(warm_up=10, runs=50, copy_bytes=2 ** 30, side=8192, sizes=('aloha_small', 'base'))
# Shows that everything runs; its figures mean little.
ON_CPU = Effort(warm_up=1, runs=3, copy_bytes=2 ** 26, side=256, sizes=('aloha_small', 'tiny'))


def main(argv: Sequence[str] | None = None) -> int:
    """Run it.

    Returns:
        0, 1 if golden vectors differ, 2 for a device that is not there or has too little memory.
    """
    options = _options(argv)
    device = torch.device(options.device)
    effort = ON_CUDA if device.type == 'cuda' else ON_CPU
    sizes = tuple(options.sizes or effort.sizes)
    problem = _problem(device, sizes)
    if problem:
        print(f'gpu: {problem}', file=sys.stderr)
        return 2
    transformers.utils.logging.disable_progress_bar()
    report = measure(device, replace(effort, sizes=sizes, runs=options.runs or effort.runs))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + '\n')
    print(f'wrote {options.out}')
    return 0 if all(line['within'] for line in report['golden']) else 1


def measure(device: torch.device, effort: Effort) -> dict[str, Any]:
    """Measure everything, printing each part as it is done."""
    report: dict[str, Any] = {'device': describe(device), 'steps': STEPS, 'roofs': {}, 'golden': [], 'latency': [],
                              'memory': []}
    print(', '.join(f'{name} {value}' for name, value in report['device'].items()))
    print('\ngolden vectors         precision  output                  error    tolerance  [of the largest entry]')
    report['golden'] = [line for precision in PRECISIONS for line in hold_against_golden(device, precision)]
    for precision in PRECISIONS:
        roofs = measure_roofs(device, getattr(torch, precision), copy_bytes=effort.copy_bytes, side=effort.side)
        report['roofs'][precision] = asdict(roofs)
        print(f'\n{precision}: copies {roofs.bytes_per_s / 1e9:.0f} GB/s, multiplies {roofs.flops_per_s / 1e12:.2f} '
              'TFLOP/s\nsize         part        p50 [ms]  p95 [ms]  mean [ms]  floor [ms]  bound by  GFLOP     MB')
        for name in effort.sizes:
            lines, memory = measure_size(name, device, precision, effort, roofs)
            _free(device)
            report['latency'] += lines
            report['memory'].append(memory)
    return report


def hold_against_golden(device: torch.device, precision: str) -> list[dict[str, Any]]:
    """Hold the expert on ``device`` against every golden file."""
    vectors = _load(VECTORS)
    lines = []
    for path in sorted(GOLDEN.glob('*.npz')):
        golden = vectors.read(path).to(device)
        expert = vectors.expert_of(golden).to(device, getattr(torch, precision))
        for difference in vectors.differences(golden, expert):
            line = {'file': path.stem, 'precision': precision, **asdict(difference), 'within': difference.within}
            lines.append(line)
            print(f'{path.stem:<22} {precision:<9}  {difference.output:<22}  {difference.share:.1e}  '
                  f'{difference.tolerance:.0e}  {"" if difference.within else "DIFFERS"}')
    return lines


def measure_size(name: str, device: torch.device, precision: str, effort: Effort,
                 roofs: Roofs) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time the plans of one policy; a line for each part, and its memory."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    policy, contract = build(SIZES[name], device, precision)
    marked = MarkedPolicy(policy, clock_for(device))
    planner = PolicyPlanner(marked, contract, denoising_steps=STEPS, seed=0)
    observation = replace(blank_observation(contract), prompt=PROMPT)
    times = time_plans(partial(planner.plan, observation, epoch=0, prefix=None), marked.clock,
                       warm_up=effort.warm_up, runs=effort.runs)
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    peak = torch.cuda.max_memory_allocated() / 1e6 if device.type == 'cuda' else None
    work = _work_of(marked, contract, device)
    lines = []
    for part in (*PARTS, STEP, PLAN):
        line: dict[str, Any] = {'size': name, 'precision': precision, 'part': part, **times.summary(part)}
        if part in work:
            floor_s, bound = work[part].floor(roofs)
            line |= {'floor_ms': floor_s * 1e3, 'bound': bound, 'gflop': work[part].flops / 1e9,
                     'megabytes': work[part].bytes / 1e6}
        lines.append(line)
        print(_row(line))
    print(f'{name:<12} weights {weights / 1e6:.0f} MB, at most in use '
          + ('not known on a CPU' if peak is None else f'{peak:.0f} MB'))
    return lines, {'size': name, 'precision': precision, 'weights_mb': weights / 1e6, 'peak_mb': peak}


def describe(device: torch.device) -> dict[str, str]:
    """Name the device and the software on it."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
    return {'device': f'{device.type} ({name})', 'torch': torch.__version__, 'CUDA': str(torch.version.cuda),
            'transformers': transformers.__version__, 'Python': platform.python_version()}


def _free(device: torch.device) -> None:
    """Give back the memory of the policy that was measured last, before the next one is built."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.empty_cache()


def _work_of(policy: MarkedPolicy, contract: RobotContract, device: torch.device) -> dict[str, Work]:
    observation = replace(blank_observation(contract), prompt=PROMPT)
    images = encode_images(observation)
    robot = move(encode_robot_state(observation, images.camera_valid, reference_candidates(contract)), device)
    noise = torch.zeros(1, len(contract.arms), contract.horizon, ACTION_SIZE, device=device)
    counted = count_work(policy, move(images, device), robot, noise)
    denoise = counted['step'].times(STEPS)
    return {VLM: counted['vlm'], OBSERVE: counted['observe'], STEP: counted['step'], DENOISE: denoise,
            PLAN: counted['vlm'] + counted['observe'] + denoise}


def _row(line: dict[str, Any]) -> str:
    text = f'{line["size"]:<12} {line["part"]:<10} {line["p50_ms"]:9.3f} {line["p95_ms"]:9.3f} {line["mean_ms"]:10.3f}'
    if 'floor_ms' not in line:
        return text
    return f'{text} {line["floor_ms"]:11.4f}  {line["bound"]:<8} {line["gflop"]:6.1f} {line["megabytes"]:6.0f}'


def _problem(device: torch.device, sizes: Sequence[str]) -> str:
    """Say why this cannot be measured here; empty if it can."""
    if device.type == 'cpu':
        return ''
    if not torch.cuda.is_available():
        return (f'torch {torch.__version__} finds no GPU. Needed are an NVIDIA GPU and a torch that is built for CUDA '
                '(make gpu PYTHON=... takes another Python); --device cpu runs the same at tiny size')
    free, _ = torch.cuda.mem_get_info(device)
    needed = max(needed_bytes(SIZES[name], precision) for name in sizes for precision in PRECISIONS)
    if free < needed:
        return (f'{free / 1e9:.0f} GB of GPU memory are free, {", ".join(sizes)} needs about {needed / 1e9:.0f} GB; '
                '--sizes aloha_small measures the small policy alone')
    return ''


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='gpu', description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda',
                        help='cpu shows that everything runs, at tiny size (default: cuda)')
    parser.add_argument('--sizes', nargs='+', choices=SIZES, metavar='SIZE',
                        help=f'of {", ".join(SIZES)}; default: {", ".join(ON_CUDA.sizes)}, on the CPU '
                             f'{", ".join(ON_CPU.sizes)}')
    parser.add_argument('--runs', type=int, metavar='N',
                        help=f'timed plans (default: {ON_CUDA.runs}, on the CPU {ON_CPU.runs})')
    parser.add_argument('--out', type=Path, default=ROOT / 'out' / 'gpu.json', help='default: out/gpu.json')
    options = parser.parse_args(argv)
    if options.runs is not None and options.runs < 1:
        parser.error(f'--runs is {options.runs}, expected 1 or more')
    return options


def _load(path: Path) -> ModuleType:
    """Import a module that is in no package: the tests' oracle."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up the module that they are defined in.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == '__main__':
    sys.exit(main())
