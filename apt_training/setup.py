from setuptools import find_packages, setup

setup(
    name='apt_training',
    version='0.1.0',
    packages=find_packages(include=['apt_training', 'apt_training.*']),
    package_data={'apt_training': ['py.typed', 'data/*.yaml']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/apt_training']),
        ('share/apt_training', ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='APT suite maintainers',
    maintainer_email='maintainers@apt-suite.invalid',
    description='From rosbags to a trained APT policy: conversion, datasets, two-stage training, evaluation.',
    license='Apache-2.0',
    entry_points={'console_scripts': [
        'apt-convert = apt_training.convert.main:main',
        'apt-eval = apt_training.evaluate.main:main',
        'apt-inspect = apt_training.inspect.main:main',
        'apt-export = apt_training.export.main:main',
        'apt-finetune-vlm = apt_training.vlm_finetune.main:main',
        'apt-pack = apt_policy.moved:main',
        'apt-teach = apt_policy.moved:main',
        'apt-train = apt_training.train.main:main',
    ]},
)
