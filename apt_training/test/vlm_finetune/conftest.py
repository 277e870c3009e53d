"""Sheets of conversations about noise, small enough to be learned by heart in seconds."""

import json

import cv2
import numpy as np
import pytest
import torch

NAMES = ('red cube', 'blue cup', 'green bar')


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """The models are tiny: on a shared machine, threads that wait for each other cost 20 times the work."""
    torch.set_num_threads(1)


def say(role, *parts):
    return {'role': role, 'content': [{'type': 'image'} if part is None else {'type': 'text', 'text': part}
                                      for part in parts]}


def line_of(row, *, pictures=2, marks=True, places=True, meant=True, **changes):
    """Fields of one line of a shard."""
    name, x, y = NAMES[row % 3], f'x{3 * row + 1}', f'y{2 * row}'
    line = {'images': [f'{row:03d}_{k}.png' for k in range(pictures)],
            'messages': [say('user', *[None] * pictures, f'where is the {name}?'), say('assistant', f'{x} {y}'),
                         say('user', f'what is at {x} {y}?'), say('assistant', name)]}
    if marks:
        line['marks'] = [{name: [[(row % 4) / 4, 0.1 * k]]} for k in range(pictures)]
        if places:
            line['places'] = [{name: [0.1 * row, 0.2, 0.3 + 0.1 * k]} for k in range(pictures)]
            if meant:
                line['meant'] = [name, None]
    return {**line, **changes}


@pytest.fixture(scope='session')
def line():
    return line_of


@pytest.fixture(scope='session')
def message():
    return say


@pytest.fixture(scope='session')
def write_sheet():
    """A folder of conversations, each about pictures of its own."""
    def write(folder, count=6, *, side=64, lines=None, **more):
        random = np.random.default_rng(count)
        folder.mkdir(parents=True)
        lines = [line_of(row, **more) for row in range(count)] if lines is None else lines
        for name in (name for one in lines for name in one['images']):
            cv2.imwrite(str(folder / name), random.integers(0, 256, (side, side, 3), np.uint8))
        (folder / 'conversations.jsonl').write_text(''.join(json.dumps(one) + '\n' for one in lines))
        return folder
    return write
