"""Which instructions are taken.

It knows nothing of tokenizers: a prompt is one line of text that a person could have typed.
"""

import unicodedata

from apt_policy.core.errors import UserError

MAX_PROMPT_BYTES = 2048


class PromptError(UserError, ValueError):
    """An instruction that is refused; the message says why and what to do."""


def clean_prompt(text: str) -> str:
    """The instruction as the model gets it: white space runs become one space.

    Raises:
        PromptError: empty, longer than :data:`MAX_PROMPT_BYTES` as UTF-8, or with characters
            that are not text.
    """
    size = len(text.encode('utf-8', 'surrogatepass'))
    if size > MAX_PROMPT_BYTES:
        raise PromptError(f'the prompt has {size} bytes; the limit is {MAX_PROMPT_BYTES}: say it shorter')
    line = ' '.join(text.split())
    for index, character in enumerate(line):
        if unicodedata.category(character) in ('Cc', 'Cs'):
            raise PromptError(f'the prompt holds U+{ord(character):04X} at character {index}, which is not '
                              'text; send plain UTF-8 without control characters')
    if not line:
        raise PromptError('the prompt is empty; say what the robot is to do')
    return line
