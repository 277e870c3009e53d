from setuptools import find_packages, setup

setup(
    name='apt_demos',
    version='0.1.0',
    packages=find_packages(include=['apt_demos', 'apt_demos.*']),
    package_data={'apt_demos': ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/apt_demos']),
        ('share/apt_demos', ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='APT suite maintainers',
    maintainer_email='maintainers@apt-suite.invalid',
    description='Everything together: the demo, the tutorial, the study, evaluation through the live graph.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'demo = apt_demos.demo.main:main',
        ],
        # What runs the trials of apt-sim-eval with --NAME.
        'apt_sim.trial_runners': ['ros = apt_demos.live_evaluation.live_run:run_live'],
    },
)
