#!/usr/bin/env python3
"""Make a folder of photos small enough to send to a lent machine: ``pack_photos.py FROM TO``.

Photos are reduced and saved as JPEG with full chroma under their own names, so that the same ones
are held out as in the original folder. Trainings reduce them further at random, which hides most
of what this loses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
from patches import list_photos, read_photo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, metavar="FROM", help="folder of photos")
    parser.add_argument("target", type=Path, metavar="TO", help="folder to write")
    parser.add_argument("--side", type=int, default=1280, help="longest side (default 1280)")
    parser.add_argument("--quality", type=int, default=88, help="of the JPEG files (default 88)")
    arguments = parser.parse_args()
    settings = [
        *(cv2.IMWRITE_JPEG_QUALITY, arguments.quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        *(cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    ]
    arguments.target.mkdir(parents=True, exist_ok=True)
    size = 0
    for path in list_photos(arguments.source):
        photo = read_photo(path, least=1)
        scale = min(1.0, arguments.side / max(photo.shape[:2]))
        small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        target = arguments.target / f"{path.stem}.jpg"
        if not cv2.imwrite(str(target), cv2.cvtColor(small, cv2.COLOR_RGB2BGR), settings):
            raise SystemExit(f"{target}: could not be written")
        size += target.stat().st_size
    print(f"{arguments.target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
