"""``apt-ctl disable``, the documented pause, beside a bare rclpy client that calls the same service.

- ``operate_cpu_ratio``: processor time of the command by that of the bare client, whole processes from start to end,
  measured in turns on the same machine; beside it both times.
- ``operate_wall_s_p50``: wall time of the command, discovery included.
- ``operate_resident_ms_p50``: from Enter in an interactive command to the policy's answer on the screen.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import domain_coordinator
import numpy as np
from ledger import record

ROOT = Path(__file__).resolve().parents[1]
COMMAND = 'python benchmarks/bench_ctl.py'
CTL = [sys.executable, '-m', 'apt_policy.ros.ctl', '--timeout', '60']
BARE = [sys.executable, '-c', '''
import rclpy
from std_srvs.srv import SetBool
rclpy.init()
node = rclpy.create_node('bare')
client = node.create_client(SetBool, 'apt_policy/enable')
assert client.wait_for_service(60.0)
answer = client.call_async(SetBool.Request(data=False))
rclpy.spin_until_future_complete(node, answer, timeout_sec=20.0)
if not answer.done():
    # The middleware may drop the answer to a client that it has only just met.
    raise SystemExit('the answer was lost: measure again')
print(answer.result().message)
node.destroy_node()
rclpy.shutdown()
''']


def policy(ready: Any, ending: Any) -> None:
    """Answer ``enable`` as the policy does, until told to end."""
    import rclpy
    from std_srvs.srv import SetBool

    def answer(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = True, 'enabled' if request.data else 'disabled'
        return response

    rclpy.init()
    node = rclpy.create_node('apt_policy')
    node.create_service(SetBool, '~/enable', answer)
    ready.set()
    while not ending.is_set():
        rclpy.spin_once(node, timeout_sec=0.1)
    rclpy.shutdown()


def run(words: list[str]) -> tuple[float, float]:
    """Processor time and time on the wall of one process [s]."""
    began_s = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or said != b'disabled\n':
        raise SystemExit(f'{words[:3]} ended with {process.returncode} and said {said!r}')
    return used.ru_utime + used.ru_stime, time.monotonic() - began_s


def stops_ms(count: int) -> list[float]:
    """Return the times of some stops in an interactive command [ms]."""
    shell = subprocess.Popen([*CTL, 'shell'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert shell.stdin is not None and shell.stdout is not None
    took = []
    for _ in range(count + 1):
        began_s = time.monotonic()
        shell.stdin.write(b'\n')
        shell.stdin.flush()
        while shell.stdout.readline() != b'disabled\n':
            if shell.poll() is not None:
                raise SystemExit('the command that stays ended by itself')
        took.append(1e3 * (time.monotonic() - began_s))
        time.sleep(0.1)
    shell.stdin.close()
    shell.wait(60.0)
    # The first one waits for the program's own start.
    return took[1:]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7, help='turns of each command')
    options = parser.parse_args()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    context = multiprocessing.get_context('spawn')
    with domain_coordinator.domain_id() as domain:
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        ready, ending = context.Event(), context.Event()
        server = context.Process(target=policy, args=(ready, ending), daemon=True)
        server.start()
        try:
            if not ready.wait(60.0):
                raise SystemExit('the service did not come up within 60 s')
            measure(options.rounds)
        finally:
            ending.set()
            server.join(5.0)


def measure(rounds: int) -> None:
    """All figures, with the service running."""
    turns: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, words in (('bare', BARE), ('operate', [*CTL, 'disable'])):
            used_s, waited_s = run(words)
            turns[f'{name}_cpu_s'].append(used_s)
            turns[f'{name}_wall_s'].append(waited_s)
    ours_s, bare_s = (float(np.median(turns[f'{name}_cpu_s'])) for name in ('operate', 'bare'))
    for name, value, unit, goal in (
            ('operate_cpu_ratio', ours_s / bare_s, '', '<= 1.4'), ('operate_cpu_s_p50', ours_s, 's', ''),
            ('operate_cpu_bare_s_p50', bare_s, 's', ''),
            ('operate_wall_s_p50', float(np.median(turns['operate_wall_s'])), 's', ''),
            ('operate_wall_bare_s_p50', float(np.median(turns['bare_wall_s'])), 's', ''),
            ('operate_resident_ms_p50', float(np.median(stops_ms(rounds))), 'ms', '')):
        record(name=name, value=value, unit=unit, goal=goal, command=COMMAND)


if __name__ == '__main__':
    main()
