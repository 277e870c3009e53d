"""Validation of instructions: one line of text of limited length."""

import unicodedata

from apt_policy.core.errors import UserError

MAX_PROMPT_BYTES = 2048
"""Longest instruction as UTF-8 [bytes]."""


class PromptError(UserError, ValueError):
    """Error of an instruction that is refused; the message gives the reason and the fix."""


def clean_prompt(text: str) -> str:
    """Check an instruction and replace each run of white space by one space.

    Raises:
        PromptError: the instruction is empty, longer than :data:`MAX_PROMPT_BYTES`, or contains control characters.
    """
    size = len(text.encode('utf-8', 'surrogatepass'))
    if size > MAX_PROMPT_BYTES:
        raise PromptError(f'the prompt has {size} bytes; the limit is {MAX_PROMPT_BYTES}. Shorten it')
    line = ' '.join(text.split())
    for index, character in enumerate(line):
        if unicodedata.category(character) in ('Cc', 'Cs'):
            raise PromptError(f'the prompt contains the character U+{ord(character):04X} at index {index}, '
                              'which is not text; send plain UTF-8 text without control characters')
    if not line:
        raise PromptError('the prompt is empty; give an instruction such as "pick up the red cube"')
    return line
