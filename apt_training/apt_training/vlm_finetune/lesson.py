"""Conversations as a model is taught with them: tokens, which of them are answers, and patches of pictures.

Letters: B batch, L tokens, P patches, V tokens of all pictures, N words of names, Q questions that mean a thing.
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
ASKED, SHOWN, MEANT_AT = 'asked', 'shown', 'meant_at'
NO_ANSWER = -100
"""Label of a token that nobody has to predict, as in transformers."""


class Lesson:
    """Collates conversations for a ``Qwen3VLForConditionalGeneration``."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image: ImageSpec, words: Sequence[str] = ()) -> None:
        """``words``: of the names of what is marked in pictures; for none of them, marks are left out."""
        self._tokenizer, self._image = tokenizer, image
        self._words = {word: index for index, word in enumerate(words)}
        self._image_token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)

    def __call__(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """The model's arguments, and what second tasks take beside them.

        Arguments: (B, L) ids, mask and labels, and pictures as of :meth:`look`, with its marks and places. Where it is
        said what questions mean: ``asked`` (Q, 2) row and column of the token behind which the answer comes, ``shown``
        (Q, L) which tokens of that row show what is meant, ``meant_at`` (Q, 3) its middle in the frame of the first
        picture's camera [m], NaN where that does not show it.

        Raises:
            ConversationError: a picture cannot be read, or does not fit the model.
        """
        seen, side = self._look(conversations)
        rows = [self._tokens(conversation, side) for conversation in conversations]
        length = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), length), int(self._tokenizer.pad_token_id or 0))
        labels = torch.full((len(rows), length), NO_ANSWER)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for row, (tokens, answers) in enumerate(rows):
            ids[row, :len(tokens)], labels[row, :len(tokens)] = tokens, answers
            mask[row, :len(tokens)] = 1
        return {**seen, **self._meant(conversations, ids, labels, side), 'input_ids': ids, 'attention_mask': mask,
                'labels': labels, 'mm_token_type_ids': (ids == self._image_token).int()}

    def look(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """The pictures alone: (P, ...) patches and their grids; and (V, N) marks, (V, 3) places where there are some.

        Raises:
            ConversationError: a picture cannot be read, or does not fit the model.
        """
        return self._look(conversations)[0]

    def _look(self, conversations: Sequence[Conversation]) -> tuple[dict[str, Tensor], int]:
        """And the side of the pictures [px]."""
        shown = [conversation.pictures() for conversation in conversations]
        sides = {pictures.shape[1] for pictures in shown}
        if len(sides) > 1:
            raise ConversationError(f'pictures of {sorted(sides)} px side by side; expected one size')
        side = sides.pop()
        try:
            self._image.tokens(side)
        except ValueError as error:
            raise ConversationError(f'{conversations[0].images[0]}: {error}') from error
        pixels, grid = patches(torch.from_numpy(np.concatenate(shown)).permute(0, 3, 1, 2).float() / 255, self._image)
        return {**self._found(conversations, side), 'pixel_values': pixels, 'image_grid_thw': grid}, side

    def _found(self, conversations: Sequence[Conversation], side: int) -> dict[str, Tensor]:
        """What is to be found in each token of the pictures.

        Marks (V, N) bool: each word that names something which the token shows a part of. Places (V, 3): the middle of
        what it shows most of; NaN where it shows nothing.
        """
        if not self._words:
            return {}
        row = side // self._image.token_side
        pictures = [marks for conversation in conversations for marks in conversation.marks]
        placed = [places for conversation in conversations for places in conversation.places]
        marks = torch.zeros(len(pictures), row, row, len(self._words), dtype=torch.bool)
        places = torch.full((len(pictures), row, row, 3), torch.nan)
        for index, things in enumerate(pictures):
            most: dict[tuple[int, int], int] = {}
            for name, points in things.items():
                # An examination may show what no lesson has named.
                known = [self._words[word] for word in name.split() if word in self._words]
                for token, count in Counter(_token(point, row) for point in points).items():
                    marks[index][token][known] = True
                    if placed and name in placed[index] and count > most.get(token, 0):
                        most[token] = count
                        places[index][token] = torch.tensor(placed[index][name])
        found = {MARKS: marks.flatten(0, 2)}
        return {**found, PLACES: places.flatten(0, 2)} if placed else found

    def _meant(self, conversations: Sequence[Conversation], ids: Tensor, labels: Tensor,
               side: int) -> dict[str, Tensor]:
        """Of (B, L) ids and labels, what the questions mean."""
        if not all(conversation.meant for conversation in conversations):
            return {}
        questions = [(row, start, name) for row, conversation in enumerate(conversations)
                     for start, name in zip(_beginnings(labels[row]), conversation.meant, strict=True)
                     if name is not None]
        shown = torch.zeros(len(questions), ids.shape[1], dtype=torch.bool)
        meant_at = torch.full((len(questions), 3), torch.nan)
        for index, (row, _, name) in enumerate(questions):
            conversation = conversations[row]
            shown[index, ids[row] == self._image_token] = self._showing(conversation, name, side)
            if name in conversation.places[0]:
                meant_at[index] = torch.tensor(conversation.places[0][name])
        asked = torch.tensor([(row, start - 1) for row, start, _ in questions], dtype=torch.long).reshape(-1, 2)
        return {ASKED: asked, SHOWN: shown, MEANT_AT: meant_at}

    def _showing(self, conversation: Conversation, name: str, side: int) -> Tensor:
        """Which vision tokens of a conversation show a part of a thing."""
        row = side // self._image.token_side
        shows = torch.zeros(len(conversation.marks), row, row, dtype=torch.bool)
        for picture, marks in zip(shows, conversation.marks, strict=True):
            for point in marks.get(name, ()):
                picture[_token(point, row)] = True
        return shows.flatten()

    def _tokens(self, conversation: Conversation, side: int) -> tuple[Tensor, Tensor]:
        """(L,) ids, and (L,) the same where an answer is, :data:`NO_ANSWER` elsewhere."""
        per_image = self._image.tokens(side)
        messages = list(conversation.messages)
        answers = [(len(self._text(messages[:turn], per_image, asks=True)),
                    len(self._text(messages[:turn + 1], per_image, asks=False))) for turn in range(1, len(messages), 2)]
        encoded = self._tokenizer(self._text(messages, per_image, asks=False), add_special_tokens=False,
                                  return_offsets_mapping=True, return_tensors='pt')
        ids, start = encoded['input_ids'][0], encoded['offset_mapping'][0, :, 0]
        is_answer = torch.zeros(len(ids), dtype=torch.bool)
        for begin, end in answers:
            is_answer |= (start >= begin) & (start < end)
        return ids, torch.where(is_answer, ids, NO_ANSWER)

    def _text(self, messages: Sequence[dict[str, object]], per_image: int, *, asks: bool) -> str:
        text = str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks))
        return text.replace(IMAGE_TOKEN, IMAGE_TOKEN * per_image)


def _beginnings(labels: Tensor) -> list[int]:
    """Of (L,) labels, where answers begin."""
    answers = (labels != NO_ANSWER).int()
    return [1 + before for before in answers.diff().eq(1).nonzero().flatten().tolist()]


def _token(point: Sequence[float], row: int) -> tuple[int, int]:
    """Row and column of the token that shows a point of a picture."""
    across, down = point
    # A share may have been rounded up to 1.
    return min(int(down * row), row - 1), min(int(across * row), row - 1)
