from setuptools import find_packages, setup

setup(
    name='apt_recorder',
    version='0.1.0',
    packages=find_packages(include=['apt_recorder', 'apt_recorder.*']),
    package_data={'apt_recorder': ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/apt_recorder']),
        ('share/apt_recorder', ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='APT suite maintainers',
    maintainer_email='maintainers@apt-suite.invalid',
    description='Records every stream of a robot contract as a rosbag2 bag: apt-record.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'apt-record = apt_recorder.main:main',
        ],
    },
)
