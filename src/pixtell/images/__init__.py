"""Image bytes, paths, arrays or Pillow images -> image (np.uint8, (H, W, 3), RGB) -> pixels.

    reading.py      any source -> image; the only place that reads pictures
    jpeg.py         JPEG bytes -> image without Pillow; EXIF orientation
    preprocess.py   image -> the pixels an encoder wants
    loading.py      many sources -> resized images, in order, on threads
    thumbnails.py   many sources -> small WebP files, for pages

It knows no encoder, data set or feature. Pillow is imported only for what simplejpeg cannot do.
"""

from pixtell.images.loading import load_images, map_in_order
from pixtell.images.preprocess import Preprocess
from pixtell.images.reading import MAX_IMAGE_PIXELS, ImageSource, load_image, read_image_bytes
from pixtell.images.thumbnails import make_thumbnails

__all__ = [
    "MAX_IMAGE_PIXELS",
    "ImageSource",
    "Preprocess",
    "load_image",
    "load_images",
    "make_thumbnails",
    "map_in_order",
    "read_image_bytes",
]
