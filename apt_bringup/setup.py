from glob import glob

from setuptools import find_packages, setup

# Executables that are in other packages now: apt_bringup/moved.py has their names. They end with release 0.3.
MOVED = ('apt-record', 'apt-sim-data', 'apt-sim-eval', 'apt-sim-questions',
         'demo', 'demonstrator', 'ik_bridge', 'simulator')

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
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='APT suite maintainers',
    maintainer_email='maintainers@apt-suite.invalid',
    description='Launch files, configuration and runner of the APT suite.',
    license='Apache-2.0',
    entry_points={'console_scripts': [
        'run = apt_bringup.run:main',
        *(f'{name} = apt_bringup.moved:main' for name in MOVED),
    ]},
)
