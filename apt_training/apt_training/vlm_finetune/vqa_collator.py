"""Collation of conversations for a Qwen3-VL: token ids, labels of the answers, image patches and grounding labels.

Letters: B batch, L tokens, P patches, V tokens of all images, N words of names, Q questions about an object.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from apt_policy.model.vlm.pixels import ImageSpec, patches
from apt_policy.model.vlm.prompt import IMAGE_TOKEN
from apt_training.vlm_finetune.conversations import Conversation, ConversationError

MARKS, PLACES = 'marks', 'places'
"""Labels of the grounding head in a batch."""
QUESTION_TOKENS, TARGET_TOKENS, TARGET_POSITIONS = 'question_tokens', 'target_tokens', 'target_positions'
"""Labels of the attention supervision in a batch."""
IGNORE_INDEX = -100
"""Label of a token without a loss, as in transformers."""


class VqaCollator:
    """Collator of conversations for a ``Qwen3VLForConditionalGeneration``."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image: ImageSpec, words: Sequence[str] = ()) -> None:
        """Create the collator.

        Args:
            tokenizer: tokenizer with a chat template.
            image: image format of the model.
            words: words of the names of marked objects; empty: omit the grounding labels.
        """
        self._tokenizer, self._image = tokenizer, image
        self._words = {word: index for index, word in enumerate(words)}
        self._image_token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)

    def __call__(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """Return the model's inputs and the labels of the auxiliary tasks.

        Returns:
            (B, L) ids, attention mask and labels; images as from :meth:`collate_images`; and if the conversations name
            the objects of their questions: :data:`QUESTION_TOKENS` (Q, 2) row and column of the token before each
            answer, :data:`TARGET_TOKENS` (Q, L) tokens of that row that show the object, :data:`TARGET_POSITIONS`
            (Q, 3) its centre in the first camera's frame [m], NaN where that camera does not show it.

        Raises:
            ConversationError: an image cannot be read, or does not fit the model.
        """
        images, side = self._collate_images(conversations)
        rows = [self._tokens(conversation, side) for conversation in conversations]
        length = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), length), int(self._tokenizer.pad_token_id or 0))
        labels = torch.full((len(rows), length), IGNORE_INDEX)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for row, (tokens, answers) in enumerate(rows):
            ids[row, :len(tokens)], labels[row, :len(tokens)] = tokens, answers
            mask[row, :len(tokens)] = 1
        targets = self._question_targets(conversations, ids, labels, side)
        return {**images, **targets, 'input_ids': ids, 'attention_mask': mask, 'labels': labels,
                'mm_token_type_ids': (ids == self._image_token).int()}

    def collate_images(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """Return only the images: (P, ...) patches and their grids, and (V, N) marks and (V, 3) places where given.

        Raises:
            ConversationError: an image cannot be read, or does not fit the model.
        """
        return self._collate_images(conversations)[0]

    def _collate_images(self, conversations: Sequence[Conversation]) -> tuple[dict[str, Tensor], int]:
        """Return the images and their side [px]."""
        loaded = [conversation.load_images() for conversation in conversations]
        sides = {images.shape[1] for images in loaded}
        if len(sides) > 1:
            raise ConversationError(f'images of {sorted(sides)} px in one batch; expected one size')
        side = sides.pop()
        try:
            self._image.tokens(side)
        except ValueError as error:
            raise ConversationError(f'{conversations[0].images[0]}: {error}') from error
        pixels, grid = patches(torch.from_numpy(np.concatenate(loaded)).permute(0, 3, 1, 2).float() / 255, self._image)
        return {**self._token_labels(conversations, side), 'pixel_values': pixels, 'image_grid_thw': grid}, side

    def _token_labels(self, conversations: Sequence[Conversation], side: int) -> dict[str, Tensor]:
        """Return the labels of the grounding head for each vision token.

        Returns:
            Marks (V, N) bool, words that name an object of which the token shows a part; places (V, 3), centre of the
            object that the token shows most of [m], NaN where it shows none.
        """
        if not self._words:
            return {}
        row = side // self._image.token_side
        images = [marks for conversation in conversations for marks in conversation.marks]
        placed = [places for conversation in conversations for places in conversation.places]
        marks = torch.zeros(len(images), row, row, len(self._words), dtype=torch.bool)
        places = torch.full((len(images), row, row, 3), torch.nan)
        for index, objects in enumerate(images):
            most: dict[tuple[int, int], int] = {}
            for name, points in objects.items():
                # Held-out conversations may name objects that the training data does not.
                known = [self._words[word] for word in name.split() if word in self._words]
                for token, count in Counter(_token(point, row) for point in points).items():
                    marks[index][token][known] = True
                    if placed and name in placed[index] and count > most.get(token, 0):
                        most[token] = count
                        places[index][token] = torch.tensor(placed[index][name])
        labels = {MARKS: marks.flatten(0, 2)}
        return {**labels, PLACES: places.flatten(0, 2)} if placed else labels

    def _question_targets(self, conversations: Sequence[Conversation], ids: Tensor, labels: Tensor,
                          side: int) -> dict[str, Tensor]:
        """Return the labels of the attention supervision, from (B, L) ids and labels."""
        if not all(conversation.meant for conversation in conversations):
            return {}
        questions = [(row, start, name) for row, conversation in enumerate(conversations)
                     for start, name in zip(_answer_starts(labels[row]), conversation.meant, strict=True)
                     if name is not None]
        shown = torch.zeros(len(questions), ids.shape[1], dtype=torch.bool)
        positions = torch.full((len(questions), 3), torch.nan)
        for index, (row, _, name) in enumerate(questions):
            conversation = conversations[row]
            shown[index, ids[row] == self._image_token] = self._tokens_showing(conversation, name, side)
            if name in conversation.places[0]:
                positions[index] = torch.tensor(conversation.places[0][name])
        tokens = torch.tensor([(row, start - 1) for row, start, _ in questions], dtype=torch.long).reshape(-1, 2)
        return {QUESTION_TOKENS: tokens, TARGET_TOKENS: shown, TARGET_POSITIONS: positions}

    def _tokens_showing(self, conversation: Conversation, name: str, side: int) -> Tensor:
        """Return which vision tokens of a conversation show a part of an object."""
        row = side // self._image.token_side
        shows = torch.zeros(len(conversation.marks), row, row, dtype=torch.bool)
        for image, marks in zip(shows, conversation.marks, strict=True):
            for point in marks.get(name, ()):
                image[_token(point, row)] = True
        return shows.flatten()

    def _tokens(self, conversation: Conversation, side: int) -> tuple[Tensor, Tensor]:
        """Return (L,) ids, and (L,) labels that are :data:`IGNORE_INDEX` outside answers."""
        per_image = self._image.tokens(side)
        messages = list(conversation.messages)
        answers = [(len(self._text(messages[:turn], per_image, add_prompt=True)),
                    len(self._text(messages[:turn + 1], per_image, add_prompt=False)))
                   for turn in range(1, len(messages), 2)]
        encoded = self._tokenizer(self._text(messages, per_image, add_prompt=False), add_special_tokens=False,
                                  return_offsets_mapping=True, return_tensors='pt')
        ids, start = encoded['input_ids'][0], encoded['offset_mapping'][0, :, 0]
        is_answer = torch.zeros(len(ids), dtype=torch.bool)
        for begin, end in answers:
            is_answer |= (start >= begin) & (start < end)
        return ids, torch.where(is_answer, ids, IGNORE_INDEX)

    def _text(self, messages: Sequence[dict[str, object]], per_image: int, *, add_prompt: bool) -> str:
        text = str(self._tokenizer.apply_chat_template(list(messages), tokenize=False,
                                                       add_generation_prompt=add_prompt))
        return text.replace(IMAGE_TOKEN, IMAGE_TOKEN * per_image)


def _answer_starts(labels: Tensor) -> list[int]:
    """Return the positions in (L,) labels where answers begin."""
    answers = (labels != IGNORE_INDEX).int()
    return [1 + before for before in answers.diff().eq(1).nonzero().flatten().tolist()]


def _token(point: Sequence[float], row: int) -> tuple[int, int]:
    """Return row and column of the token that shows a point of an image."""
    across, down = point
    # A coordinate may have been rounded up to 1.
    return min(int(down * row), row - 1), min(int(across * row), row - 1)
