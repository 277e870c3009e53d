"""Conversations about images on disk: lines ``{"images": [...], "messages": [...]}`` in the form of chat templates.

Optional fields are ``"marks"``, for each image ``{name: [[across, down], ...]}``; ``"places"`` of the marked objects,
``{name: [x, y, z]}``; and ``"meant"``, for each question the name of its object, or null.

A folder's conversations are in its ``conversations.jsonl`` and in those one level below; names of images are relative
to the file that contains them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from apt_policy.core.errors import UserError

CONVERSATIONS = 'conversations.jsonl'


class ConversationError(UserError, ValueError):
    """Malformed conversation; the message names file and line."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One conversation; its images are read on demand."""

    images: tuple[Path, ...]
    """Image files."""
    messages: tuple[dict[str, Any], ...]
    """Messages with ``role`` user or assistant and ``content``, a list of parts of type image or text."""
    marks: tuple[Mapping[str, Sequence[tuple[float, float]]], ...] = ()
    """Points on objects by name, per image: across and down in shares of its side; empty without marks."""
    places: tuple[Mapping[str, Sequence[float]], ...] = ()
    """Centres of marked objects by name, per image, in the camera's optical frame [m]."""
    meant: tuple[str | None, ...] = ()
    """Marked object of each question, or None; empty if the file does not name them."""

    def load_images(self) -> NDArray[np.uint8]:
        """Read the images.

        Returns:
            (C, S, S, 3) uint8 RGB.

        Raises:
            ConversationError: an image is missing, corrupt, or of another size than the first.
        """
        images = [_read_image(path) for path in self.images]
        if len({image.shape for image in images}) > 1 or images[0].shape[0] != images[0].shape[1]:
            raise ConversationError(f'{self.images[0].parent}: images of {sorted({i.shape for i in images})}; expected '
                                    'squares of one size in a conversation')
        return np.stack(images)


class ConversationDataset(Dataset[Conversation]):
    """Conversations of several folders, in the order of their names."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Read the conversations of ``folders``.

        Raises:
            ConversationError: there are none, or one is malformed.
        """
        # Hidden folders are still being written.
        files = [file for folder in folders
                 for file in (*folder.glob(CONVERSATIONS), *sorted(folder.glob(f'[!.]*/{CONVERSATIONS}')))]
        self._all = [conversation for file in files for conversation in _parse(file)]
        self.digest = hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()
        """Digest of all conversation files, which contain the names of the images."""
        if not self._all:
            raise ConversationError(f'there is no {CONVERSATIONS} in {", ".join(map(str, folders))}; '
                                    'apt-sim-vqa writes such folders')
        for field in ('marks', 'places', 'meant'):
            if len({bool(getattr(conversation, field)) for conversation in self._all}) > 1:
                raise ConversationError(f'only some conversations in {", ".join(map(str, folders))} have '
                                        f'{field}; expected all or none')

    @property
    def words(self) -> tuple[str, ...]:
        """Words of the names of all marked objects, sorted."""
        return tuple(sorted({word for one in self._all for picture in one.marks for name in picture
                             for word in name.split()}))

    @property
    def has_targets(self) -> bool:
        """True if the conversations name the objects of their questions."""
        return bool(self._all[0].meant)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> Conversation:
        return self._all[index]


def _parse(file: Path) -> list[Conversation]:
    conversations = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            fields = json.loads(line)
            conversation = Conversation(images=tuple(file.parent / name for name in fields['images']),
                                        messages=tuple(fields['messages']), marks=tuple(fields.get('marks', ())),
                                        places=tuple(fields.get('places', ())), meant=tuple(fields.get('meant', ())))
            _check(conversation)
        except (json.JSONDecodeError, KeyError, TypeError, ConversationError) as error:
            raise ConversationError(f'{file}, line {number}: {_describe(error)}; expected '
                                    '{"images": [names], "messages": [{"role", "content": [parts]}]}') from error
        conversations.append(conversation)
    return conversations


def _describe(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f'not JSON ({error})'
    if isinstance(error, KeyError):
        return f'field {error} is missing'
    return f'a field has the wrong type ({error})' if isinstance(error, TypeError) else str(error)


def _check(conversation: Conversation) -> None:
    roles = [message['role'] for message in conversation.messages]
    if not roles or roles != ['user', 'assistant'] * (len(roles) // 2):
        raise ConversationError(f'roles are {roles}; expected user and assistant alternately')
    shown = sum(part['type'] == 'image' for message in conversation.messages for part in message['content'])
    if conversation.marks and len(conversation.marks) != len(conversation.images):
        raise ConversationError(f'{len(conversation.images)} images are listed, {len(conversation.marks)} have marks; '
                                'expected the same number')
    if not conversation.images or shown != len(conversation.images):
        raise ConversationError(f'{len(conversation.images)} images are listed, the messages contain {shown}; '
                                'expected the same number, and at least one')
    if conversation.places and len(conversation.places) != len(conversation.marks):
        raise ConversationError(f'{len(conversation.marks)} images have marks, {len(conversation.places)} have places; '
                                'expected the same number')
    for places in conversation.places:
        for name, place in places.items():
            if len(place) != 3 or not np.isfinite(place).all():
                raise ConversationError(f'{name!r} is at {place}; expected three finite numbers [m]')
    if conversation.meant and (len(conversation.meant) != len(roles) // 2 or not conversation.places):
        raise ConversationError(f'there are {len(roles) // 2} questions, {len(conversation.meant)} entries of meant '
                                f'and {len(conversation.places)} of places; expected one of meant for each '
                                'question, and places')


def _read_image(path: Path) -> NDArray[np.uint8]:
    bgr = cv2.imread(str(path))
    if bgr is None:
        raise ConversationError(f'{path} is missing or not an image')
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
