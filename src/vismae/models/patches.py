"""From pixels to tokens: patches of an image, embedded.

Shapes: B batch, H×W pixels, h×w patch grid, K image channels, C channels, p patch side.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vismae.core.errors import ModelError


class PatchEmbed(nn.Module):
    """Turn each patch of pixels into a token.

    Args:
        in_channels: K.
        dim: C.
        patch_size: p, side of a patch in pixels.
        norm_eps: Added to the variance in the LayerNorm.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int, norm_eps: float) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, images: Float[Tensor, "B K H W"]) -> Float[Tensor, "B h w C"]:
        """Embed images of any size; the last row and column of patches are padded with zeros.

        Raises:
            ModelError: The images have another number of channels.
        """
        if images.ndim != 4 or images.shape[1] != self.proj.in_channels:
            raise ModelError(
                f"The images have the shape {tuple(images.shape)}, the model expects (batch, "
                f"{self.proj.in_channels}, height, width). Prepare them as preprocessing in "
                "model.json says (in_channels, neighbours)."
            )
        tokens = self.proj(pad_to_patches(images, self.patch_size))
        return self.norm(tokens.permute(0, 2, 3, 1))

    def embed_patches(self, patches: Float[Tensor, "... K p q"]) -> Float[Tensor, "... C"]:
        """Embed patches that have been cut out already, as one matrix product.

        As a convolution over images that are one patch wide the same gave numbers that were not
        finite now and then, in bf16 on a CPU (oneDNN, torch 2.13).
        """
        flat = patches.flatten(-3)
        return self.norm(F.linear(flat, self.proj.weight.flatten(1), self.proj.bias))


def pad_to_patches(images: Float[Tensor, "B K H W"], patch_size: int) -> Float[Tensor, "B K H2 W2"]:
    """Pad bottom and right with zeros to whole patches; whole ones stay as they are."""
    bottom, right = -images.shape[2] % patch_size, -images.shape[3] % patch_size
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images
