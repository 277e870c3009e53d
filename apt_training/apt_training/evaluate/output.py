"""Where an evaluation goes besides the terminal: a JSON file, pictures, TensorBoard."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from apt_policy.core.atomic import write_text
from apt_policy.model.checkpoint import Checkpoint
from apt_training.evaluate.evaluation import Evaluation
from apt_training.evaluate.metrics import overall
from apt_training.evaluate.plots import draw_errors, draw_examples, draw_gates, draw_probe
from apt_training.inspect.drawing import save_figure

FIGURES: Mapping[str, Callable[[Evaluation], Figure | None]] = {
    'errors': draw_errors, 'language': draw_probe, 'gates': draw_gates, 'examples': draw_examples}


def write_json(evaluation: Evaluation, checkpoint: Checkpoint, path: Path) -> None:
    """All numbers, and which checkpoint they are of.

    Raises:
        OSError: it cannot be written.
    """
    facts = {'checkpoint': checkpoint.source, 'stage': checkpoint.expert.stage.value,
             'iteration': checkpoint.iteration, 'git_revision': checkpoint.git_revision}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(facts | evaluation.to_dict(), indent=2) + '\n')


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """One PNG per figure that there is something to draw in.

    Raises:
        OSError: one cannot be written.
    """
    written = []
    for name, draw in FIGURES.items():
        figure = draw(evaluation)
        if figure is not None:
            save_figure(figure, folder / f'{name}.png')
            written.append(folder / f'{name}.png')
    return written


def write_tensorboard(evaluation: Evaluation, iteration: int, folder: Path) -> None:
    """Scalars and figures at the checkpoint's iteration, beside what training wrote.

    Raises:
        OSError: they cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as board:
        for name, value in scalars(evaluation).items():
            board.add_scalar(f'eval/{name}', value, iteration)
        for name, draw in FIGURES.items():
            figure = draw(evaluation)
            if figure is not None:
                board.add_figure(f'eval/{name}', figure, iteration, close=False)


def scalars(evaluation: Evaluation) -> dict[str, float]:
    """One number of each kind, for curves over checkpoints."""
    errors = evaluation.errors
    values = {f'{kind}_{name}': value for kind, part in (('mean', errors.mean), ('best', errors.best))
              for name, value in overall(part, errors.observations).items()}
    if evaluation.probe is not None:
        values['language_ratio'] = evaluation.probe.ratio
    return values | {f'gate_{level.block}': level.mean for level in evaluation.gates}
