"""Specs of the datasets that APT was published with, taken from the published loaders.

Their locations on a machine are in ``locations.yaml``.
"""

import re

from apt_training.data.dataset_spec import DatasetSpec, VideoRoot


def without_scene(prompt: str) -> str:
    """Remove the name of the scene, which LIBERO-10 and -90 put in front of the instruction."""
    return re.sub(r'^.*?SCENE\S*\s+', '', prompt)


def _libero(name: str) -> DatasetSpec:
    return DatasetSpec(name=name, cameras=('agentview', 'eye_in_hand'), wrist_cameras=('eye_in_hand',),
                       reference_cameras=(('agentview', 'eye_in_hand'),), ee_indices=(0,), rewrite_prompt=without_scene)


def _intern_a1(name: str, robot: str) -> DatasetSpec:
    return DatasetSpec(
        name=name, files=f'**/{robot}/**/*', rate_hz=10.0, step_frames=2, ee_indices=(0, 1),
        cameras=('head_cam', 'lh_cam', 'rh_cam'), wrist_cameras=('lh_cam', 'rh_cam'),
        reference_cameras=(('head_cam', 'lh_cam'), ('head_cam', 'rh_cam')), videos=VideoRoot.MIRROR)


def _aloha(name: str) -> DatasetSpec:
    return DatasetSpec(name=name, rate_hz=10.0, step_frames=2, ee_indices=(0,), cameras=('head_cam', 'rh_cam'),
                       reference_cameras=(('head_cam', 'rh_cam'),), wrist_cameras=('rh_cam',))


_SPECS = (
    DatasetSpec(
        name='Droid', files='data/*/*', videos=VideoRoot.FOLDER, rate_hz=15.0, step_frames=2, ee_indices=(0,),
        ee_forward_m=0.15, cameras=('exterior_2_left', 'exterior_1_left', 'wrist_left'), wrist_cameras=('wrist_left',),
        reference_cameras=(('exterior_2_left', 'exterior_1_left', 'wrist_left'),),
        exclude=('episode_11907.h5', 'episode_14419.h5', 'episode_24440.h5', 'episode_64837.h5',
                 'episode_64871.h5')),
    DatasetSpec(
        name='AgiBotWorld', files='hdf5/*/*', rate_hz=30.0, step_frames=3, ee_indices=(1, 2), ee_forward_m=0.08,
        videos=VideoRoot.FOLDER,
        cameras=('head_cam', 'left_cam', 'right_cam'), wrist_cameras=('left_cam', 'right_cam'),
        reference_cameras=(('head_cam', 'left_cam'), ('head_cam', 'right_cam'))),
    DatasetSpec(
        name='InternA1Franka', files='**/franka/**/*', rate_hz=10.0, step_frames=2, ee_indices=(0,),
        cameras=('head_cam', 'hand_cam'), reference_cameras=(('head_cam', 'hand_cam'),),
        wrist_cameras=('hand_cam',), videos=VideoRoot.MIRROR),
    _intern_a1('InternA1Lift2', 'lift2'),
    _intern_a1('InternA1Genie1', 'genie1'),
    _intern_a1('InternA1SplitAloha', 'split_aloha'),
    DatasetSpec(
        name='InternM1', videos=VideoRoot.FOLDER, step_frames=4, ee_indices=(0,),
        cameras=('base_view', 'base_view_2', 'ego_view'),
        reference_cameras=(('base_view', 'base_view_2', 'ego_view'),), wrist_cameras=('ego_view',)),
    _libero('LiberoSpatial'),
    _libero('LiberoObject'),
    _libero('LiberoGoal'),
    _libero('Libero10'),
    DatasetSpec(
        name='PickPlaceCan', ee_indices=(0,), cameras=('e2h_cam', 'eih_cam'), wrist_cameras=('eih_cam',),
        reference_cameras=(('e2h_cam', 'eih_cam'),)),
    _aloha('AlohaTableStorage'),
    _aloha('AlohaPickPlace'),
    _aloha('AlohaPickPlaceClutter'),
)
PUBLISHED = {spec.name: spec for spec in _SPECS}

PRETRAINING = (('Droid', 10.0), ('AgiBotWorld', 10.0), ('InternA1Franka', 2.0), ('InternA1Lift2', 2.0),
               ('InternA1Genie1', 2.0), ('InternA1SplitAloha', 2.0), ('InternM1', 2.0))
"""Datasets and weights of the published pretraining mixture."""
