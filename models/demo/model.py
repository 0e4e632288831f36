"""The Llama architecture for training, with the checkpoint's weight names.

No padding mask is needed: sequences start at position 0, padding comes after them, and attention is causal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INITIAL_STD = 0.05


@dataclass(frozen=True)
class Shape:
    vocab_size: int
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 32
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


def rope_tables(shape: Shape, n_positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each `[n_positions, head_dim]`, f32. Source: RoFormer, arXiv:2104.09864, eq. 34."""
    exponents = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
    angles = torch.outer(torch.arange(n_positions).float(), shape.rope_theta**-exponents).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (i, i + head_dim/2) of `x`: `[batch, n_heads, n_tokens, head_dim]`."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        q_width = shape.num_attention_heads * shape.head_dim
        kv_width = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, q_width, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(q_width, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """What it adds to `x`, and where it looked: `[batch, n_heads, n_tokens, n_tokens]`."""
        batch, n_tokens, _ = x.shape
        heads = (batch, n_tokens, -1, self.shape.head_dim)
        q = rotate(self.q_proj(x).view(heads).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(heads).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(heads).transpose(1, 2)
        queries_per_kv_head = self.shape.num_attention_heads // self.shape.num_key_value_heads
        k, v = (t.repeat_interleave(queries_per_kv_head, dim=1) for t in (k, v))
        # Written out, because PyTorch's fused kernel is several times slower on a CPU in bf16.
        later = torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-1, -2) * self.shape.head_dim**-0.5).masked_fill(later, float("-inf"))
        looked = scores.softmax(-1)
        return self.o_proj((looked @ v).transpose(1, 2).reshape(batch, n_tokens, -1)), looked


class Mlp(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        attended, looked = self.self_attn(self.input_layernorm(x), cos, sin)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), looked


class Decoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


class Llama(nn.Module):
    """Its `state_dict` is a Llama checkpoint with tied embeddings: no `lm_head.weight`."""

    def __init__(self, shape: Shape, n_positions: int):
        super().__init__()
        self.model = Decoder(shape)
        cos, sin = rope_tables(shape, n_positions)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        residual_std = INITIAL_STD / (2 * shape.num_hidden_layers) ** 0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                writes_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=residual_std if writes_residual else INITIAL_STD)

    def hidden(self, input_ids: Tensor) -> Tensor:
        """`input_ids`: `[batch, n_tokens]`, i64. Returns `[batch, n_tokens, hidden_size]`."""
        return self.decode(self.model.embed_tokens(input_ids))

    def decode(self, x: Tensor) -> Tensor:
        """`x`: embeddings, `[batch, n_tokens, hidden_size]`, as is what it returns."""
        return self.decode_and_look(x, 0)[0]

    def decode_and_look(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """The same, and where the heads of `layer` looked: `[batch, n_heads, n_tokens, n_tokens]`."""
        n_tokens = x.shape[1]
        looked = []
        for block in self.model.layers:
            x, at = block(x, self.cos[:n_tokens], self.sin[:n_tokens])
            looked.append(at)
        return self.model.norm(x), looked[layer]

    def logits(self, hidden: Tensor) -> Tensor:
        """`hidden`: `[.., hidden_size]`. Returns `[.., vocab_size]`."""
        return F.linear(hidden, self.model.embed_tokens.weight)
