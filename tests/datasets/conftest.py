"""Small data sets on disk, in every layout, for the tests of this folder."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteTree = Callable[[dict[str, str | bytes]], Path]


@pytest.fixture(scope="session")
def jpeg_bytes() -> bytes:
    """A grey JPEG of 8x8 pixels."""
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 128, dtype=np.uint8)).save(stream, format="JPEG")
    return stream.getvalue()


@pytest.fixture
def write_tree(tmp_path: Path, jpeg_bytes: bytes) -> WriteTree:
    """Writes {name: content} below a folder and returns it; the content "" of an image's name is a JPEG."""

    def write(tree: dict[str, str | bytes]) -> Path:
        root = tmp_path / "data"
        root.mkdir(exist_ok=True)
        for name, content in tree.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content == "" and not name.endswith((".txt", ".csv", ".jsonl")):
                content = jpeg_bytes
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return write
