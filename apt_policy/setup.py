from setuptools import find_packages, setup

setup(
    name='apt_policy',
    version='0.1.0',
    packages=find_packages(include=['apt_policy', 'apt_policy.*']),
    package_data={'apt_policy': ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/apt_policy']),
        ('share/apt_policy', ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='APT suite maintainers',
    maintainer_email='maintainers@apt-suite.invalid',
    description='The APT vision-language-action policy and its ROS 2 node.',
    license='Apache-2.0',
    entry_points={'console_scripts': [
        'apt-ctl = apt_policy.ros.ctl:main',
        'apt-operate = apt_policy.moved:main',
        'policy = apt_policy.ros.node:main',
    ]},
)
