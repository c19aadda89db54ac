"""The reference's pre-training step as a plain dense formulation: what ours is measured against.

Written from the papers and from what is known of VIS-MAE's recipe (arXiv 2402.01034; Swin-MAE,
arXiv 2212.13805), not from its code: hidden patches drawn on the host sample by sample, learned
tokens in their place through the whole encoder, attention as separate products with the bias
looked up and the shift mask built in every call, everything in float32 on a CPU and under float16
autocast with a gradient scaler on a GPU, and a synchronisation with ``.item()`` in every step.

The network, its weights and its loss are those of ``vismae.models.SwinMAE``
(``tests/models/test_reference_recipe.py``); only the way of computing differs. Parameters carry
the names of the official checkpoints, which are ours without ``encoder.`` and ``decoder.``.

Shapes: B batch, H×W pixels, K image channels, p patch side, h×w token grid, L = h·w, C channels,
M window side, N = M·M tokens of a window, n windows of one image.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vismae.models import SwinConfig


class Attention(nn.Module):
    """Attention of a window's tokens, product by product."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        place = torch.stack(torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij")).flatten(1)
        offset = place[:, :, None] - place[:, None, :] + window - 1  # (2, N, N)
        index = offset[0] * (2 * window - 1) + offset[1]
        self.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, x: Tensor, shift_mask: Tensor | None) -> Tensor:
        """Return (B·n, N, C) for (B·n, N, C)."""
        count, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(tokens, tokens, self.heads).permute(2, 0, 1).contiguous()
        logits = logits + bias[None]
        if shift_mask is not None:
            windows = shift_mask.shape[0]
            logits = logits.view(count // windows, windows, self.heads, tokens, tokens)
            logits = (logits + shift_mask[None, :, None]).view(count, self.heads, tokens, tokens)
        x = (logits.softmax(dim=-1) @ value).transpose(1, 2).reshape(count, tokens, channels)
        return self.proj(x)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token by itself."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A Swin block; every second one works on shifted windows."""

    def __init__(self, config: SwinConfig, stage: int, drop_path: float, shifted: bool) -> None:
        super().__init__()
        dim = config.stage_dim(stage)
        self.window = config.window_size
        self.shift = config.window_size // 2 if shifted else 0
        self.rate = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attn = Attention(dim, config.window_size, config.num_heads[stage])
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, h, w, C)."""
        batch, height, width, channels = x.shape
        window, shift = self.window, self.shift
        y = F.pad(self.norm1(x), (0, 0, 0, -width % window, 0, -height % window))
        rows, columns = y.shape[1] // window, y.shape[2] // window
        shift_mask = None
        if shift:
            y = torch.roll(y, (-shift, -shift), dims=(1, 2))
            shift_mask = self._shift_mask(y)
        y = y.view(batch, rows, window, columns, window, channels).permute(0, 1, 3, 2, 4, 5)
        y = self.attn(y.reshape(-1, window * window, channels), shift_mask)
        y = y.view(batch, rows, columns, window, window, channels).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, rows * window, columns * window, channels)
        if shift:
            y = torch.roll(y, (shift, shift), dims=(1, 2))
        x = x + self._drop_path(y[:, :height, :width])
        return x + self._drop_path(self.mlp(self.norm2(x)))

    def _shift_mask(self, y: Tensor) -> Tensor:
        """Number the regions of the rolled grid; pairs of different regions get -100."""
        window, (height, width) = self.window, y.shape[1:3]
        region = torch.zeros(height, width, device=y.device)
        cuts = (slice(0, -window), slice(-window, -self.shift), slice(-self.shift, None))
        for number, (down, across) in enumerate((a, b) for a in cuts for b in cuts):
            region[down, across] = number
        region = region.view(height // window, window, width // window, window)
        region = region.permute(0, 2, 1, 3).reshape(-1, window * window)
        return (region[:, None, :] - region[:, :, None] != 0).float() * -100.0

    def _drop_path(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        return x * (torch.rand(len(x), 1, 1, 1, device=x.device) < keep) / keep


class Merging(nn.Module):
    """Halve the grid."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, ceil(h/2), ceil(w/2), 2C)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        quarters = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(quarters, dim=-1)))


class Expanding(nn.Module):
    """Double the grid."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim // 2, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2h, 2w, C/2)."""
        batch, height, width, channels = x.shape
        x = self.expand(x).view(batch, height, width, 2, 2, channels // 2)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 2)
        return self.norm(x)


class Stage(nn.Module):
    """Blocks, then perhaps a change of the grid."""

    def __init__(self, config: SwinConfig, stage: int, down: bool = False, up: bool = False):
        super().__init__()
        dim = config.stage_dim(stage)
        rates = config.drop_path_rates()[stage]
        self.blocks = nn.ModuleList(
            Block(config, stage, rate, number % 2 == 1) for number, rate in enumerate(rates)
        )
        self.downsample = Merging(dim, config.norm_eps) if down else None
        self.upsample = Expanding(dim, config.norm_eps) if up else None

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks, then merge or expand."""
        for block in self.blocks:
            x = block(x)
        if self.downsample is not None:
            x = self.downsample(x)
        return x if self.upsample is None else self.upsample(x)


class PatchEmbedding(nn.Module):
    """Pixels to tokens."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        side = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.embed_dim, side, stride=side)
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, h, w, C)."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class ReferenceMAE(nn.Module):
    """The masked autoencoder; images are squares of whole patches.

    Args:
        config: The network.
        mask_ratio: Share of hidden units.
        mask_unit_px: Side of a unit in pixels.
    """

    def __init__(
        self, config: SwinConfig, mask_ratio: float = 0.75, mask_unit_px: int = 16
    ) -> None:
        super().__init__()
        last = len(config.depths) - 1
        self.patch_size = config.patch_size
        self.mask_ratio = mask_ratio
        self.unit = mask_unit_px // config.patch_size
        self.patch_embed = PatchEmbedding(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.layers = nn.ModuleList(
            Stage(config, stage, down=stage < last) for stage in range(last + 1)
        )
        self.first_patch_expanding = Expanding(config.stage_dim(last), config.norm_eps)
        self.layers_up = nn.ModuleList(
            Stage(config, stage, up=stage > 0) for stage in reversed(range(last))
        )
        self.norm_up = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.decoder_pred = nn.Linear(config.embed_dim, config.patch_size**2 * config.in_channels)

    def choose_hidden(self, batch: int, side: int, device: torch.device) -> Tensor:
        """Draw hidden patches on the host, one sample after the other, (B, L)."""
        units = side // self.unit
        count = round(self.mask_ratio * units * units)
        hidden = np.zeros((batch, side, side), dtype=bool)
        for sample in hidden:
            order = torch.rand(units * units, device=device).argsort().cpu().numpy()
            for row, column in (divmod(int(number), units) for number in order[:count]):
                down = slice(row * self.unit, (row + 1) * self.unit)
                sample[down, column * self.unit : (column + 1) * self.unit] = True
        return torch.from_numpy(hidden).flatten(1).to(device)

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the mean squared error per pixel over hidden patches.

        Args:
            images: (B, K, H, W).
            hidden: True where a patch is hidden, (B, L); drawn if left out.
        """
        x = self.patch_embed(images)
        batch, side = x.shape[:2]
        if hidden is None:
            hidden = self.choose_hidden(batch, side, images.device)
        place = hidden.view(batch, side, side, 1).type_as(x)
        x = x * (1 - place) + self.mask_token[:, None] * place
        sides = []
        for stage in self.layers:
            sides.append(x.shape[1])
            x = stage(x)
        x = self.first_patch_expanding(x)
        for stage, width in zip(self.layers_up, reversed(sides[:-1]), strict=True):
            x = stage(x[:, :width, :width])
        prediction = self.decoder_pred(self.norm_up(x)).flatten(1, 2)
        square = (prediction - self._patches(images)).square().mean(dim=-1)
        return (square * hidden).sum() / hidden.sum()

    def _patches(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        side = self.patch_size
        x = images.view(batch, channels, height // side, side, width // side, side)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side * side * channels)


class ReferenceStep:
    """One training step of the recipe.

    Args:
        model: On its device.
        optimise: Also step the optimiser, AdamW with the same decay for every parameter.
    """

    def __init__(self, model: ReferenceMAE, optimise: bool = True) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.optimise = optimise
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == "cuda")

    def __call__(self, images: Tensor) -> float:
        """Learn from a batch of the host's and return the loss."""
        images = images.to(self.device)
        self.optimizer.zero_grad()
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.float16, enabled=on_gpu):
            loss = self.model(images)
        value = loss.item()
        self.scaler.scale(loss).backward()
        if self.optimise:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if on_gpu:
            torch.cuda.synchronize()
        return value
