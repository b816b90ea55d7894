"""Prints the paths of real photos that scikit-image carries inside its package, for `make demo`.

Out: one line, paths relative to the working directory where that is shorter. Nothing is imported or
downloaded; photos that scikit-image would have to fetch first, drawings and textures are not in the list.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

PHOTOS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


def find_photos() -> list[Path]:
    """The sample photos that are on disk; empty where scikit-image is not installed."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        return []
    data_dir = Path(package.origin).parent / "data"
    return [data_dir / name for name in PHOTOS if (data_dir / name).is_file()]


def main() -> None:
    photos = find_photos()
    if not photos:
        sys.exit(
            "scikit-image's photos are not installed: name your own, as in 'make demo PHOTOS=photo.jpg'."
        )
    # Relative paths keep a clone in a folder whose name has spaces whole: make's shell splits at spaces.
    print(*(min(str(photo), os.path.relpath(photo), key=len) for photo in photos))


if __name__ == "__main__":
    main()
