"""Every parameter that a graph sets is one that its node declares, whatever package the node is in."""

from pathlib import Path

import pytest

from apt_bringup import graph
from apt_control.ik_bridge import BridgeParams
from apt_policy.ros.params import parameter_specs, read_value
from apt_policy.ros.policy_params import PolicyParams
from apt_sim.tasks.demonstrator_node import DemonstratorParams
from apt_sim.world.simulator import SimulatorParams

SHARE = Path(__file__).resolve().parents[1] / 'apt_bringup'
PARAMETERS = {'simulator': SimulatorParams, 'ik_bridge': BridgeParams, 'policy': PolicyParams,
              'demonstrator': DemonstratorParams}
ALOHA = {'prompt': 'p', 'checkpoint': str(SHARE), 'vlm': 'v', 'seed': '3', 'device': 'cpu'}
DEMONSTRATION = {'episodes': '3', 'seed': '4', 'width': '64', 'height': '48', 'await_recorder': 'true'}


@pytest.mark.parametrize(('described', 'given'), [
    (graph.aloha, {'robot': 'sim', **ALOHA}), (graph.aloha, {'robot': 'aloha', **ALOHA}),
    (graph.demonstration, DEMONSTRATION)], ids=['sim', 'aloha', 'demonstration'])
def test_every_parameter_is_one_that_its_node_declares(described, given):
    for node in described(given, SHARE).nodes:
        declared = {spec.name: spec for spec in parameter_specs(PARAMETERS[node.executable])}
        for name, value in node.parameters.items():
            if name != 'use_sim_time':
                assert read_value(declared[name], value) == value
