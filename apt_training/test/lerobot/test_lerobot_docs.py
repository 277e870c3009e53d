import re
from pathlib import Path

from apt_training.convert.lerobot.map import load_calibrations, load_map

PAGE = Path(__file__).resolve().parents[3] / 'docs/lerobot.md'


def test_the_examples_of_the_page_can_be_used_as_they_stand(tmp_path):
    examples = re.findall(r'```yaml\n(.*?)```', PAGE.read_text(), re.DOTALL)
    names, intrinsics = (tmp_path / name for name in ('map.yaml', 'intrinsics.yaml'))
    names.write_text(examples[0])
    intrinsics.write_text(examples[1])
    assert load_map(names).arms['right'].gripper == 13
    assert set(load_calibrations(intrinsics)) <= set(load_map(names).cameras)
