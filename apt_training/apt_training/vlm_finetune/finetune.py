"""Supervised fine-tuning of a Qwen3-VL on conversations about images, with the trainer of transformers.

Only answers are learned. An interrupted run resumes from its last checkpoint.
"""

import json
import logging
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoTokenizer,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3VLForConditionalGeneration,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from apt_policy.core.errors import UserError
from apt_policy.model.vlm.load import image_spec
from apt_policy.model.vlm.pixels import ImageSpec
from apt_policy.model.vlm.tiny import SPECIAL_TOKENS, as_qwen_tokenizer, tiny_config, tiny_model
from apt_training.config_check import ConfigChangedError, check_config_unchanged
from apt_training.vlm_finetune.attention_supervision import AttentionSupervision
from apt_training.vlm_finetune.conversations import ConversationDataset
from apt_training.vlm_finetune.grounding_head import GroundingHead
from apt_training.vlm_finetune.vqa_collator import (
    IGNORE_INDEX,
    MARKS,
    PLACES,
    QUESTION_TOKENS,
    TARGET_POSITIONS,
    TARGET_TOKENS,
    VqaCollator,
)

log = logging.getLogger(__name__)

FROM_SCRATCH = 'from-scratch'
"""Value of ``vlm`` for a small model with random weights."""
RECORDED_FROM_SCRATCH = 'newborn'
"""Former name of :data:`FROM_SCRATCH`, still accepted, and the one that :data:`CONFIG_FILE` records."""
REPORT_FILE = 'examination.json'
CONFIG_FILE = 'course.json'
WARMUP_FOLDER, TRAINING_FOLDER = 'looking', 'talking'
"""Folders of transformers' checkpoints; their names are part of the format of an interrupted run."""
_REPORTED = ('eval_loss', 'eval_answer_tokens_right')
_TOKENIZER_SAMPLES = 5000
"""Number of conversations that the tokenizer of a model from scratch is trained on."""
VOCABULARY = 1024
_INITIALIZER_RANGE = 0.08
"""Standard deviation of initial weights, about one over the root of the width; 0.02 suits widths of a thousand."""
# A word with the space before it is one unit of BPE, digits and letters together: " x17" becomes one token.
_WORDS = Regex(r' ?[A-Za-z0-9]+|[^A-Za-z0-9]')


class VlmFinetuneError(UserError, ValueError):
    """Fine-tuning that cannot start; the message tells why."""


@dataclass(frozen=True, kw_only=True)
class VlmFinetuneConfig:
    """Configuration of a fine-tuning run."""

    out: Path
    """Folder of the model."""
    vlm: str = FROM_SCRATCH
    """Qwen3-VL by hub name or folder, or :data:`FROM_SCRATCH`."""
    steps: int = 5_000
    """Number of optimizer steps on conversations."""
    grounding_warmup_steps: int = 1_500
    """Number of steps before them that train the grounding head only; skipped if the images have no marks."""
    batch_size: int = 32
    """Conversations per step and process."""
    lr: float = 1e-3
    """Peak learning rate, after a warm-up over the first twentieth and before a cosine decay to 0."""
    seed: int = 0
    save_every: int = 500
    """Steps between two checkpoints."""
    workers: int = 1
    """Loading processes."""
    half: bool = True
    """True to use bfloat16 where it is precise enough."""

    def __post_init__(self) -> None:
        for name in ('steps', 'batch_size', 'save_every'):
            if getattr(self, name) < 1:
                raise VlmFinetuneError(f'{name} is {getattr(self, name)}; expected 1 or more')
        for name in ('grounding_warmup_steps', 'seed', 'workers'):
            if getattr(self, name) < 0:
                raise VlmFinetuneError(f'{name} is {getattr(self, name)}; expected 0 or more')
        if not 0 < self.lr < 1:
            raise VlmFinetuneError(f'lr is {self.lr}; expected between 0 and 1')

    @property
    def from_scratch(self) -> bool:
        """True if the model starts from random weights."""
        return self.vlm in (FROM_SCRATCH, RECORDED_FROM_SCRATCH)


@dataclass(frozen=True, kw_only=True, eq=False)
class VlmBundle:
    """Model with its tokenizer and image format."""

    model: Qwen3VLForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    image: ImageSpec


class AuxiliaryLossTrainer(Trainer):
    """Trainer of transformers with the losses of grounding head and attention supervision added."""

    def __init__(self, *, grounding: GroundingHead | None, attention: AttentionSupervision | None,
                 **arguments: Any) -> None:
        """Create the trainer; ``arguments`` are those of :class:`transformers.Trainer`."""
        super().__init__(**arguments)
        self._grounding, self._attention = grounding, attention

    def compute_loss(self, model: PreTrainedModel, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: Tensor | int | None = None) -> Any:
        """Compute the sum of all losses; see :meth:`transformers.Trainer.compute_loss`."""
        marks, places = (inputs.pop(key, None) for key in (MARKS, PLACES))
        questions, tokens, positions = (inputs.pop(key, None)
                                        for key in (QUESTION_TOKENS, TARGET_TOKENS, TARGET_POSITIONS))
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        training = torch.is_grad_enabled()
        if self._grounding is not None:
            if training and marks is not None:
                loss = loss + self._grounding.loss(marks, places)
            self._grounding.clear()
        if self._attention is not None:
            if training and questions is not None:
                loss = loss + self._attention.loss(questions, tokens, positions)
            self._attention.clear()
        return (loss, outputs) if return_outputs else loss


def finetune_vlm(config: VlmFinetuneConfig, dataset: ConversationDataset, held_out: ConversationDataset | None
                 ) -> Mapping[str, float]:
    """Fine-tune a model, save it in ``config.out``, and evaluate it on held-out conversations.

    Args:
        config: configuration of the run.
        dataset: conversations to train on.
        held_out: conversations to evaluate on; None: no evaluation.

    Returns:
        Results of the evaluation, also written as :data:`REPORT_FILE`; empty without one.

    Raises:
        ConversationError: a conversation cannot be used.
        VlmFinetuneError: the model cannot be loaded or is no Qwen3-VL, or the folder belongs to another configuration.
        OSError: the disk is full.
    """
    bundle = _load(config, dataset)
    _check_folder(config, dataset)
    collator = VqaCollator(bundle.tokenizer, bundle.image, dataset.words)
    grounding = GroundingHead(bundle.model, len(dataset.words)) if dataset.words else None
    if grounding is not None:
        if config.grounding_warmup_steps:
            _train(Trainer(model=grounding, args=_arguments(config, WARMUP_FOLDER, config.grounding_warmup_steps),
                           data_collator=collator.collate_images, train_dataset=dataset))
        grounding.attach(bundle.model)
    attention = AttentionSupervision(bundle.model) if dataset.has_targets else None
    if attention is not None:
        attention.attach(bundle.model)
    trainer = AuxiliaryLossTrainer(
        grounding=grounding, attention=attention, model=bundle.model,
        args=_arguments(config, TRAINING_FOLDER, config.steps), data_collator=collator, train_dataset=dataset,
        eval_dataset=held_out, compute_metrics=_compute_metrics, preprocess_logits_for_metrics=_greedy_tokens)
    _train(trainer)
    for auxiliary in (grounding, attention):
        if auxiliary is not None:
            auxiliary.detach(bundle.model)
    if trainer.is_world_process_zero():
        _save(bundle, config.out)
    return {} if held_out is None else _evaluate(trainer, config.out)


def _evaluate(trainer: Trainer, out: Path) -> Mapping[str, float]:
    results = {name: round(float(value), 6) for name, value in trainer.evaluate().items() if name in _REPORTED}
    if trainer.is_world_process_zero():
        (out / REPORT_FILE).write_text(json.dumps(results, indent=2) + '\n')
    log.info('Evaluation: %s', ', '.join(f'{name.removeprefix("eval_")} {value:g}' for name, value in results.items()))
    return results


def _check_folder(config: VlmFinetuneConfig, dataset: ConversationDataset) -> None:
    """Check that the folder was begun with the same data and hyperparameters, so that it may be resumed."""
    record = config.out / 'training' / CONFIG_FILE
    record.parent.mkdir(parents=True, exist_ok=True)
    processes = int(os.environ.get('WORLD_SIZE', '1'))
    try:
        check_config_unchanged(record, {
            'vlm': RECORDED_FROM_SCRATCH if config.from_scratch else config.vlm, 'seed': config.seed, 'lr': config.lr,
            'conversations': dataset.digest, 'conversations_per_step': config.batch_size * processes})
    except ConfigChangedError as error:
        raise VlmFinetuneError(str(error)) from error


def _load(config: VlmFinetuneConfig, dataset: ConversationDataset) -> VlmBundle:
    if config.from_scratch:
        count = min(len(dataset), _TOKENIZER_SAMPLES)
        chosen = random.Random(config.seed).sample(range(len(dataset)), count)
        tokenizer = train_tokenizer(dataset[index].messages for index in sorted(chosen))
        return VlmBundle(model=build_vlm_from_scratch(tokenizer, config.seed), tokenizer=tokenizer, image=ImageSpec())
    try:
        # bfloat16 training of transformers needs float32 weights, whatever the saved data type is.
        model = Qwen3VLForConditionalGeneration.from_pretrained(config.vlm, dtype=torch.float32)
        return VlmBundle(model=model, tokenizer=AutoTokenizer.from_pretrained(config.vlm), image=image_spec(config.vlm))
    except (OSError, ValueError) as error:
        raise VlmFinetuneError(f'cannot load the vision-language model {config.vlm!r}: {error}') from error


def train_tokenizer(conversations: Iterable[Sequence[Mapping[str, Any]]]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on chat messages, with Qwen's special tokens and chat format."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(_WORDS, 'isolated'), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(_texts_of(conversations), trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    return as_qwen_tokenizer(core)


def _texts_of(conversations: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the texts and the names of the roles, which the chat format puts before every text."""
    for messages in conversations:
        for message in messages:
            yield message['role']
            yield from (part['text'] for part in message['content'] if part['type'] == 'text')


def build_vlm_from_scratch(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3VLForConditionalGeneration:
    """Build a small Qwen3-VL with random weights; its vision encoder is 1.5 times as wide as that of the tests' VLM."""
    config = tiny_config(tokenizer)
    config.text_config.initializer_range = config.vision_config.initializer_range = _INITIALIZER_RANGE
    config.vision_config.hidden_size, config.vision_config.intermediate_size = 96, 192
    config.vision_config.num_heads = 3
    return tiny_model(config, seed)


def _train(trainer: Trainer) -> None:
    """Train, starting from the last checkpoint where there is one."""
    folder = Path(str(trainer.args.output_dir))
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)


def _arguments(config: VlmFinetuneConfig, folder: str, steps: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(config.out / 'training' / folder), max_steps=steps,
        per_device_train_batch_size=config.batch_size, per_device_eval_batch_size=config.batch_size,
        learning_rate=config.lr, lr_scheduler_type='cosine', warmup_steps=max(1, steps // 20), weight_decay=0.01,
        max_grad_norm=1.0, seed=config.seed, save_steps=config.save_every, save_total_limit=2, logging_steps=25,
        dataloader_num_workers=config.workers, use_cpu=not torch.cuda.is_available(), bf16=config.half,
        remove_unused_columns=False, report_to='tensorboard', disable_tqdm=True, label_names=['labels'],
        # The warm-up runs only the part of the encoder that the grounding head needs.
        ddp_find_unused_parameters=folder == WARMUP_FOLDER)


def _save(bundle: VlmBundle, out: Path) -> None:
    """Write the model in the layout of the Hugging Face hub; existing files are replaced."""
    bundle.model.save_pretrained(out)
    bundle.tokenizer.save_pretrained(out)
    image = bundle.image
    fields = {'image_processor_type': 'Qwen2VLImageProcessorFast', 'image_mean': image.mean, 'image_std': image.std,
              'patch_size': image.patch, 'temporal_patch_size': image.frames, 'merge_size': image.merge}
    (out / 'preprocessor_config.json').write_text(json.dumps(fields, indent=2) + '\n')


def _greedy_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the most likely next tokens (B, L)."""
    return logits.argmax(-1)


def _compute_metrics(prediction: EvalPrediction) -> dict[str, Any]:
    predicted: NDArray[np.int64] = prediction.predictions[:, :-1]
    labels: NDArray[np.int64] = prediction.label_ids[:, 1:]
    is_answer = labels != IGNORE_INDEX
    return {'answer_tokens_right': float((predicted == labels)[is_answer].mean())}
