"""Supervised learning of a Qwen3-VL on conversations: transformers' own trainer around our collation.

Only answers are learned. A run that was broken off goes on from its last save.
"""

import json
import logging
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoTokenizer,
    EvalPrediction,
    PreTrainedTokenizerBase,
    Qwen3VLForConditionalGeneration,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from apt_policy.core.errors import UserError
from apt_policy.model.vlm.load import image_spec
from apt_policy.model.vlm.pixels import ImageSpec
from apt_training.claim import ClaimError, keep_to
from apt_training.vlm_finetune.aided import AidedTrainer
from apt_training.vlm_finetune.conversations import Conversations
from apt_training.vlm_finetune.finder import Finder
from apt_training.vlm_finetune.lesson import NO_ANSWER, Lesson
from apt_training.vlm_finetune.newborn import newborn, tokenizer_of
from apt_training.vlm_finetune.pointer import Pointer

log = logging.getLogger(__name__)

NEWBORN = 'newborn'
_REPORTED = ('eval_loss', 'eval_answer_tokens_right')
REPORT = 'examination.json'
COURSE = 'course.json'
_TEXTS = 5000
"""So many conversations make the vocabulary of a newborn model."""


class SchoolError(UserError, ValueError):
    """A course that cannot be begun; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is taught, and how long."""

    out: Path
    vlm: str = NEWBORN
    """Qwen3-VL by hub name or folder, or :data:`NEWBORN`."""
    steps: int = 5_000
    looking: int = 1_500
    """Steps in which only things are found in pictures, before anything is said; where pictures are marked."""
    batch: int = 32
    """Conversations per step and process."""
    lr: float = 1e-3
    """Highest rate; warmed up over the first twentieth, then along a cosine to nothing."""
    seed: int = 0
    save_every: int = 500
    workers: int = 1
    half: bool = True
    """Whether bfloat16 is used where it is precise enough."""

    def __post_init__(self) -> None:
        for name in ('steps', 'batch', 'save_every'):
            if getattr(self, name) < 1:
                raise SchoolError(f'{name} is {getattr(self, name)}; expected 1 or more')
        for name in ('looking', 'seed', 'workers'):
            if getattr(self, name) < 0:
                raise SchoolError(f'{name} is {getattr(self, name)}; expected 0 or more')
        if not 0 < self.lr < 1:
            raise SchoolError(f'lr is {self.lr}; expected between 0 and 1')


@dataclass(frozen=True, kw_only=True, eq=False)
class Pupil:
    """Who learns."""

    model: Qwen3VLForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    image: ImageSpec


def teach(course: Course, lessons: Conversations, examination: Conversations | None) -> Mapping[str, float]:
    """Train, save the model in ``course.out`` and, if there is one, hold the examination.

    Returns:
        What the examination found, also written as :data:`REPORT`; nothing without one.

    Raises:
        ConversationError: a conversation cannot be used.
        SchoolError: the model cannot be loaded, is no Qwen3-VL, or the folder belongs to another course.
        OSError: the disk is full.
    """
    pupil = _enrol(course, lessons)
    _claim(course, lessons)
    lesson = Lesson(pupil.tokenizer, pupil.image, lessons.words)
    finder = Finder(pupil.model, len(lessons.words)) if lessons.words else None
    if finder is not None:
        if course.looking:
            _train(Trainer(model=finder, args=_arguments(course, 'looking', course.looking), data_collator=lesson.look,
                           train_dataset=lessons))
        finder.join(pupil.model)
    pointer = Pointer(pupil.model) if lessons.meant else None
    if pointer is not None:
        pointer.join(pupil.model)
    trainer = AidedTrainer(
        finder=finder, pointer=pointer, model=pupil.model, args=_arguments(course, 'talking', course.steps),
        data_collator=lesson, train_dataset=lessons, eval_dataset=examination, compute_metrics=_marks,
        preprocess_logits_for_metrics=_guesses)
    _train(trainer)
    for aid in (finder, pointer):
        if aid is not None:
            aid.leave(pupil.model)
    if trainer.is_world_process_zero():
        _graduate(pupil, course.out)
    if examination is None:
        return {}
    marks = {name: round(float(value), 6) for name, value in trainer.evaluate().items() if name in _REPORTED}
    if trainer.is_world_process_zero():
        (course.out / REPORT).write_text(json.dumps(marks, indent=2) + '\n')
    log.info('examination: %s', ', '.join(f'{name.removeprefix("eval_")} {value:g}' for name, value in marks.items()))
    return marks


def _claim(course: Course, lessons: Conversations) -> None:
    """A folder belongs to one course: a run that goes on with other words or rates would be neither's."""
    note = course.out / 'training' / COURSE
    note.parent.mkdir(parents=True, exist_ok=True)
    processes = int(os.environ.get('WORLD_SIZE', '1'))
    try:
        keep_to(note, {'vlm': course.vlm, 'seed': course.seed, 'lr': course.lr, 'conversations': lessons.digest,
                       'conversations_per_step': course.batch * processes})
    except ClaimError as error:
        raise SchoolError(str(error)) from error


def _enrol(course: Course, lessons: Conversations) -> Pupil:
    if course.vlm == NEWBORN:
        chosen = random.Random(course.seed).sample(range(len(lessons)), min(len(lessons), _TEXTS))
        tokenizer = tokenizer_of(lessons[index].messages for index in sorted(chosen))
        return Pupil(model=newborn(tokenizer, course.seed), tokenizer=tokenizer, image=ImageSpec())
    try:
        # The trainer's bfloat16 wants weights of float32, whatever they were saved as.
        model = Qwen3VLForConditionalGeneration.from_pretrained(course.vlm, dtype=torch.float32)
        return Pupil(model=model, tokenizer=AutoTokenizer.from_pretrained(course.vlm), image=image_spec(course.vlm))
    except (OSError, ValueError) as error:
        raise SchoolError(f'cannot load the vision-language model {course.vlm!r}: {error}') from error


def _train(trainer: Trainer) -> None:
    """From the last save, where there is one."""
    folder = Path(str(trainer.args.output_dir))
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)


def _arguments(course: Course, part: str, steps: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(course.out / 'training' / part), max_steps=steps, per_device_train_batch_size=course.batch,
        per_device_eval_batch_size=course.batch, learning_rate=course.lr, lr_scheduler_type='cosine',
        warmup_steps=max(1, steps // 20), weight_decay=0.01, max_grad_norm=1.0, seed=course.seed,
        save_steps=course.save_every, save_total_limit=2, logging_steps=25, dataloader_num_workers=course.workers,
        use_cpu=not torch.cuda.is_available(), bf16=course.half, remove_unused_columns=False,
        report_to='tensorboard', disable_tqdm=True, label_names=['labels'],
        # Looking runs no more of the encoder than the map needs.
        ddp_find_unused_parameters=part == 'looking')


def _graduate(pupil: Pupil, out: Path) -> None:
    """The folder as the hub has them; what was there is replaced file by file."""
    pupil.model.save_pretrained(out)
    pupil.tokenizer.save_pretrained(out)
    image = pupil.image
    fields = {'image_processor_type': 'Qwen2VLImageProcessorFast', 'image_mean': image.mean, 'image_std': image.std,
              'patch_size': image.patch, 'temporal_patch_size': image.frames, 'merge_size': image.merge}
    (out / 'preprocessor_config.json').write_text(json.dumps(fields, indent=2) + '\n')


def _guesses(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, L) the likeliest next tokens."""
    return logits.argmax(-1)


def _marks(prediction: EvalPrediction) -> dict[str, Any]:
    guessed: NDArray[np.int64] = prediction.predictions[:, :-1]
    labels: NDArray[np.int64] = prediction.label_ids[:, 1:]
    asked = labels != NO_ANSWER
    return {'answer_tokens_right': float((guessed == labels)[asked].mean())}
