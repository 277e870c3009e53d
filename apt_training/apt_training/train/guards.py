"""What may go wrong while a run runs: batches without a finite loss.

Decides when it is enough; what is saved then is the trainer's.
"""

from collections.abc import Sequence

from apt_policy.core.errors import UserError


class BadDataError(UserError, RuntimeError):
    """Too many batches in a row without a finite loss; the message names their samples."""


class BadBatches:
    """Counts batches whose loss is not finite on some process; all processes leave them out together."""

    def __init__(self, most: int) -> None:
        self.total = 0
        self._most = most
        self._row: list[tuple[str, ...]] = []

    def good(self) -> None:
        """The row is broken."""
        self._row.clear()

    def bad(self, sources: Sequence[str]) -> None:
        """One more; ``sources`` are this process's samples, empty if its own loss was finite.

        Raises:
            BadDataError: that was one too many.
        """
        self.total += 1
        self._row.append(tuple(sources))
        if len(self._row) < self._most:
            return
        names = sorted({name for row in self._row for name in row})
        shown = '\n  '.join(names[:20]) or 'none of this process'
        more = f'\n  and {len(names) - 20} more' if len(names) > 20 else ''
        raise BadDataError(f'{len(self._row)} batches in a row had no finite loss; samples:\n  {shown}{more}\n'
                           'Look at them with apt-inspect. If they are sound, the weights are not: start again '
                           'from an earlier checkpoint, with a lower --lr')
