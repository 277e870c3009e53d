import os

from setuptools import find_packages, setup

setup(
    name='apt_sim',
    version='0.1.0',
    packages=find_packages(include=['apt_sim', 'apt_sim.*']),
    package_data={'apt_sim': ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/apt_sim']),
        ('share/apt_sim', ['package.xml']),
        *((f'share/apt_sim/{folder}', [f'{folder}/{name}' for name in sorted(names)])
          for folder, _, names in os.walk('checkpoints') if names),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='APT suite maintainers',
    maintainer_email='maintainers@apt-suite.invalid',
    description='The simulated ALOHA: physics, tasks, demonstrations, closed-loop evaluation, shipped weights.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'apt-sim-collect = apt_sim.collect.main:main',
            'apt-sim-data = apt_policy.moved:main',
            'apt-sim-eval = apt_sim.evaluation.main:main',
            'apt-sim-questions = apt_policy.moved:main',
            'apt-sim-vqa = apt_sim.vqa.main:main',
            'demonstrator = apt_sim.tasks.node:main',
            'simulator = apt_sim.world.node:main',
        ],
    },
)
