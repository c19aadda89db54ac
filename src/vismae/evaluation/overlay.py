"""Pictures made of pixels: overlays, fill-in triptychs and contact sheets, without matplotlib.

One colour table serves report, logs and web page alike. Images are grey (H, W) or colour (H, W, 3)
with values 0 to 1, or uint8; what lies outside 0 to 1 is cut off. Results are uint8 (H, W, 3).
"""

import colorsys
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from vismae.core.errors import DataError
from vismae.core.rundir import write_bytes

# Okabe and Ito's colours without black, then three more chosen so that any two of the ten stay
# apart (CIE76 distance 16 and more) under simulated protan-, deuter- and tritanopia.
COLOURS: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (0, 114, 178),
    (136, 34, 85),
    (187, 238, 187),
    (85, 68, 204),
)
"""Colour of each class. Entry 0 is the background, which is never drawn."""

_HIDDEN_GREY = 128
_GAP_PX = 4
_CAPTION_PX = 12


def colour_of(class_index: int) -> tuple[int, int, int]:
    """Return the colour of a class: from ``COLOURS``, beyond it round the hue circle."""
    if class_index < len(COLOURS):
        return COLOURS[class_index]
    # Steps of the golden angle never come back to an earlier hue; value alternates to tell apart
    # neighbours that a colour-blind eye would confuse.
    hue = (0.13 + 0.618034 * (class_index - len(COLOURS))) % 1.0
    value = (1.0, 0.7)[class_index % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_overlay(
    image: Float[np.ndarray, "H W ..."] | UInt8[np.ndarray, "H W ..."],
    label_map: Integer[np.ndarray, "H W"],
    alpha: float = 0.45,
    contour: bool = True,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw classes over an image in the project's colours.

    Args:
        image: Grey or colour.
        label_map: Class of each pixel; 0 stays as it is.
        alpha: Opacity of the colour inside a region, 0 to 1.
        contour: Draw each region's outermost pixels in full colour.

    Raises:
        DataError: Image and label map differ in size, or a class is negative.
    """
    picture = to_rgb(image)
    if label_map.shape != picture.shape[:2]:
        raise DataError(
            f"The image is {picture.shape[0]}×{picture.shape[1]} pixels, the label map "
            f"{'×'.join(map(str, label_map.shape))}; bring both to the same grid to overlay them."
        )
    classes = np.unique(label_map)
    if len(classes) and classes[0] < 0:
        raise DataError(f"The label map holds class {classes[0]}; classes are 0 or more.")
    table = np.zeros((int(classes.max(initial=0)) + 1, 3))
    for k in classes:
        table[k] = colour_of(int(k))
    colour = table[label_map]
    opacity = np.where(label_map > 0, alpha, 0.0)
    if contour:
        opacity[_outline(label_map)] = 1.0
    blended = picture + opacity[..., None] * (colour - picture)
    return np.rint(blended).astype(np.uint8)


def _outline(label_map: Integer[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return the pixels of a class that touch another class or the background."""
    differs = np.zeros(label_map.shape, dtype=bool)
    down = label_map[1:] != label_map[:-1]
    right = label_map[:, 1:] != label_map[:, :-1]
    differs[1:] |= down
    differs[:-1] |= down
    differs[:, 1:] |= right
    differs[:, :-1] |= right
    return differs & (label_map > 0)


def draw_fill_in(
    image: Float[np.ndarray, "H W ..."] | UInt8[np.ndarray, "H W ..."],
    hidden_pixels: Bool[np.ndarray, "H W"],
    filled: Float[np.ndarray, "H W ..."] | UInt8[np.ndarray, "H W ..."],
) -> UInt8[np.ndarray, "H W3 3"]:
    """Draw an image, the same with its hidden part in grey, and with that part filled in.

    Args:
        image: What the network was to reconstruct.
        hidden_pixels: True where the encoder saw nothing.
        filled: The reconstruction; only its hidden part is shown.

    Returns:
        The three side by side with a white gap of 4 pixels, (H, 3·W + 8, 3).

    Raises:
        DataError: The sizes differ.
    """
    original, reconstruction = to_rgb(image), to_rgb(filled)
    if not original.shape[:2] == reconstruction.shape[:2] == hidden_pixels.shape:
        raise DataError(
            f"Image {original.shape[:2]}, hidden pixels {hidden_pixels.shape} and reconstruction "
            f"{reconstruction.shape[:2]} differ in size; all must be those of the network's input."
        )
    hidden = hidden_pixels[..., None]
    gap = np.full((original.shape[0], _GAP_PX, 3), 255, np.uint8)
    grey = np.where(hidden, np.uint8(_HIDDEN_GREY), original)
    return np.concatenate(
        [original, gap, grey, gap, np.where(hidden, reconstruction, original)], axis=1
    )


def contact_sheet(
    images: Iterable[np.ndarray],
    captions: Sequence[str] | None = None,
    columns: int = 5,
    cell_px: int = 192,
) -> UInt8[np.ndarray, "H W 3"]:
    """Put images on one sheet, row by row, each shrunk or enlarged to its cell.

    Args:
        images: Grey or colour, of any sizes; shapes keep their proportions. Each is let go when it
            has been shrunk, so that of an iterator one at a time is in memory.
        captions: One below each image, cut to the cell's width.
        columns: Images in a row.
        cell_px: Width of a cell; its height is that of the tallest picture in it, at most the same.

    Raises:
        DataError: There is no image, or not one caption for each.
    """
    pictures = [_fit(to_rgb(image), cell_px) for image in images]
    if not pictures or (captions is not None and len(captions) != len(pictures)):
        raise DataError(
            f"{len(pictures)} images and {len(captions or ())} captions for a contact sheet; at "
            "least one image and a caption for each (or none at all) are needed."
        )
    font = ImageFont.load_default(_CAPTION_PX)
    columns = min(columns, len(pictures))
    cell_height = max(picture.height for picture in pictures)
    height = cell_height + (_CAPTION_PX + 8 if captions is not None else 0)
    rows = -(-len(pictures) // columns)
    step_x, step_y = cell_px + _GAP_PX, height + _GAP_PX
    size = (columns * step_x + _GAP_PX, rows * step_y + _GAP_PX)
    sheet = Image.new("RGB", size, (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for position, picture in enumerate(pictures):
        left = _GAP_PX + position % columns * step_x
        top = _GAP_PX + position // columns * step_y
        sheet.paste(
            picture,
            (left + (cell_px - picture.width) // 2, top + (cell_height - picture.height) // 2),
        )
        if captions is not None:
            text = _shorten(captions[position], font, cell_px)
            draw.text((left + 2, top + cell_height + 2), text, fill=(225, 225, 225), font=font)
    return np.asarray(sheet)


def _fit(picture: UInt8[np.ndarray, "H W 3"], side: int) -> Image.Image:
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Enlarged pixels stay visible as pixels; shrinking must not skip any.
    kind = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return Image.fromarray(picture).resize(size, kind)


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cut a caption so that it stays inside its cell."""
    text = " ".join(text.split())
    if font.getlength(text) <= width - 4:
        return text
    while text and font.getlength(text + "…") > width - 4:
        text = text[:-1]
    return text + "…"


def to_rgb(
    image: Float[np.ndarray, "H W ..."] | UInt8[np.ndarray, "H W ..."],
) -> UInt8[np.ndarray, "H W 3"]:
    """Return an image as uint8 colour; NaN becomes black.

    Args:
        image: Grey (H, W) or (H, W, 1), or colour (H, W, 3); 0 to 1, or uint8.

    Raises:
        DataError: It has another shape, or whole numbers other than uint8 (whose range is not
            known).
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise DataError(f"A picture of shape {image.shape}; (H, W) or (H, W, 3) is needed.")
    if image.dtype.kind == "f":
        clean = np.nan_to_num(np.clip(image.astype(np.float32), 0, 1))
        image = np.rint(clean * 255).astype(np.uint8)
    elif image.dtype == bool:
        image = image.astype(np.uint8) * np.uint8(255)
    elif image.dtype != np.uint8:
        raise DataError(
            f"A picture of {image.dtype} values; numbers from 0 to 1 or uint8 are needed."
        )
    return np.broadcast_to(image, (*image.shape[:2], 3))


def png_bytes(picture: UInt8[np.ndarray, "H W ..."]) -> bytes:
    """Return a picture, grey or colour, as the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(path: Path, picture: UInt8[np.ndarray, "H W ..."]) -> None:
    """Write a picture as PNG; readers see the old file or the new one, never a half."""
    write_bytes(path, png_bytes(picture))
