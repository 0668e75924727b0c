"""Pixels are right whatever the file's format, or the file is refused."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib

import layouts
import numpy as np
import pytest
from PIL import ExifTags, Image

from facegen.data.decode import BadImage, Picture, crop_box, decode


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def coordinates(width: int, height: int) -> np.ndarray:
    """A picture whose red is x and whose green is y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2).clip(1e-9))


@pytest.mark.parametrize(
    ("crop", "left", "top", "side"),
    [
        ("d2c", 25, 57, 128),
        ("center108", 35, 55, 108),
        ("center140", 19, 39, 140),
        ("center148", 15, 35, 148),
        ("center178", 0, 20, 178),
    ],
)
def test_celeba_crops_are_exact_to_the_pixel(crop, left, top, side):
    pixels = decode(encoded(Image.fromarray(coordinates(178, 218))), Picture(side, 3, crop))
    assert np.array_equal(pixels, coordinates(178, 218)[top : top + side, left : left + side].transpose(2, 0, 1))


def test_d2c_is_centred_at_x_89_y_121():
    left, top, right, bottom = crop_box("d2c", 178, 218)
    assert ((left + right) / 2, (top + bottom) / 2) == (89, 121)


def test_squash_takes_all_of_the_picture_and_center_a_square():
    ramp = encoded(Image.fromarray(coordinates(178, 218)))
    squashed, centred = (decode(ramp, Picture(64, 3, crop)).astype(int) for crop in ("squash", "center"))
    assert (squashed[0, 0, 0], squashed[0, 0, -1], squashed[1, 0, 0], squashed[1, -1, 0]) == pytest.approx((1, 176, 1, 216), abs=1)
    assert (centred[0, 0, 0], centred[0, 0, -1], centred[1, 0, 0], centred[1, -1, 0]) == pytest.approx((1, 176, 21, 196), abs=1)


@pytest.mark.parametrize(
    ("crop", "size", "resolution"),
    [("center148", (200, 200), 32), ("square", (40, 41), 32), ("center", (31, 40), 32), ("d2c", (178, 218), 129)],
)
def test_a_picture_of_the_wrong_size_is_refused(crop, size, resolution):
    with pytest.raises(BadImage) as error:
        decode(encoded(layouts.picture(0, size)), Picture(resolution, 3, crop))
    assert error.value.kind == "mis-sized"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_rotation_is_honoured_before_the_crop(orientation, form):
    upright = layouts.picture(3, (160, 320))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the turn of Pillow that the orientation asks to undo
    stored = upright.transpose(Image.Transpose(turn[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = decode(encoded(stored, form, exif=exif), Picture(40, 3, "center"))
    assert psnr(pixels, decode(encoded(upright), Picture(40, 3, "center"))) > 35


def test_jpegs_are_shrunk_while_decoded_without_harm():
    image = Image.open(io.BytesIO(encoded(layouts.picture(1, (178, 218)), "JPEG", quality=92)))
    for resolution in (16, 32, 64, 100):
        fast = decode(encoded(image, "JPEG", quality=92), Picture(resolution, 3, "center148"))
        again = Image.open(io.BytesIO(encoded(image, "JPEG", quality=92)))
        slow = again.resize((resolution, resolution), Image.Resampling.LANCZOS, box=(15, 35, 163, 183))
        assert psnr(fast, np.asarray(slow).transpose(2, 0, 1)) > 38


def test_sixteen_bits_are_scaled_to_eight():
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(values)), Picture(16, 1))
    assert np.array_equal(pixels[0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("pixels", [np.ones((16, 16), np.float32), np.ones((16, 16), np.int32)])
def test_pixels_of_unknown_range_are_refused(pixels):
    with pytest.raises(BadImage, match="what white is"):
        decode(encoded(Image.fromarray(pixels), "TIFF"), Picture(16, 3))


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG")]
)
def test_every_mode_becomes_the_colours_it_shows(mode, form):
    image = layouts.picture(2, (16, 16)).convert(mode)
    pixels = decode(encoded(image, form), Picture(16, 3))
    assert psnr(pixels, np.asarray(image.convert("RGB")).transpose(2, 0, 1)) > 30
    grey = decode(encoded(image, form), Picture(16, 1))
    assert psnr(grey, np.asarray(image.convert("RGB").convert("L"))[None]) > 30


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    if mode == "P":
        image = Image.new("P", (8, 8), 0)
        image.putpalette([10, 20, 30, 200, 0, 0])
        image.paste(1, (0, 0, 8, 4))
        data = encoded(image, transparency=0)
        seen = (200, 0, 0)
    else:
        image = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
        image.paste((200, 200, 200, 255), (0, 0, 8, 4))
        data = encoded(image.convert(mode))
        seen = (200, 200, 200)
    pixels = decode(data, Picture(8, 3))
    assert (tuple(pixels[:, 0, 0]), tuple(pixels[:, 7, 7])) == (seen, (255, 255, 255))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_is_corrupt(form):
    whole = encoded(layouts.picture(4, (64, 64)), form)
    for data in (whole[: len(whole) * 2 // 3], whole[:10], b""):
        with pytest.raises(BadImage) as error:
            decode(data, Picture(16, 3))
        assert error.value.kind == "corrupt"
        assert "0x" not in str(error.value)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_png_may_tell_its_rotation_after_its_pixels():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    sideways = layouts.picture(3, (32, 16))
    early, plain = encoded(sideways, exif=exif), encoded(sideways)
    (told,) = set(re.findall(rb"(?s).{4}eXIf.*?(?=.{4}IDAT)", early))
    end = plain.rindex(b"IEND") - 4
    late = plain[:end] + told + plain[end:]
    picture = Picture(16, 3, "center")
    assert np.array_equal(decode(late, picture), decode(early, picture))
    assert not np.array_equal(decode(late, picture), decode(plain, picture))


@pytest.mark.parametrize("side", [9_000, 20_000])
@pytest.mark.filterwarnings("error")
def test_a_huge_picture_is_refused_by_its_header_alone(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"none") + chunk(b"IEND", b"")
    with pytest.raises(BadImage, match="million pixels"):
        decode(data, Picture(16, 3))
