"""What went wrong, on a console: whole lines, because a path that is broken in two cannot be copied."""

from rich.console import Console
from rich.text import Text


def complain(console: Console, text: str) -> None:
    """Print ``text`` as it is, in red."""
    console.print(Text(text, style='red'), soft_wrap=True)
