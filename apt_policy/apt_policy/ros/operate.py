"""Old name of ``apt_policy.ros.ctl``."""

import sys

from apt_policy.moved import run_moved

if __name__ == '__main__':
    sys.exit(run_moved('apt_policy.ros.operate', 'apt_policy.ros.ctl', 'apt_policy.ros.ctl'))
