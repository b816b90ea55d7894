"""The files of one feature cache. A directory holds any number of caches, each a folder:

    nano-patches-1f0c9a1be7d2/    encoder's name, output, and a hash of everything that changes a value
      cache.json                  that everything, to read
      features.bin                rows, one an image: (V, F) or (V, N, F), V views, the first one plain
      index.jsonl                 a line a row, written after it: {"sha256": ...} of the image's bytes
      lock                        held while a process writes; the system frees it when that process dies

A row counts once the index names it, so a killed extraction loses at most a batch and goes on where it was.
"""

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch

from pixtell.errors import FeatureCacheError, StorageError
from pixtell.files import read_json, write_json


class FeatureStore:
    """The folder of one cache. Reading needs no lock; `begin_writing` takes it until the `with` block ends.

    rows: digest -> row, of all rows that are whole.
    """

    def __init__(
        self, path: Path, *, settings: Mapping[str, Any], row_shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        self.path = path
        self.rows: dict[str, int] = {}
        self._settings = settings
        self._row_shape = row_shape
        self._row_bytes = math.prod(row_shape) * dtype.itemsize
        self._dtype = dtype
        self._data_path, self._index_path = path / "features.bin", path / "index.jsonl"
        self._files = contextlib.ExitStack()
        self._data: IO[bytes] | None = None
        self._index: IO[bytes] | None = None
        if path.exists():
            self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # `append` has synced or has raised: what is left is no row
            self._files.close()
        self._data = self._index = None

    def begin_writing(self) -> None:
        """Take the lock, read what others wrote since, and cut off what the index does not vouch for."""
        if self._data is not None:
            return
        with self._storage_errors():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._files.enter_context((self.path / "lock").open("a+"))
            _take_lock(lock, self.path)
            if not (self.path / "cache.json").exists():
                write_json(self.path / "cache.json", self._settings)
            index_bytes = self._read()
            data = self._files.enter_context(self._data_path.open("ab"))
            index = self._files.enter_context(self._index_path.open("ab"))
            data.truncate(len(self.rows) * self._row_bytes)
            index.truncate(index_bytes)
        self._data, self._index = data, index

    def append(self, digests: Sequence[str], features: torch.Tensor) -> None:
        """Write a batch, (B, V, F) or (B, V, N, F): rows and, once they are on disk, index lines."""
        assert self._data is not None
        assert self._index is not None
        assert features.shape[1:] == self._row_shape, "the encoder's feature_shape is not what it gives"
        stored = features.to(self._dtype).contiguous()
        if not torch.isfinite(stored).all():
            name, kind = self._settings["encoder"], self._settings["dtype"]
            raise FeatureCacheError(
                f"the encoder {name} gives values not finite in {kind}; store float32 or check its weights."
            )
        with self._storage_errors():
            self._data.write(stored.view(torch.uint8).numpy().tobytes())
            _sync(self._data)
            self._index.write(b"".join(json.dumps({"sha256": digest}).encode() + b"\n" for digest in digests))
            _sync(self._index)
        for digest in digests:
            self.rows[digest] = len(self.rows)

    def map_features(self) -> torch.Tensor:
        """All whole rows, (rows, V, F) or (rows, V, N, F), memory-mapped."""
        shape = (len(self.rows), *self._row_shape)
        if not self.rows:
            return torch.empty(shape, dtype=self._dtype)
        flat = torch.from_file(str(self._data_path), shared=False, size=math.prod(shape), dtype=self._dtype)
        return flat.view(shape)

    def _read(self) -> int:
        """Fill `rows` from the index; gives the bytes of its whole lines. A torn last line is left out."""
        if (self.path / "cache.json").exists():
            found = read_json(self.path / "cache.json", FeatureCacheError)
            if found != self._settings:
                raise FeatureCacheError(
                    f"{self.path} is the cache of another encoder; use another directory."
                )
        try:
            lines = self._index_path.read_bytes().split(b"\n")[:-1]
            data_bytes = self._data_path.stat().st_size
        except FileNotFoundError:
            lines, data_bytes = [], 0
        except OSError as cause:
            raise FeatureCacheError(f"{self.path} cannot be read ({cause.strerror}); check it.") from cause
        digests = [_digest_of(line) for line in lines]
        if None in digests or len(set(digests)) != len(digests):
            raise FeatureCacheError(f"{self._index_path} is damaged; delete {self.path} to extract again.")
        if data_bytes < len(lines) * self._row_bytes:
            raise FeatureCacheError(
                f"{self._data_path} is cut short: {data_bytes:,} bytes for {len(lines):,} images; "
                f"delete {self.path} to extract again."
            )
        self.rows = {str(digest): row for row, digest in enumerate(digests)}
        return sum(len(line) + 1 for line in lines)

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            raise StorageError(
                f"{self.path} cannot be written ({cause.strerror or cause}); what is whole stays: "
                "free space or name another place, and run again to go on."
            ) from cause


def _digest_of(line: bytes) -> str | None:
    """The digest in an index line, or None where it is no such line."""
    try:
        digest = json.loads(line)["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def _take_lock(lock: IO[str], path: Path) -> None:
    """The system holds the lock for this open file and frees it when the process ends, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        raise FeatureCacheError(
            f"{path} is being written by {holder}; wait until it is done, or use another directory."
        ) from cause
    lock.truncate(0)
    lock.write(f"process {os.getpid()}")
    lock.flush()


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
