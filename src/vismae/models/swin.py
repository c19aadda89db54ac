"""Parts of a Swin Transformer: window attention, blocks, patch merging and expanding.

Liu et al. 2021 (arXiv 2103.14030); patch expanding from Swin-Unet, Cao et al. 2021 (arXiv
2105.05537); drop path from Huang et al. 2016 (arXiv 1603.09382). Tensors are channels-last.

Shapes: B batch, h×w token grid, C channels, M window side, N = M·M tokens of a window, n windows
of one image, Bn windows of the whole batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vismae.models.made_again import made_again, product_input
from vismae.models.windows import (
    pad_to_multiple,
    relative_position_index,
    shift_attention_mask,
    window_partition,
    window_reverse,
)


class DropPath(nn.Module):
    """Leave out a residual branch for whole samples at random, in training only.

    Huang et al. 2016 (arXiv 1603.09382). Kept branches grow by 1 / (1 - rate), so the expected
    value stays.

    Args:
        rate: Share of samples that lose the branch, 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Return ``x`` with some samples set to 0."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        # Not bernoulli_, of which a compiler makes other numbers.
        draw = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device)
        return x * ((draw < keep).to(x.dtype) / keep)

    def extra_repr(self) -> str:
        """Show the rate when the module is printed."""
        return f"rate={self.rate:.3f}"


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned relative position bias.

    Args:
        dim: C, a multiple of ``num_heads``.
        window_size: M for which the bias table is made; smaller windows use its middle.
        num_heads: Heads.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        table = torch.empty((2 * window_size - 1) ** 2, num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        # Not persistent: it follows from the window size, so a file need not hold it.
        index = relative_position_index(window_size)
        self.register_buffer("relative_position_index", index, persistent=False)

    def position_bias(self, window_size: int) -> Float[Tensor, "heads N N"]:
        """The learned bias for windows of ``window_size``, at most the table's own."""
        side = self.window_size
        index = self.relative_position_index.view(side, side, side, side)
        index = index[:window_size, :window_size, :window_size, :window_size]
        tokens = window_size * window_size
        # index_select, because its gradient is one index_add instead of a sort over all pairs.
        bias = self.relative_position_bias_table.index_select(0, index.flatten())
        return bias.view(tokens, tokens, -1).permute(2, 0, 1)

    def forward(
        self,
        windows: Float[Tensor, "Bn N C"],
        window_size: int,
        attention_mask: Float[Tensor, "n N N"] | None = None,
    ) -> Float[Tensor, "Bn N C"]:
        """Let the tokens of each window look at each other.

        Args:
            windows: The windows of one image next to each other.
            window_size: M of these windows.
            attention_mask: From ``shift_attention_mask``, after a shift.
        """
        return self.proj(self.mix(self.qkv(windows), window_size, attention_mask))

    def mix(
        self,
        qkv: Float[Tensor, "Bn N C3"],
        window_size: int,
        attention_mask: Float[Tensor, "n N N"] | None = None,
        key_bias: Float[Tensor, "Bn N"] | None = None,
    ) -> Float[Tensor, "Bn N C"]:
        """Attend with queries, keys and values that are there already.

        Args:
            qkv: Output of ``self.qkv``, the windows of one image next to each other.
            window_size: M of these windows.
            attention_mask: From ``shift_attention_mask``, after a shift.
            key_bias: Added to every query's logit of a key, for keys nobody may look at.
        """
        count, tokens, channels = qkv.shape
        heads, head_dim = self.num_heads, channels // 3 // self.num_heads
        qkv = qkv.view(count, tokens, 3, heads, head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).contiguous()  # each (Bn, heads, N, d)
        bias = self.position_bias(window_size)[None]  # (1, heads, N, N)
        if attention_mask is not None:
            # Windows join the heads, so that one bias serves the whole batch without a copy, in
            # the four dimensions that fast kernels ask for.
            bias = (bias + attention_mask[:, None]).flatten(0, 1)[None]  # (1, n·heads, N, N)
            shape = (-1, bias.shape[1], tokens, head_dim)
            query, key, value = query.view(shape), key.view(shape), value.view(shape)
        if key_bias is not None:
            key_bias = key_bias[:, None].expand(-1, heads, -1)
            key_bias = key_bias.reshape(query.shape[0], query.shape[1], 1, tokens)
        out = attend(query, key, value, bias, key_bias)  # (Bn, heads, N, d), or windows as heads
        out = out.reshape(count, heads, tokens, head_dim).transpose(1, 2)
        return out.reshape(count, tokens, heads * head_dim)


def attend(
    query: Float[Tensor, "A heads N d"],
    key: Float[Tensor, "A heads N d"],
    value: Float[Tensor, "A heads N d"],
    bias: Float[Tensor, "1 heads N N"],
    key_bias: Float[Tensor, "A heads 1 N"] | None = None,
) -> Float[Tensor, "A heads N d"]:
    """Softmax attention with additive biases, by the fastest way for the device.

    That is torch's fused attention, except where gradients are needed on a CPU: there torch falls
    back to a reference path that copies everything to float32. The plain products below train a
    64-channel network 1.17 times as fast in bfloat16 (88 against 75 images of 112 px a second, two
    cores, ``benchmarks/attention_paths.py``), with the softmax in float32 all the same.
    """
    if query.device.type != "cpu" or not (torch.is_grad_enabled() and bias.requires_grad):
        bias = bias if key_bias is None else bias + key_bias
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    scale = query.shape[-1] ** -0.5
    scaled = query * scale
    with made_again(scaled, lambda: query * scale):
        logits = scaled @ key.transpose(-2, -1) + bias
    if key_bias is not None:
        logits += key_bias
    return logits.softmax(dim=-1).to(value.dtype) @ value


class Mlp(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        dim: Channels in and out.
        hidden_dim: Channels between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        """Transform each token by itself."""
        if not torch.is_grad_enabled():
            return self.fc2(F.gelu(self.fc1(x)))  # nothing of it stays
        hidden = self.fc1(x)
        active = F.gelu(hidden)
        with made_again(active, lambda: F.gelu(hidden)):
            return self.fc2(active)


class SwinBlock(nn.Module):
    """Window attention and an MLP, each after a LayerNorm and with a residual connection.

    Args:
        dim: C.
        num_heads: Attention heads.
        window_size: M.
        shifted: Roll the grid by M // 2 first, so that windows overlap those of the last block.
        mlp_ratio: Hidden channels of the MLP as a multiple of C.
        drop_path: Rate of ``DropPath``.
        norm_eps: Added to the variance in the LayerNorms.
        shift_single_window: Shift even a grid that is no larger than one window, padding it to a
            whole window (VIS-MAE's code); otherwise the window shrinks to the grid and nothing
            is shifted (Microsoft's code).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shifted: bool,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        shift_single_window: bool = True,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = window_size // 2 if shifted else 0
        self.shift_single_window = shift_single_window
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = WindowAttention(dim, window_size, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        """Transform a grid of any size."""
        return self.after_attention(x, self._attend(x))

    def after_attention(
        self, x: Float[Tensor, "B *grid C"], attended: Float[Tensor, "B *grid C"]
    ) -> Float[Tensor, "B *grid C"]:
        """Add what attention gave to the block's input, then run the MLP."""
        x = x + self.drop_path(attended)
        normed = product_input(self.norm2, x)
        with made_again(normed, lambda: product_input(self.norm2, x)):
            out = self.mlp(normed)
        return x + self.drop_path(out)

    def window_and_shift(self, height: int, width: int) -> tuple[int, int]:
        """Side of the windows and the shift, in tokens, on a grid of this size."""
        if not self.shift_single_window and min(height, width) <= self.window_size:
            return min(height, width), 0
        return self.window_size, self.shift

    def _attend(self, x: Tensor) -> Tensor:
        """Normalise and let each window's tokens look at each other."""
        height, width = x.shape[1:3]
        window, shift = self.window_and_shift(height, width)
        attention_mask = None
        padded_height, padded_width = (side + -side % window for side in (height, width))
        if shift:
            attention_mask = shift_attention_mask(
                padded_height, padded_width, window, shift, x.device
            )
        windows = self._windows(x, window, shift)
        with made_again(windows, lambda: self._windows(x, window, shift)):
            windows = self.attn(windows, window, attention_mask)
        windows = windows.view(-1, window, window, windows.shape[-1])
        attended = window_reverse(windows, window, padded_height, padded_width)
        if shift:
            attended = torch.roll(attended, (shift, shift), dims=(1, 2))
        return attended[:, :height, :width]

    def _windows(self, x: Tensor, window: int, shift: int) -> Tensor:
        """Return the normalised tokens window by window, (Bn, N, C)."""
        # Padded tokens take part in attention as in the reference; only their output is cut.
        x = pad_to_multiple(product_input(self.norm1, x), window)
        if shift:
            x = torch.roll(x, (-shift, -shift), dims=(1, 2))
        return window_partition(x, window).flatten(1, 2)


class PatchMerging(nn.Module):
    """Halve the grid: 2×2 neighbours become one token with twice the channels.

    Args:
        dim: C before.
        norm_eps: Added to the variance in the LayerNorm.
    """

    def __init__(self, dim: int, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h2 w2 C2"]:
        """Return (B, ceil(h/2), ceil(w/2), 2C); odd grids are padded with zeros."""
        x = pad_to_multiple(x, 2)
        # Order (row, column): (0,0), (1,0), (0,1), (1,1); official weights depend on it.
        quarters = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        return self.merge(torch.cat(quarters, dim=-1))

    def merge(self, quarters: Float[Tensor, "... C4"]) -> Float[Tensor, "... C2"]:
        """Turn four neighbours, joined along the channels, into one token."""
        return self.reduction(self.norm(quarters))


class PatchExpanding(nn.Module):
    """Enlarge the grid: each token becomes a square of tokens.

    Args:
        dim: C before.
        scale: Side of the square.
        out_dim: Channels after.
        norm_eps: Added to the variance in the LayerNorm.
    """

    def __init__(self, dim: int, scale: int, out_dim: int, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(dim, scale * scale * out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim, eps=norm_eps)

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B H W D"]:
        """Return (B, scale·h, scale·w, out_dim)."""
        batch, height, width, _ = x.shape
        scale = self.scale
        # Channels split as (row in square, column in square, channel).
        x = self.expand(x).view(batch, height, width, scale, scale, -1)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, scale * height, scale * width, -1)
        return self.norm(x)


def initialise(module: nn.Module) -> None:
    """Draw one module's weights as Swin and MAE do; for ``nn.Module.apply``.

    Linear layers: normal with spread 0.02 cut at two, zero bias. The patch embedding, a
    convolution: Xavier-uniform as the linear layer it is. LayerNorms keep torch's 1 and 0.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
