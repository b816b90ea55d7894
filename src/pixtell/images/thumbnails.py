"""Any image source -> a small WebP, for pages that carry their pictures with them."""

import io
from collections.abc import Iterable, Iterator

from pixtell.errors import ImageError
from pixtell.images.loading import map_in_order
from pixtell.images.reading import ImageSource, load_image

_QUALITY = 60  # of 100; 320 pixels of a photo are about 10 KB, and still pleasant to look at


def make_thumbnails(
    sources: Iterable[ImageSource], *, longest_side: int = 320
) -> Iterator[tuple[bytes, int, int] | ImageError]:
    """Yield (a WebP file's bytes, its width, its height) for each source, in order, made on threads; an
    image that cannot be read yields its ImageError. Small pictures are not enlarged."""

    def make(source: ImageSource) -> tuple[bytes, int, int] | ImageError:
        from PIL import Image

        try:
            image = Image.fromarray(load_image(source))
        except ImageError as error:
            return error
        image.thumbnail((longest_side, longest_side), reducing_gap=3.0)  # no side becomes 0
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=_QUALITY)
        return stream.getvalue(), image.width, image.height

    return map_in_order(make, sources)
