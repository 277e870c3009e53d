"""Conversations about pictures, on disk: lines ``{"images": [...], "messages": [...]}`` as chat templates take them.

Beside them may stand ``"marks"``: for each image ``{name: [[across, down], ...]}``; ``"places"`` of what is marked:
``{name: [x, y, z]}``; and ``"meant"``: for each question the name of the thing that it is about, or null.

A folder's conversations are those of its ``conversations.jsonl`` and of those one level below; pictures are named
relative to the file that names them. Tokens are not known here.
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
    """Conversations that cannot be used; the message names file and line."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One conversation; its pictures are read when they are needed."""

    images: tuple[Path, ...]
    messages: tuple[dict[str, Any], ...]
    """``role`` user or assistant, ``content`` a list of parts of type image or text."""
    marks: tuple[Mapping[str, Sequence[tuple[float, float]]], ...] = ()
    """Of each picture, points of things by name: across and down as shares of its side. Empty where nobody marked."""
    places: tuple[Mapping[str, Sequence[float]], ...] = ()
    """Of each picture, middles of marked things by name, in the camera's optical frame [m]."""
    meant: tuple[str | None, ...] = ()
    """Of each question, the marked thing that it is about. Empty where nobody said."""

    def pictures(self) -> NDArray[np.uint8]:
        """(C, S, S, 3), red first.

        Raises:
            ConversationError: one is missing, corrupt, or of another size than the first.
        """
        read = [_read(path) for path in self.images]
        if len({picture.shape for picture in read}) > 1 or read[0].shape[0] != read[0].shape[1]:
            raise ConversationError(f'{self.images[0].parent}: pictures of {sorted({p.shape for p in read})}; expected '
                                    'squares of one size in a conversation')
        return np.stack(read)


class Conversations(Dataset[Conversation]):
    """All conversations of some folders, in the order of their names."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """
        Raises:
            ConversationError: there are none, or one is malformed.
        """
        # A hidden folder is one that is being written.
        files = [file for folder in folders
                 for file in (*folder.glob(CONVERSATIONS), *sorted(folder.glob(f'[!.]*/{CONVERSATIONS}')))]
        self._all = [conversation for file in files for conversation in _parse(file)]
        self.digest = hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()
        """Of all that is said in them and about them; of pictures, the names."""
        if not self._all:
            raise ConversationError(f'there is no {CONVERSATIONS} in {", ".join(map(str, folders))}; '
                                    'apt-sim-vqa writes some')
        for what in ('marks', 'places', 'meant'):
            if len({bool(getattr(conversation, what)) for conversation in self._all}) > 1:
                raise ConversationError(f'of the conversations in {", ".join(map(str, folders))} only some have '
                                        f'{what}; give them to all, or to none')

    @property
    def words(self) -> tuple[str, ...]:
        """Of the names of all that is marked in pictures, sorted."""
        return tuple(sorted({word for one in self._all for picture in one.marks for name in picture
                             for word in name.split()}))

    @property
    def meant(self) -> bool:
        """Whether it is said which things questions are about."""
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
            raise ConversationError(f'{file}, line {number}: {type(error).__name__}: {error}; expected '
                                    '{"images": [names], "messages": [{"role", "content": [parts]}]}') from error
        conversations.append(conversation)
    return conversations


def _check(conversation: Conversation) -> None:
    roles = [message['role'] for message in conversation.messages]
    if not roles or roles != ['user', 'assistant'] * (len(roles) // 2):
        raise ConversationError(f'roles are {roles}; expected user and assistant in turn')
    shown = sum(part['type'] == 'image' for message in conversation.messages for part in message['content'])
    if conversation.marks and len(conversation.marks) != len(conversation.images):
        raise ConversationError(f'{len(conversation.images)} images are named, {len(conversation.marks)} are marked')
    if not conversation.images or shown != len(conversation.images):
        raise ConversationError(f'{len(conversation.images)} images are named, {shown} are shown; '
                                'expected the same number, and at least one')
    if conversation.places and len(conversation.places) != len(conversation.marks):
        raise ConversationError(f'{len(conversation.marks)} images are marked, {len(conversation.places)} have places; '
                                'expected the same number')
    for places in conversation.places:
        for name, place in places.items():
            if len(place) != 3 or not np.isfinite(place).all():
                raise ConversationError(f'{name!r} is at {place}; expected three finite numbers [m]')
    if conversation.meant and (len(conversation.meant) != len(roles) // 2 or not conversation.places):
        raise ConversationError(f'{len(roles) // 2} questions are asked, of {len(conversation.meant)} it is said what '
                                f'they mean, and {len(conversation.places)} pictures have places; expected it of each '
                                'question, beside places')


def _read(path: Path) -> NDArray[np.uint8]:
    bgr = cv2.imread(str(path))
    if bgr is None:
        raise ConversationError(f'{path} is missing or no picture')
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
