"""A checkpoint -> a directory of ONNX graphs, and that directory -> what a Captioner is made of.

In: any model that `load_checkpoint` takes. Out: `image.onnx`, `language.onnx` and `encoder.onnx`, each with
its weights in a `.data` file, the tokenizer's files and a `config.json` whose `engine` says how to run them.
It needs nothing of the checkpoint afterwards, the encoder included.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pixtell.checkpoints import WEIGHTS, CheckpointConfig, load_checkpoint, read_config, write_config
from pixtell.engines.onnx import (
    DECODER_GRAPHS,
    ENCODER_GRAPH,
    OnnxDecoder,
    OnnxEncoder,
    load_decoder,
    open_session,
)
from pixtell.errors import CheckpointError, OptionError, PixtellError
from pixtell.files import atomic_directory
from pixtell.images import Preprocess
from pixtell.tokenizers import Tokenizer, load_tokenizer

_GRAPHS = (*DECODER_GRAPHS, ENCODER_GRAPH)


def export_checkpoint(
    source: str | Path,
    directory: Path,
    *,
    dtype: str = "fp32",
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Write the model `source` as ONNX graphs into `directory`, whole or not at all.

    dtype: fp32, which gives the same captions, or int8, whose matrix products have 7-bit weights.
    Raises: OptionError for another dtype, a directory that holds something else, or without the package onnx;
    CheckpointError for what is no model, or one that no graph can hold.
    """
    from pixtell.engines.onnx_export import check_installed, write_decoder, write_encoder

    check_installed(dtype)
    _check_replaceable(directory)
    checkpoint = load_checkpoint(source)
    encoder, functions = checkpoint.encoder, checkpoint.model.tensor_functions()
    assert isinstance(encoder, torch.nn.Module)
    size = encoder.preprocess.size
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((2, *encoder.feature_shape), generator=generator)
    pixels = torch.randn((2, 3, size, size), generator=generator)
    engine: dict[str, Any] = {
        "name": "onnx",
        "dtype": dtype,
        "max_positions": functions.max_positions,
        "encoder": {
            "name": encoder.name,
            "output": encoder.output,
            "preprocess": encoder.preprocess.to_json(),
            "fingerprint": encoder.fingerprint,
        },
    }
    with atomic_directory(directory) as temporary:
        report("the model, as a graph of features and one of words")
        write_decoder(
            temporary, image=functions.image, language=functions.language, features=features, dtype=dtype
        )
        report("the encoder")
        write_encoder(temporary, encoder=encoder, pixels=pixels, dtype=dtype)
        checkpoint.tokenizer.save(temporary)
        engine["files"] = sorted(path.name for path in temporary.iterdir() if ".onnx" in path.name)
        spec = checkpoint.config.encoder.located(checkpoint.directory)
        if checkpoint.directory.parent == WEIGHTS:  # what ships has a name, wherever the package lies
            spec = replace(spec, path=None, name=encoder.name)
        write_config(temporary, replace(checkpoint.config, encoder=spec, engine=engine))


def load_exported(directory: Path, config: CheckpointConfig) -> tuple[OnnxEncoder, OnnxDecoder, Tokenizer]:
    """What `export_checkpoint` wrote; config: of that directory.

    Raises: CheckpointError where it is damaged, its parts do not fit, or ONNX Runtime is not installed.
    """
    engine = config.engine or {}
    try:
        stored = dict(engine["encoder"])
        preprocess = Preprocess.from_json(stored["preprocess"])
        positions = engine["max_positions"]
        described = {name: str(stored[name]) for name in ("name", "output", "fingerprint")}
        fingerprint = f"onnx {engine['dtype']} {described.pop('fingerprint')}"
    except (KeyError, TypeError, ValueError, PixtellError) as cause:
        raise CheckpointError(
            f"{directory / 'config.json'} lacks or garbles a field of its engine ({cause}); export it again."
        ) from cause
    model = load_decoder(directory, max_positions=None if positions is None else int(positions))
    tokenizer = load_tokenizer(directory, config.tokenizer)
    if tokenizer.vocab_size != model.vocab_size:
        raise CheckpointError(
            f"{directory} has a tokenizer of {tokenizer.vocab_size:,} tokens and a model of "
            f"{model.vocab_size:,}; export it again."
        )
    session = open_session(directory / ENCODER_GRAPH)
    encoder = OnnxEncoder(session=session, preprocess=preprocess, fingerprint=fingerprint, **described)
    if encoder.feature_shape != model.feature_shape:
        raise CheckpointError(
            f"{directory} has an encoder that gives {encoder.feature_shape} and a model that takes "
            f"{model.feature_shape}; export it again."
        )
    return encoder, model, tokenizer


def _check_replaceable(directory: Path) -> None:
    """Raises: OptionError where the export would take the place of anything but an earlier export."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    try:
        exported = directory.is_dir() and read_config(directory).engine is not None
    except PixtellError:
        exported = False
    if not exported:
        raise OptionError(f"--output {directory} is there and is no exported model; name a new directory.")
