"""Image bytes, paths, arrays or Pillow images -> image (np.uint8, (H, W, 3), RGB) -> pixels.

    reading.py      any source -> image; the only place that reads pictures
    jpeg.py         JPEG bytes -> image without Pillow; EXIF orientation
    preprocess.py   image -> the pixels an encoder wants
    loading.py      many sources -> resized images, in order, on threads
    thumbnails.py   many sources -> small WebP files, for pages
    heatmaps.py     an image and maps over it -> a sheet to look at, PNG

It knows no encoder, data set or feature. Pillow is imported only for what simplejpeg cannot do.
"""

from pixtell.images.heatmaps import Box, Tile, draw_sheet, encode_png, overlay
from pixtell.images.loading import load_images, map_in_order
from pixtell.images.preprocess import Preprocess
from pixtell.images.reading import MAX_IMAGE_PIXELS, ImageSource, load_image, read_image_bytes
from pixtell.images.thumbnails import make_thumbnails

__all__ = [
    "MAX_IMAGE_PIXELS",
    "Box",
    "ImageSource",
    "Preprocess",
    "Tile",
    "draw_sheet",
    "encode_png",
    "load_image",
    "load_images",
    "make_thumbnails",
    "map_in_order",
    "overlay",
    "read_image_bytes",
]
