"""AVIF: colours of 8 bit by Pillow, whose resolution stays full (4:4:4); by OpenCV what Pillow does
not encode in all its versions: gray, 10 and 12 bit, and without loss, which is quality 100.
"""

from __future__ import annotations

import cv2

from restormer_cli.errors import ImageError
from restormer_cli.images.formats import Encoding
from restormer_cli.images.formats.opencv import encode_by_opencv
from restormer_cli.images.formats.pillow import encode_by_pillow
from restormer_cli.images.metadata import exif
from restormer_cli.images.metadata.by_pillow import COLORS
from restormer_cli.images.picture import Picture

#: Three times as quick as Pillow's usual 6, for files that are 3 % larger.
SPEED = 8


def encode(picture: Picture, encoding: Encoding) -> bytes:
    metadata = picture.metadata
    # Pillow takes an orientation out of EXIF and moves the rest; what is upright needs none.
    camera = None if metadata.exif is None else exif.without_orientation(metadata.exif)
    if encoding.bits == 8 and encoding.quality != 100 and picture.mode != "L":
        avif = encode_by_pillow(
            "AVIF",
            picture,
            quality=encoding.quality,
            speed=SPEED,
            subsampling="4:4:4",
            exif=camera,
            xmp=metadata.xmp,
        )
    elif not cv2.haveImageWriter(".avif"):
        raise ImageError("the OpenCV of this machine does not; choose another --format")
    else:
        parameters = [cv2.IMWRITE_AVIF_DEPTH, encoding.bits, cv2.IMWRITE_AVIF_SPEED, SPEED]
        parameters += [cv2.IMWRITE_AVIF_QUALITY, encoding.quality or 100]
        kinds = {
            cv2.IMAGE_METADATA_EXIF: camera,
            cv2.IMAGE_METADATA_XMP: metadata.xmp,
            cv2.IMAGE_METADATA_ICCP: metadata.icc,
        }
        avif = bytes(encode_by_opencv(".avif", picture, parameters, kinds))
    for name, body in metadata.color:
        # No library writes it beside EXIF. All say sRGB, in boxes of the same size.
        if name == b"cICP" and (box := COLORS.search(avif)):
            said = box[0][:-3] + body[:1] + b"\0" + body[1:2]
            avif = avif[: box.start()] + said + avif[box.end() :]
    return avif
