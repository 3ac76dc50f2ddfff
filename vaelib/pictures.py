"""A picture file -> a square face, whatever is odd about the file."""

import io
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow knows more, some of which start other programs
PNG = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
MAX_PIXELS = 64_000_000  # of one picture: decoded, they take 256 MB


def open_picture(content: bytes) -> Image.Image:
    """A picture file of one of `FORMATS`, not loaded yet. `UnidentifiedImageError` for anything else.

    What stands beside the pixels of a PNG, such as texts and profiles, is left out where it can't be read.
    """
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (ValueError, OSError, SyntaxError) as error:
        if not content.startswith(PNG):
            raise
        with suppress(Exception):
            return Image.open(io.BytesIO(_without_metadata(content)), formats=FORMATS)
        raise error


def _without_metadata(png: bytes) -> bytes:
    """A PNG file's chunks that Pillow needs for the pixels."""
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] in PIXEL_CHUNKS:
            kept.append(png[at:end])
        at = end
    return b"".join(kept)


def to_face(image: Image.Image, size: int, crop: float = 1.0) -> Image.Image:
    """The middle square of `image` times `crop`, as RGB on white, `size`×`size`.

    A JPEG that is much larger is decoded at 1/2, 1/4 or 1/8, with at least 1.3 times the pixels that Lanczos has to
    deliver: 500×500 cartoons at 1/4. So an `image` that is not loaded yet changes. Raises `ValueError` where more than
    64 million pixels would have to be decoded.
    """
    needed = 1.3 * size / crop / min(image.size)
    image.draft(None, (int(image.width * needed), int(image.height * needed)))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width:,}×{image.height:,} pixels, more than {MAX_PIXELS:,} in all")
    image.load()
    with suppress(Exception):  # metadata that can't be read turn nothing, and cost no picture
        ImageOps.exif_transpose(image, in_place=True)
    if not isinstance(image.info.get("transparency", b""), int | bytes | tuple):
        del image.info["transparency"]  # a text of that name
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError("32 bits a pixel, of which nobody knows what is white")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size == (size, size) and crop == 1:
        return image
    width, height = image.size
    half = min(width, height) * crop / 2
    box = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)
