"""Torch modules -> ONNX graphs on disk.

In: modules that are functions of tensors alone, and inputs to trace them with. Out: `NAME.onnx`, its weights
beside it in `NAME.onnx.data`, found equal to the module on other numbers of rows and positions before it is
kept. It knows no families: which axes of a state grow is found out by looking.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from pixtell.engines.onnx import DECODER_GRAPHS, ENCODER_GRAPH, open_session, run_session
from pixtell.errors import CheckpointError, OptionError

ONNX_DTYPES = ("fp32", "int8")
_OPSET = 20  # the tracing exporter's last; from it on GPT-2's gelu is one operator
_TOLERANCE = 1e-3  # of the largest number; what differs more is no rounding
_QUANTISED = ["MatMul", "Gemm"]  # convolutions and LSTMs are no faster in int8

Axes = Mapping[str, Mapping[int, str]]  # input or output -> axis -> name of a size that varies


def check_installed(dtype: str) -> None:
    """Find out before a long job whether a model can be exported as `dtype`.

    Raises: OptionError for an unknown dtype, or where a package is missing.
    """
    if dtype not in ONNX_DTYPES:
        raise OptionError(f"--dtype {dtype!r} is unknown to ONNX; choose one of {', '.join(ONNX_DTYPES)}.")
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise OptionError(f"--format onnx needs {' and '.join(missing)}: run pip install 'pixtell[onnx]'.")


@torch.no_grad()
def write_decoder(
    directory: Path, *, image: nn.Module, language: nn.Module, features: Tensor, dtype: str
) -> None:
    """The two graphs of a model; image and language: as in `models.base.TensorFunctions`.

    features: of two images, any numbers in the model's shape. dtype: one of ONNX_DTYPES.
    Raises: CheckpointError where a graph does not compute what its module does.
    """
    prefix, *state = image(features)  # (B, P, D)
    no_tokens = torch.zeros((len(features), 0), dtype=torch.long)
    logits, *read = language(prefix, no_tokens, *state)
    token_ids = logits.argmax(-1)[:, None]  # (B, 1)
    names = [f"state.{number}" for number in range(len(state))]
    grown = [_grown_axes(before, after) for before, after in zip(state, read, strict=True)]
    begun = {name: _name_axes(found, "past") for name, found in zip(names, grown, strict=True)}
    gone_on = {f"new_{name}": _name_axes(found, "present") for name, found in zip(names, grown, strict=True)}
    image_graph, language_graph = DECODER_GRAPHS
    axes: Axes = {"features": {0: "B"}, "prefix": {0: "B"}, **{name: {0: "B"} for name in names}}
    _write_graph(directory / image_graph, image, [(features,)], ["prefix", *names], axes, dtype)
    axes = {
        "prefix": {0: "B", 1: "P"},
        "token_ids": {0: "B", 1: "T"},
        **begun,
        "logits": {0: "B"},
        **gone_on,
    }
    examples = [
        (prefix, token_ids, *read),  # both at once: nothing in the trace depends on which is empty
        (prefix, no_tokens, *state),
        (prefix[:, :0], token_ids, *read),
    ]
    _write_graph(directory / language_graph, language, examples, ["logits", *gone_on], axes, dtype)


@torch.no_grad()
def write_encoder(directory: Path, *, encoder: nn.Module, pixels: Tensor, dtype: str) -> None:
    """The graph of an encoder; pixels: of two images (2, 3, S, S), any numbers.

    Raises: CheckpointError where the graph does not compute what the encoder does.
    """
    axes = {"pixels": {0: "B"}, "features": {0: "B"}}
    _write_graph(directory / ENCODER_GRAPH, encoder, [(pixels,)], ["features"], axes, dtype)


def _grown_axes(before: Tensor, after: Tensor) -> list[int]:
    """The axes that reading made longer."""
    return [axis for axis in range(before.dim()) if before.shape[axis] != after.shape[axis]]


def _name_axes(longer: list[int], name: str) -> dict[int, str]:
    """The axes of a state that vary: rows, and those that grow."""
    return {0: "B", **dict.fromkeys(longer, name)}


def _write_graph(
    path: Path,
    module: nn.Module,
    examples: Sequence[tuple[Tensor, ...]],
    outputs: list[str],
    axes: Axes,
    dtype: str,
) -> None:
    """examples: inputs of the module; the first are traced, all compared. axes: inputs first, in order."""
    module.eval()  # the parts are, the whole around them may not be: the exporter would put all into one mode
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        graph = Path(folder) / path.name
        _trace(graph, module, examples[0], outputs, axes)
        shapes = _compare(graph, module, examples)
        if dtype == "int8":
            graph = _quantise(graph)
        _save(graph, path, shapes, axes)


def _trace(
    graph: Path, module: nn.Module, inputs: tuple[Tensor, ...], outputs: list[str], axes: Axes
) -> None:
    try:
        with _quiet(), _silent_stdout(), _plain_kernels():
            torch.onnx.export(
                module,
                inputs,
                str(graph),
                input_names=[name for name in axes if name not in outputs],
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,  # the newer exporter needs more packages and fixes sizes that it saw once
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as cause:
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".:")
        raise CheckpointError(
            f"The {graph.stem} part of this model cannot be an ONNX graph ({reason}): use the model as it is."
        ) from cause


def _compare(graph: Path, module: nn.Module, examples: Sequence[tuple[Tensor, ...]]) -> dict[str, torch.Size]:
    """Run both on the first row of the examples: what the trace saw of their number must not have stayed in
    it. Returns: the shapes of the last outputs."""
    session = open_session(graph)
    for example in examples:
        inputs = [tensor[:1] for tensor in example]
        expected = module(*inputs)
        expected = (expected,) if isinstance(expected, Tensor) else expected
        for found, wanted in zip(run_session(session, *inputs), expected, strict=True):
            largest = float(wanted.abs().max()) if wanted.numel() else 1.0
            if found.shape != wanted.shape or not torch.allclose(
                found, wanted, atol=_TOLERANCE * largest, rtol=0
            ):
                raise CheckpointError(
                    f"The {graph.stem} part of this model computes something else as an ONNX graph than in "
                    "torch: use the model as it is."
                )
    return {node.name: part.shape for node, part in zip(session.get_outputs(), expected, strict=True)}


def _quantise(graph: Path) -> Path:
    """Weights of matrix products as int8, one scale a column; what meets them is quantised as it comes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = graph.with_name(f"int8-{graph.name}")
    with _quiet():
        quantize_dynamic(
            str(graph),
            str(quantised),
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            reduce_range=True,  # 7 bits: two products of 8 overflow 16 bits on CPUs without VNNI
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
    return quantised


def _save(graph: Path, path: Path, shapes: Mapping[str, torch.Size], axes: Axes) -> None:
    """The graph at `path`, its outputs with their shapes, all weights in one file beside it, which the
    runtime maps into memory."""
    import onnx

    model = onnx.load(str(graph))
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
        for axis, size in enumerate(shapes[output.name]):
            named = axes[output.name].get(axis)
            dimension = output.type.tensor_type.shape.dim.add()
            if named is None:
                dimension.dim_value = size
            else:
                dimension.dim_param = named
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
        size_threshold=1024,
    )


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """torch's transformer layers run as one fused kernel in eval mode, which no graph can hold."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """torch 2.13 prints the whole graph from C++ where an export fails, told to or not; that is past Python's
    sys.stdout, so the process's stdout leads nowhere for a while."""
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracers and quantisers warn of what `_compare` looks after, through warnings and the root logger."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
