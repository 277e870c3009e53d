#!/usr/bin/env python3
"""Write docs/parameters.md, and the generated tables of README.md, from what the code declares.

``--check`` only compares, for the test that keeps both in step.
"""

import argparse
import re
import sys
from pathlib import Path

from apt_bringup.arguments import describe
from apt_control.ik_bridge import BridgeParams
from apt_policy.ros.params import markdown_table
from apt_policy.ros.policy_params import PolicyParams
from apt_sim.tasks.demonstrator_node import DemonstratorParams
from apt_sim.world.simulator import SimulatorParams

ROOT = Path(__file__).resolve().parents[1]
PAGE, README = ROOT / 'docs' / 'parameters.md', ROOT / 'README.md'
NODES = {'apt_policy': PolicyParams, 'ik_bridge': BridgeParams, 'aloha_sim': SimulatorParams,
         'demonstrator': DemonstratorParams}
HEAD = """# Parameters

Written by `scripts/document_parameters.py` from the dataclasses that declare them. Facts about the robot
(topics, frames, rates, limits) are not parameters: they stand in the contract.

A value out of range, a mistyped name or a wrong type ends the start of a node, naming each of them; while it
runs, a refused change is answered with the reason and changes nothing. The column *changes* says when a
parameter may be set: a managed node reads most of them when it is configured.
"""


def page() -> str:
    """Return the whole page."""
    tables = [f'\n## Node `{node}`\n\n{markdown_table(params)}' for node, params in NODES.items()]
    return HEAD + ''.join(tables)


def readme() -> str:
    """README.md with the text between each pair of markers made anew."""
    text = README.read_text()
    for name, table in (('arguments', describe()), ('parameters', markdown_table(PolicyParams))):
        begin, end = f'<!-- {name}: scripts/document_parameters.py -->', f'<!-- end of {name} -->'
        # Twice the backslashes: re reads them in what it puts in.
        filled = f'{begin}\n{table}{end}'.replace('\\', r'\\')
        text, found = re.subn(f'{begin}.*?{end}', filled, text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f'{README.name} has {found} places between {begin!r} and {end!r}, expected one')
    return text


def main() -> int:
    """Write, or compare; 1 if a page is out of step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='compare, write nothing')
    check = parser.parse_args().check
    late = {path: text for path, text in ((PAGE, page()), (README, readme()))
            if not path.exists() or path.read_text() != text}
    for path, text in late.items():
        if check:
            print(f'{path.name} is out of step with the code: run scripts/document_parameters.py')
        else:
            path.write_text(text)
    return int(check and bool(late))


if __name__ == '__main__':
    sys.exit(main())
