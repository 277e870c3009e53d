"""JSON file beside a run that tells where each weight of a VLA came from when it was initialized from a prior."""

import json
from pathlib import Path

from apt_policy.model.stages import TransferReport

TRANSFER_REPORT_FILE = 'transfer.json'


def write_transfer_report(folder: Path, report: TransferReport) -> None:
    """Write the origin of every weight as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({'copied': dict(report.copied), 'new': list(report.new)}, indent=2)
    (folder / TRANSFER_REPORT_FILE).write_text(text + '\n')


def read_transfer_report(folder: Path) -> TransferReport | None:
    """Read what :func:`write_transfer_report` wrote; None if the run was not initialized from a prior."""
    path = folder / TRANSFER_REPORT_FILE
    if not path.exists():
        return None
    fields = json.loads(path.read_text())
    return TransferReport(copied=fields['copied'], new=tuple(fields['new']))


def describe_transfer(report: TransferReport) -> str:
    """Return a summary in one line."""
    blocks = sorted({key.split('.')[3] for key in report.new if '.layers.' in key}, key=int)
    others = [key for key in report.new if '.layers.' not in key]
    new = f'new: blocks {", ".join(blocks)}' + (f' and {len(others)} other weights' if others else '')
    return f'transfer: {len(report.copied)} weights copied from the prior, {len(report.new)} {new}'
