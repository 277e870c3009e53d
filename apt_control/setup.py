from setuptools import find_packages, setup

setup(
    name='apt_control',
    version='0.1.0',
    packages=find_packages(include=['apt_control', 'apt_control.*']),
    package_data={'apt_control': ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/apt_control']),
        ('share/apt_control', ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='APT suite maintainers',
    maintainer_email='maintainers@apt-suite.invalid',
    description='From end-effector targets to joint commands: the IK bridge of the APT suite.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'ik_bridge = apt_control.node:main',
        ],
    },
)
