"""APT action expert: predicts the noise in an action chunk, or the chunk itself, for both training stages.

``observe`` computes once per observation what does not depend on the noise; ``predict``
computes the rest. Parameter names are those of published checkpoints.

Letters: B batch, L vision-language (VL) tokens, N taps, A arms, H history states,
T horizon, S = H + T, D width, d the VLM's width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from apt_policy.model.actions import ACTION_SIZE, actions_to_noise, camera_from_ee, encode_states
from apt_policy.model.batch import RobotState, VlFeatures
from apt_policy.model.config import MAX_ARMS, ExpertConfig
from apt_policy.model.frames import centre, invert_pose, move_robot
from apt_policy.model.fusion import GatedStack, KVCache, Modulation
from apt_policy.model.layers import NoiseLevelEmbedding, RmsNorm, mlp
from apt_policy.model.scene import Scene, build_scene, vision_places


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditioning:
    """Conditioning of the denoising on one batch of observations."""

    scene: Scene
    kv_caches: tuple[KVCache, ...]
    """Cached keys and values, one cache per block."""
    history: Tensor
    """(B, A, H, D) history tokens."""
    ee_in_reference: Tensor
    """(B, A, 1, 3) present position of each end-effector in its reference camera's frame [m]."""

    def repeated(self, samples: int) -> 'Conditioning':
        """Repeat every observation ``samples`` times in a row; nothing is computed again."""
        return Conditioning(scene=self.scene.repeated(samples),
                       kv_caches=tuple(kv_cache.repeated(samples) for kv_cache in self.kv_caches),
                       history=self.history.repeat_interleave(samples, 0),
                       ee_in_reference=self.ee_in_reference.repeat_interleave(samples, 0))


class ContextEncoder(nn.Module):
    """Projections from the VLM's channels to the expert's."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.proj_input = nn.Linear(config.vlm_width, config.width)
        self.proj_vl = nn.ModuleList(nn.Linear(config.vlm_width, config.width) for _ in range(config.taps))
        self.proj_pe = nn.Linear(2, config.width)
        nn.init.zeros_(self.proj_pe.weight)
        nn.init.zeros_(self.proj_pe.bias)

    def embed(self, features: VlFeatures) -> Tensor:
        """Embed the VL tokens (B, L, D) float32 for the first block."""
        dtype = self.proj_input.weight.dtype
        camera, place = vision_places(features)
        sample = torch.arange(len(camera), device=camera.device)[:, None]
        spot = self.proj_pe(features.norm_xy[sample, camera, place].to(dtype))
        tokens = self.proj_input(features.inputs_embeds.to(dtype)).float()
        return tokens + spot.float() * features.is_vision[..., None]

    def highway(self, features: VlFeatures, tap: int) -> Tensor:
        """Project the features of a tap, (B, L, D) float32, which the stack mixes in."""
        dtype = self.proj_input.weight.dtype
        return self.proj_vl[tap](features.hidden_states[tap].to(dtype)).float()


class ActionHead(nn.Module):
    """Diffusion head: token embeddings, blocks, output projection."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        width = config.width
        self._translation_noise = config.translation_noise
        self.hist_enc = mlp(ACTION_SIZE - 1, width)
        self.traj_enc = mlp(ACTION_SIZE, width)
        self.abs_pos_enc = mlp(3, width, zero_last=True)
        self.arm_id_embed = nn.Parameter(0.02 * torch.randn(1, MAX_ARMS, 1, width))
        self.denoising_time_embed = nn.Sequential(NoiseLevelEmbedding(width), mlp(width, width))
        self.traj_context_attn = GatedStack(config)
        self.final_norm = RmsNorm(width)
        self.act_head = nn.Linear(width, ACTION_SIZE)
        nn.init.zeros_(self.act_head.weight)
        nn.init.zeros_(self.act_head.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.act_head.weight.dtype

    def absolute_position(self, translation: Tensor, ee_in_reference: Tensor) -> Tensor:
        """Embed absolute positions of tokens: (B, A, K, 3) relative [m] to (B, A, K, D), without gradient."""
        return self.abs_pos_enc((translation + ee_in_reference).detach().to(self.dtype))

    def history_tokens(self, actions: Tensor, ee_in_reference: Tensor) -> Tensor:
        """Embed encoded history (B, A, H, 10) to (B, A, H, D), without the gripper."""
        arms = self.arm_id_embed[:, :actions.shape[1]]
        return (self.hist_enc(actions[..., :-1].to(self.dtype))
                + self.absolute_position(actions[..., :3], ee_in_reference) + arms).float()

    def future_tokens(self, noisy: Tensor, ee_in_reference: Tensor) -> Tensor:
        """Embed noisy actions (B, A, T, 10) [m, 1] to (B, A, T, D)."""
        arms = self.arm_id_embed[:, :noisy.shape[1]]
        of_noise = actions_to_noise(noisy, self._translation_noise).to(self.dtype)
        return (self.traj_enc(of_noise) + self.absolute_position(noisy[..., :3], ee_in_reference) + arms).float()

    def modulate(self, level: Tensor) -> tuple[Modulation, ...]:
        """Compute the modulation of the action tokens' norms for (B,) noise levels 0..99."""
        sinusoids, embed = self.denoising_time_embed
        return self.traj_context_attn.modulate(embed(sinusoids(level).to(self.dtype)))

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Project future tokens (..., D) to predictions (..., 10) float32, in the units of noise."""
        return self.act_head(self.final_norm(tokens)).float()


class Expert(nn.Module):
    """Action expert: context encoder and action head."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.context_encoder = ContextEncoder(config)
        self.dp_head = ActionHead(config)

    def local_robot(self, features: VlFeatures, robot: RobotState) -> RobotState:
        """Express ``robot`` in a frame centred on its valid cameras.

        This only improves precision, because the blocks depend on relative poses alone.
        """
        world_from_local = centre(robot.world_from_camera, features.camera_valid)
        return move_robot(invert_pose(world_from_local), robot)

    def observe(self, features: VlFeatures, robot: RobotState, *, horizon: int,
                history: Tensor | None = None) -> Conditioning:
        """Compute the conditioning, which is the same for all noise levels and all noise.

        Args:
            features: features of the VLM.
            robot: poses in any common frame.
            horizon: number of future states in a chunk (T).
            history: (B, A, H, 10) encoded history; None encodes the history of ``robot``.

        Raises:
            ValueError: the sizes do not fit this expert.
        """
        self._check(features, robot)
        robot = self.local_robot(features, robot)
        encoded = encode_states(robot.history, robot) if history is None else history
        ee_in_reference = camera_from_ee(robot)[..., None, :3, 3]
        scene = build_scene(features, robot, head_dim=self.config.head_dim, horizon=horizon)
        kv_caches = self.dp_head.traj_context_attn.prefill(
            self.context_encoder.embed(features),
            lambda tap: self.context_encoder.highway(features, tap), scene)
        return Conditioning(scene=scene, ee_in_reference=ee_in_reference, kv_caches=kv_caches,
                       history=self.dp_head.history_tokens(encoded, ee_in_reference))

    def predict(self, conditioning: Conditioning, noisy: Tensor, level: Tensor) -> Tensor:
        """Predict noise or actions (``config.prediction``) of noisy actions.

        Args:
            conditioning: output of :meth:`observe`.
            noisy: (B, A, T, 10) noisy actions.
            level: (B,) noise levels 0..99.

        Returns:
            (B, A, T, 10) float32, in units of noise.
        """
        return self.denoise(conditioning, noisy, self.dp_head.modulate(level))

    def denoise(self, conditioning: Conditioning, noisy: Tensor, modulations: Sequence[Modulation]) -> Tensor:
        """Predict with modulations that are already computed; see :meth:`predict`."""
        head = self.dp_head
        tokens = torch.cat([conditioning.history, head.future_tokens(noisy, conditioning.ee_in_reference)], dim=2)
        done = head.traj_context_attn.denoise(tokens.flatten(1, 2), modulations, conditioning.kv_caches,
                                              conditioning.scene)
        return head.decode_tokens(done.view_as(tokens)[:, :, conditioning.history.shape[2]:])

    def _check(self, features: VlFeatures, robot: RobotState) -> None:
        taps, *_, vlm_width = features.hidden_states.shape
        if (taps, vlm_width) != (self.config.taps, self.config.vlm_width):
            raise ValueError(f'the VLM gives {taps} taps of width {vlm_width}; this expert was built for '
                             f'{self.config.taps} of width {self.config.vlm_width}: use the VLM that it '
                             'was trained with')
        arms = robot.valid_arms.shape[1]
        if arms > MAX_ARMS:
            raise ValueError(f'the robot has {arms} arms; the expert supports at most {MAX_ARMS}')
