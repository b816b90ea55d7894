"""Many image sources -> resized images, uint8 (3, S, S), in order, on threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Literal, TypeVar, overload

import torch

from pixtell.errors import ImageError
from pixtell.images.preprocess import Preprocess
from pixtell.images.reading import ImageSource, load_image

Item = TypeVar("Item")
Result = TypeVar("Result")


@overload
def load_images(
    sources: Iterable[ImageSource],
    preprocess: Preprocess,
    *,
    threads: int | None = None,
    ahead: int = 0,
    on_error: Literal["raise"] = "raise",
) -> Iterator[torch.Tensor]: ...
@overload
def load_images(
    sources: Iterable[ImageSource],
    preprocess: Preprocess,
    *,
    threads: int | None = None,
    ahead: int = 0,
    on_error: Literal["raise", "return"],
) -> Iterator[torch.Tensor | ImageError]: ...
def load_images(
    sources: Iterable[ImageSource],
    preprocess: Preprocess,
    *,
    threads: int | None = None,
    ahead: int = 0,
    on_error: Literal["raise", "return"] = "raise",
) -> Iterator[torch.Tensor | ImageError]:
    """Load and resize many images on threads: yields uint8 (3, S, S) in the order of `sources`.

    threads: None takes one per usable core, 8 at most. `sources` is read as it is needed, four images a
    thread or `ahead` images ahead, whichever is more, and no further: who takes batches wants the next one
    whole by the time the last is done. A single image is loaded on the calling thread. If the consumer stops,
    the threads end.

    Raises: ImageError in the place of a bad image; with on_error="return" it is yielded there instead.
    """

    def load(source: ImageSource) -> torch.Tensor | ImageError:
        try:
            return preprocess.resize_image(load_image(source))  # (3, S, S)
        except ImageError as error:
            if on_error == "raise":
                raise
            return error

    return map_in_order(load, sources, threads=threads, ahead=ahead)


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int | None = None,
    ahead: int = 0,
) -> Iterator[Result]:
    """Yield function(item) in the order of `items`, computed on threads; `load_images` in general.

    threads, ahead, a single item, an early stop: as `load_images` says. An exception comes in its place.
    """
    num_threads = min(8, _usable_cores()) if threads is None else threads
    remaining = iter(items)
    first = list(islice(remaining, 2))
    if len(first) < 2 or num_threads <= 1:
        yield from map(function, chain(first, remaining))
        return
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="pixtell-images")
    pending: deque[Future[Result]] = deque()
    try:
        for item in chain(first, remaining):
            pending.append(executor.submit(function, item))
            if len(pending) > max(4 * num_threads, ahead):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
