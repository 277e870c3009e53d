"""Output of an evaluation to a JSON file, to images and to TensorBoard."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from apt_policy.core.atomic import write_text
from apt_policy.model.checkpoint import Checkpoint
from apt_training.evaluate.evaluation import Evaluation
from apt_training.evaluate.metrics import mean_over_horizon
from apt_training.evaluate.plots import draw_errors, draw_examples, draw_gates, draw_probe
from apt_training.inspect.drawing import save_figure

FIGURES: Mapping[str, Callable[[Evaluation], Figure | None]] = {
    'errors': draw_errors, 'language': draw_probe, 'gates': draw_gates, 'examples': draw_examples}


def write_json(evaluation: Evaluation, checkpoint: Checkpoint, path: Path) -> None:
    """Write all numbers and the facts of the checkpoint.

    Raises:
        OSError: the file cannot be written.
    """
    facts = {'checkpoint': checkpoint.source, 'stage': checkpoint.expert.stage.value,
             'iteration': checkpoint.iteration, 'git_revision': checkpoint.git_revision}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(facts | evaluation.to_dict(), indent=2) + '\n')


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write one PNG per figure that has content, and return the paths.

    Raises:
        OSError: a file cannot be written.
    """
    written = []
    for name, draw in FIGURES.items():
        figure = draw(evaluation)
        if figure is not None:
            save_figure(figure, folder / f'{name}.png')
            written.append(folder / f'{name}.png')
    return written


def write_tensorboard(evaluation: Evaluation, iteration: int, folder: Path) -> None:
    """Write scalars and figures at the checkpoint's iteration, beside the logs of training.

    Raises:
        OSError: the logs cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as board:
        for name, value in evaluation_scalars(evaluation).items():
            board.add_scalar(f'eval/{name}', value, iteration)
        for name, draw in FIGURES.items():
            figure = draw(evaluation)
            if figure is not None:
                board.add_figure(f'eval/{name}', figure, iteration, close=False)


def evaluation_scalars(evaluation: Evaluation) -> dict[str, float]:
    """Return one number of each kind, for curves over checkpoints."""
    errors = evaluation.errors
    values = {f'{kind}_{name}': value for kind, part in (('mean', errors.mean), ('best', errors.best))
              for name, value in mean_over_horizon(part, errors.observations).items()}
    if evaluation.probe is not None:
        values['language_ratio'] = evaluation.probe.ratio
    return values | {f'gate_{gate.block}': gate.mean for gate in evaluation.gates}
