"""The vision tower and the projector for training, with the checkpoint's weight names.

SigLIP's tower without its pooling head, and LLaVA's projector. Sources: transformers' `SiglipVisionModel`,
`LlavaMultiModalProjector`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INITIAL_STD = 0.05


@dataclass(frozen=True)
class VisionShape:
    image_size: int
    patch_size: int
    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    layer_norm_eps: float = 1e-6

    @property
    def n_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


class VisionAttention(nn.Module):
    def __init__(self, shape: VisionShape):
        super().__init__()
        self.n_heads = shape.num_attention_heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(shape.hidden_size, shape.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        n_images, n_patches, width = x.shape
        heads = (n_images, n_patches, self.n_heads, width // self.n_heads)
        q, k, v = (project(x).view(heads).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj))
        attended = (q @ k.transpose(-1, -2) * (width // self.n_heads) ** -0.5).softmax(-1) @ v
        return self.out_proj(attended.transpose(1, 2).reshape(x.shape))


class VisionMlp(nn.Module):
    def __init__(self, shape: VisionShape):
        super().__init__()
        self.fc1 = nn.Linear(shape.hidden_size, shape.intermediate_size)
        self.fc2 = nn.Linear(shape.intermediate_size, shape.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionLayer(nn.Module):
    def __init__(self, shape: VisionShape):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.self_attn = VisionAttention(shape)
        self.layer_norm2 = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.mlp = VisionMlp(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    def __init__(self, shape: VisionShape):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, shape.hidden_size, shape.patch_size, stride=shape.patch_size)
        self.position_embedding = nn.Embedding(shape.n_patches, shape.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return patches + self.position_embedding.weight


class Encoder(nn.Module):
    def __init__(self, shape: VisionShape):
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(shape) for _ in range(shape.num_hidden_layers))


class Tower(nn.Module):
    """Its `state_dict` is that of `SiglipVisionModel` with `vision_use_head: false`.

    LLaVA takes what the last layer gives (`vision_feature_layer: -1`), before the norm that ends the tower, so
    `post_layernorm` is only there because checkpoints have it.
    """

    def __init__(self, shape: VisionShape):
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)
        self.post_layernorm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=INITIAL_STD)
        nn.init.normal_(self.embeddings.patch_embedding.weight, std=(3 * shape.patch_size**2) ** -0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        """`[n_images, 3, image_size, image_size]`, f32, to `[n_images, n_patches, hidden_size]`."""
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return x


class Projector(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.linear_1 = nn.Linear(n_in, n_out)
        self.linear_2 = nn.Linear(n_out, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(x)))


class Eye(nn.Module):
    """Pictures to what stands in for their image tokens."""

    def __init__(self, shape: VisionShape, decoder_hidden_size: int):
        super().__init__()
        self.vision_tower = Tower(shape)
        self.multi_modal_projector = Projector(shape.hidden_size, decoder_hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """`[n_images, 3, image_size, image_size]` to `[n_images, n_patches, decoder_hidden_size]`."""
        return self.multi_modal_projector(self.vision_tower(pixels))
