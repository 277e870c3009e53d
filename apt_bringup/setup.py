import os
from glob import glob

from setuptools import find_packages, setup

setup(
    name='apt_bringup',
    version='0.1.0',
    packages=find_packages(include=['apt_bringup', 'apt_bringup.*']),
    package_data={'apt_bringup': ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/apt_bringup']),
        ('share/apt_bringup', ['package.xml']),
        ('share/apt_bringup/launch', sorted(glob('launch/*.launch.py'))),
        ('share/apt_bringup/config', sorted(glob('config/*'))),
        *((f'share/apt_bringup/{folder}', [f'{folder}/{name}' for name in sorted(names)])
          for folder, _, names in os.walk('checkpoints') if names),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='APT suite maintainers',
    maintainer_email='maintainers@apt-suite.invalid',
    description='Launch files, configuration, IK bridge and simulator of the APT suite.',
    license='Apache-2.0',
    entry_points={'console_scripts': [
        'apt-record = apt_bringup.record.main:main',
        'apt-sim-data = apt_bringup.demonstrations.main:main',
        'apt-sim-eval = apt_bringup.trials.main:main',
        'apt-sim-questions = apt_bringup.questions.main:main',
        'demo = apt_bringup.demo.main:main',
        'demonstrator = apt_bringup.tasks.node:main',
        'ik_bridge = apt_bringup.ik.node:main',
        'run = apt_bringup.run:main',
        'simulator = apt_bringup.sim.node:main',
    ]},
)
