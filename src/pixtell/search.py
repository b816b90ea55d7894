"""Text -> pictures: the pictures of folders, ranked by how near they are to a text.

In: folders, an Embedder, a text. Out: paths with their cosine. It knows neither data sets on disk nor the
command line.

Embeddings are kept on disk, a file for each folder and embedder. A picture is known again by its path, size
and time of change; new and changed ones are embedded, what is gone is forgotten. The file is written whole,
so that a kill, or two processes at once, cost work and nothing else.
"""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pixtell.datasets.reading import IMAGE_SUFFIXES, holding_no_picture
from pixtell.datasets.records import CaptionedImage
from pixtell.embedder import Embedder, Embeddings
from pixtell.errors import EncoderError, ImageError, OptionError
from pixtell.files import atomic_path, check_writable
from pixtell.metrics.retrieval import Retrieval, score_retrieval, unit_vectors

_FORMAT = "1"
_SUFFIXES = frozenset(IMAGE_SUFFIXES)
_USUAL = frozenset(suffix for suffix in IMAGE_SUFFIXES if len(suffix) == 4)  # found without a search
_SAVE_SECONDS = 60.0  # between savings, while many pictures are embedded

OnProgress = Callable[[int, int], None]
# name relative to the folder, size in bytes, time of the last change in nanoseconds
_Picture: TypeAlias = tuple[str, int, int]
# the same of many: the names' bytes with a zero between them, and a number a picture
_Columns: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]
_COLUMNS = ("names", "sizes", "times")


@dataclass(frozen=True)
class Hit:
    """A picture, and the cosine of its embedding with the text's, -1 to 1."""

    path: Path
    score: float


class PictureIndex:
    """The pictures of some folders with their embeddings, ready to be searched any number of times.

    errors: pictures that cannot be read, and folders that cannot be listed.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        embedder: Embedder,
        *,
        cache_dir: Path,
        on_progress: OnProgress = lambda done, total: None,
    ) -> None:
        """Raises: OptionError where a folder is none, or none holds a picture; EncoderError; StorageError."""
        self.embedder = embedder
        self.errors: list[ImageError] = []
        self._folders: list[tuple[Path, list[_Picture], Embeddings]] = []
        listed = [(folder, list_pictures(folder, self.errors)) for folder in _outermost(folders)]
        if not any(pictures for _, pictures in listed):
            raise holding_no_picture(folders)
        for folder, pictures in listed:
            cache = _Cache(cache_dir, folder, embedder.fingerprint)
            self._folders.append((folder, *self._embed(folder, pictures, cache, on_progress)))

    def __len__(self) -> int:
        """Pictures that can be found."""
        return sum(len(pictures) for _, pictures, _ in self._folders)

    def find(self, text: str, *, top: int = 10) -> list[Hit]:
        """The `top` pictures nearest to a text, the nearest first; of equal ones the first by path.

        Raises: OptionError for no text, or one of which the model knows no word.
        """
        check_text(text)
        find_unknown_words(text, self.embedder)
        query = unit_vectors(self.embedder.texts([text]))[0]  # (F,)
        scores = np.concatenate([embeddings @ query for _, _, embeddings in self._folders])  # (n,)
        if len(scores) == 0:  # not one picture can be read
            return []
        cut = np.partition(scores, -min(top, len(scores)))[-min(top, len(scores))]
        candidates = np.flatnonzero(scores >= cut)  # more than `top` where some are equal
        best = candidates[np.argsort(-scores[candidates], kind="stable")][:top]
        return [Hit(self._path(int(row)), float(scores[row])) for row in best]

    def _path(self, row: int) -> Path:
        for folder, pictures, _ in self._folders:
            if row < len(pictures):
                return folder / pictures[row][0]
            row -= len(pictures)
        raise AssertionError("a row past the last folder")

    def _embed(
        self, folder: Path, pictures: list[_Picture], cache: "_Cache", on_progress: OnProgress
    ) -> tuple[list[_Picture], Embeddings]:
        """The pictures of a folder that can be read, and their embeddings (n, F) of length 1."""
        columns, stored = cache.read()
        if pictures and _same(columns, _to_columns(pictures)):
            return pictures, stored
        known = _to_pictures(columns)
        row_of = {picture: row for row, picture in enumerate(known)}
        embeddings = np.zeros((len(pictures), *self.embedder.encoder.feature_shape), np.float32)  # (n, F)
        done = [row for row, picture in enumerate(pictures) if picture in row_of]
        if done:
            embeddings[done] = stored[[row_of[pictures[row]] for row in done]]
        new = [row for row, picture in enumerate(pictures) if picture not in row_of]
        if new:
            cache.check()
        saved = time.monotonic()
        results = self.embedder.stream(folder / pictures[row][0] for row in new)
        for count, (row, result) in enumerate(zip(new, results, strict=True), start=1):
            if isinstance(result, ImageError):
                self.errors.append(result)
            else:
                embeddings[row] = self._finite(result, folder / pictures[row][0])
                done.append(row)
            on_progress(count, len(new))
            if time.monotonic() - saved > _SAVE_SECONDS:
                cache.write([pictures[row] for row in done], embeddings[done])
                saved = time.monotonic()
        done.sort()
        kept = [pictures[row] for row in done]
        if kept != known:
            cache.write(kept, embeddings[done])
        return kept, embeddings[done]

    def _finite(self, embedding: Embeddings, path: Path) -> Embeddings:
        """An embedding (F,) at length 1. Raises: EncoderError where it is no numbers."""
        if not np.isfinite(embedding).all():
            raise EncoderError(
                f"{self.embedder.name} gives values that are not finite for {path}; check its weights."
            )
        unit: Embeddings = unit_vectors(embedding[None])[0]
        return unit


def check_text(text: str) -> None:
    """Raises: OptionError where there is nothing to look for."""
    if not text.strip():
        raise OptionError('The text is empty; say what to look for, such as "a dog in the snow".')


def find_unknown_words(text: str, embedder: Embedder) -> list[str]:
    """Words of a text that the model cannot tell from each other: it looks for the others.

    Raises: OptionError where there are no others.
    """
    if not embedder.text_encoder.knows(text):
        raise OptionError(
            f"The model {embedder.text_encoder.name} knows no word of {text!r}; say it in other words."
        )
    return embedder.text_encoder.unknown_words(text)


def retrieval_of(embedder: Embedder, records: Sequence[CaptionedImage]) -> Retrieval:
    """R@1, R@5 and R@10 both ways over the records of a split, each of their captions a query.

    Equal captions of different images are right for either. Raises: ImageError for an image that cannot be
    read.
    """
    rows: dict[str, int] = {}
    captions = [[rows.setdefault(text, len(rows)) for text in record.captions] for record in records]
    images = embedder.images([record.image for record in records])
    return score_retrieval(images, embedder.texts(list(rows)), captions)


def list_pictures(folder: Path, errors: list[ImageError]) -> list[_Picture]:
    """The pictures of a folder and those below, sorted by name; what is hidden and links to folders are left
    out. A folder below that cannot be listed goes to `errors`.

    Raises: OptionError where it is no folder or cannot be listed.
    """
    found: list[_Picture] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with _open_folder(folder / prefix) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        continue
                    if name[-4:] in _USUAL or name[name.rfind(".") :].lower() in _SUFFIXES:
                        try:
                            status = entry.stat()
                        except OSError:  # a link to nowhere, or gone since
                            continue
                        if stat.S_ISREG(status.st_mode):
                            found.append((prefix + name, status.st_size, status.st_mtime_ns))
                            continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{prefix}{name}/")
        except OSError as cause:
            if not prefix:
                raise OptionError(
                    f"{folder} cannot be searched ({cause.strerror}); name a folder with pictures."
                ) from cause
            errors.append(ImageError(str(folder / prefix), f"it cannot be listed ({cause.strerror})."))
    found.sort(key=itemgetter(0))  # of names alone: half the time of whole tuples
    return found


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    """A descriptor: from it, the system finds each file by its name, and need not walk the path again."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _outermost(folders: Sequence[Path]) -> list[Path]:
    """The folders without those that lie in another of them; a folder named twice comes once."""
    real = {folder: folder.resolve() for folder in folders}
    inner = [folder for folder in real if any(other in real[folder].parents for other in real.values())]
    first = {real[folder]: folder for folder in reversed(real) if folder not in inner}
    return [folder for folder in real if first.get(real[folder]) is folder]


class _Cache:
    """The embeddings of one folder by one embedder, on disk."""

    def __init__(self, directory: Path, folder: Path, fingerprint: str) -> None:
        self.metadata = {"format": _FORMAT, "folder": repr(str(folder.resolve())), "embedder": fingerprint}
        digest = hashlib.sha256(repr(sorted(self.metadata.items())).encode()).hexdigest()
        self.path = directory / "search" / f"{digest[:32]}.safetensors"

    def read(self) -> tuple[_Columns, Embeddings]:
        """What is stored; nothing where there is no such file, or it is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "numpy") as file:
                if file.metadata() != self.metadata:
                    return _nothing()
                names, sizes, times = (file.get_tensor(name) for name in _COLUMNS)
                embeddings: Embeddings = file.get_tensor("embeddings")
        except (OSError, SafetensorError):
            return _nothing()
        if not np.count_nonzero(names == 0) + 1 == len(sizes) == len(times) == len(embeddings):
            return _nothing()
        return (names, sizes, times), embeddings

    def check(self) -> None:
        """Before the long work. Raises: StorageError where nothing can be written."""
        check_writable(self.path)

    def write(self, pictures: Sequence[_Picture], embeddings: Embeddings) -> None:
        """Raises: StorageError; what was there before stays."""
        from safetensors.numpy import save_file

        if not pictures:
            self.path.unlink(missing_ok=True)
            return
        tensors: dict[str, npt.NDArray[Any]] = dict(zip(_COLUMNS, _to_columns(pictures), strict=True))
        tensors["embeddings"] = np.ascontiguousarray(embeddings)
        with atomic_path(self.path) as temporary:
            save_file(tensors, temporary, metadata=self.metadata)


def _nothing() -> tuple[_Columns, Embeddings]:
    none = np.empty(0, np.int64)
    return (np.empty(0, np.uint8), none, none), np.empty((0, 0), np.float32)


def _to_columns(pictures: Sequence[_Picture]) -> _Columns:
    """As they lie on disk; there must be one at least."""
    names, sizes, times = zip(*pictures, strict=True)
    joined = np.frombuffer(os.fsencode("\0".join(names)), np.uint8)
    return joined, np.array(sizes, np.int64), np.array(times, np.int64)


def _same(some: _Columns, others: _Columns) -> bool:
    return all(np.array_equal(some[place], others[place]) for place in range(len(_COLUMNS)))


def _to_pictures(columns: _Columns) -> list[_Picture]:
    names, sizes, times = columns
    if len(sizes) == 0:
        return []
    split = os.fsdecode(names.tobytes()).split("\0")
    return list(zip(split, sizes.tolist(), times.tolist(), strict=True))
