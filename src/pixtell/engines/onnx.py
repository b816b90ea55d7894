"""Models and encoders as ONNX graphs, run by ONNX Runtime on a CPU.

In: a directory that `onnx_export.py` filled. Out: a CaptionDecoder and an Encoder like torch's. Tensors are
handed over without a copy, both ways. It knows no families: what a state holds, the graphs say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pixtell.errors import CheckpointError, ModelError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

DECODER_GRAPHS = ("image.onnx", "language.onnx")
ENCODER_GRAPH = "encoder.onnx"


@dataclass(frozen=True)
class OnnxState:
    """What decoding carries: the graphs' state, rows first, and how many positions were read."""

    tensors: tuple[Tensor, ...]
    length: int


class OnnxDecoder:
    """A CaptionDecoder over two graphs, as in `models.base.TensorFunctions`: image and language.

    vocab_size: V. feature_shape: (F,) or (N, F).
    """

    def __init__(
        self, *, image: InferenceSession, language: InferenceSession, max_positions: int | None
    ) -> None:
        self._image = image
        self._language = language
        self._max_positions = max_positions
        self.feature_shape = _shape_of(image.get_inputs()[0])[1:]
        self.vocab_size = _shape_of(language.get_outputs()[0])[1]

    def start(self, features: Tensor) -> tuple[Tensor, OnnxState]:
        if tuple(features.shape[1:]) != self.feature_shape:
            raise ModelError(
                f"Features of shape {tuple(features.shape[1:])} do not fit: this model takes "
                f"{self.feature_shape}; use the encoder that it was exported with."
            )
        prefix, *state = run_session(self._image, features.float())  # (B, P, D)
        no_tokens = torch.zeros((len(features), 0), dtype=torch.long)
        return self._read(prefix, no_tokens, OnnxState(tuple(state), length=0))

    def step(self, token_ids: Tensor, state: OnnxState) -> tuple[Tensor, OnnxState]:
        no_prefix = torch.zeros((len(token_ids), 0, self._width))
        return self._read(no_prefix, token_ids.unsqueeze(1), state)

    def reorder(self, state: OnnxState, beam_index: Tensor) -> OnnxState:
        return OnnxState(tuple(part.index_select(0, beam_index) for part in state.tensors), state.length)

    @property
    def _width(self) -> int:
        return _shape_of(self._language.get_inputs()[0])[2]

    def _read(self, prefix: Tensor, token_ids: Tensor, state: OnnxState) -> tuple[Tensor, OnnxState]:
        """prefix (B, P, D), token_ids (B, T) -> logits (B, V), state after P + T more positions."""
        length = state.length + prefix.shape[1] + token_ids.shape[1]
        if self._max_positions is not None and length > self._max_positions:
            raise ModelError(
                f"This model has {self._max_positions} positions for prefix and tokens together and {length} "
                "are needed: use shorter captions or lower --max-new-tokens."
            )
        logits, *tensors = run_session(self._language, prefix, token_ids, *state.tensors)
        return logits, OnnxState(tuple(tensors), length)


class OnnxEncoder:
    """An Encoder over one graph. preprocess: as the torch encoder's, whatever its type."""

    def __init__(
        self, *, session: InferenceSession, name: str, output: str, preprocess: Any, fingerprint: str
    ) -> None:
        self._session = session
        self.name = name
        self.output = output
        self.preprocess = preprocess
        self.fingerprint = fingerprint
        self.feature_shape = _shape_of(session.get_outputs()[0])[1:]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) to features (B, F) or (B, N, F), fp32."""
        return run_session(self._session, pixels.float())[0]

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """Where it is: the graphs have one device and one dtype."""
        return self


def load_decoder(directory: Path, *, max_positions: int | None) -> OnnxDecoder:
    """Raises: CheckpointError where the graphs are missing, damaged or do not belong together."""
    image, language = (open_session(directory / name) for name in DECODER_GRAPHS)
    given = [(found.name.removeprefix("new_"), found.shape[2:]) for found in image.get_outputs()]
    wanted = [(found.name, found.shape[2:]) for found in language.get_inputs() if found.name != "token_ids"]
    if [name for name, _ in given] != [name for name, _ in wanted]:
        names = " and ".join(DECODER_GRAPHS)
        raise CheckpointError(f"{names} in {directory} are of two models; export the model again.")
    return OnnxDecoder(image=image, language=language, max_positions=max_positions)


def open_session(path: Path) -> InferenceSession:
    """A graph, ready to run on as many threads as torch has now.

    Raises: CheckpointError where ONNX Runtime is not installed, or the graph is missing or damaged.
    """
    try:
        import onnxruntime
    except ImportError as cause:
        raise CheckpointError(
            f"{path.parent} was exported to ONNX, and onnxruntime is not installed: run pip install "
            "'pixtell[onnx]', or name the model it was exported from."
        ) from cause
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; the checkpoint is not whole: copy or export it again.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors, which are raised as well
    options.enable_mem_pattern = False  # shapes differ from step to step
    # A thread that waits in a loop takes the core on which images are decoded or torch chooses tokens.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # ONNX Runtime has a type for every way in which a file can be damaged
        reason = " ".join(str(cause).split())
        raise CheckpointError(
            f"{path} cannot be read ({reason}); it is damaged: copy or export it again."
        ) from cause


def run_session(session: InferenceSession, *inputs: Tensor) -> list[Tensor]:
    """The outputs for `inputs`, in the order of the graph; neither are copied, unless they lie in pieces."""
    from onnxruntime import OrtValue

    names = (found.name for found in session.get_inputs())
    values = {
        name: OrtValue.from_dlpack(tensor.detach().contiguous())
        for name, tensor in zip(names, inputs, strict=True)
    }
    return [from_dlpack(value) for value in session.run_with_ort_values(None, values)]


def _shape_of(node: Any) -> tuple[int, ...]:
    """An input's or output's shape; axes that vary have names."""
    return tuple(node.shape)
