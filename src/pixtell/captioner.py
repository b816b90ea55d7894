"""Images in, captions out: encoder, model and tokenizer put together.

In: paths, bytes, arrays or Pillow images. Out: `Caption` values, one for one. Everything on the road is
batched. It knows neither training nor evaluation; they use it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch

from pixtell.checkpoints import CheckpointConfig, find_checkpoint, load_checkpoint, read_config
from pixtell.decoding import DecodedCaption, DecodingOptions, decode
from pixtell.devices import Placement, choose_exported_placement, choose_placement
from pixtell.encoders.base import Encoder
from pixtell.errors import CheckpointError, ImageError, OptionError
from pixtell.exports import load_exported
from pixtell.images import ImageSource, load_images
from pixtell.models.base import CaptionDecoder
from pixtell.tokenizers import Tokenizer


@dataclass(frozen=True)
class Caption:
    """One caption of one image.

    text: a sentence, capital first, full stop last, never empty. token_ids: without eos. logprob: sum of
    natural logs over the new tokens, eos included; mean_logprob: the same a token. unsure: mean_logprob is
    below what the model's makers saw on its own kind of pictures.
    """

    text: str
    token_ids: tuple[int, ...]
    logprob: float
    mean_logprob: float
    unsure: bool = False


_AROUND = " .,;:!?-"  # what a tokenizer may leave around a sentence

Captions: TypeAlias = "Caption | list[Caption]"  # a list where num_captions is over one


class Captioner:
    """An encoder, a model and a tokenizer, ready to caption."""

    def __init__(
        self,
        *,
        name: str,
        encoder: Encoder,
        model: CaptionDecoder,
        tokenizer: Tokenizer,
        decoding: DecodingOptions,
        placement: Placement,
        unsure_below: float | None = None,
    ) -> None:
        self.name = name
        self.encoder = encoder
        self.model = model
        self.tokenizer = tokenizer
        self.decoding = decoding
        self.placement = placement
        self.unsure_below = unsure_below

    @classmethod
    def from_pretrained(
        cls, source: str | Path = "nano", *, device: str = "auto", dtype: str = "auto"
    ) -> "Captioner":
        """A shipped name ("nano", "nano-lstm"), a directory of a checkpoint, run or exported model, or a hub
        id. No network for the first two.

        device, dtype: as `devices.choose_placement` takes them.
        Raises: CheckpointError, which lists the models there are, where `source` is none or is damaged;
        ModelError, EncoderError for parts of it; OptionError for a device or dtype this machine lacks.
        """
        directory = find_checkpoint(source)
        config = read_config(directory)
        encoder: Encoder
        model: CaptionDecoder
        if config.engine is None:
            placement = choose_placement(device, dtype)
            checkpoint = load_checkpoint(directory)
            encoder = checkpoint.encoder.to(placement.device, placement.dtype)
            model = checkpoint.model.to(placement.device, placement.dtype)
            model.pack()
            tokenizer = checkpoint.tokenizer
        else:
            placement = choose_exported_placement(device, dtype, exported=str(config.engine.get("dtype")))
            encoder, model, tokenizer = load_exported(directory, config)
        return cls(
            name=str(source),
            encoder=encoder,
            model=model,
            tokenizer=tokenizer,
            decoding=stored_options(directory, config),
            placement=placement,
            unsure_below=config.unsure_below,
        )

    def caption(
        self,
        images: "ImageSource | Sequence[ImageSource]",
        *,
        batch_size: int = 16,
        on_error: Literal["raise", "return"] = "raise",
        **decoding: Any,
    ) -> Any:
        """One image gives one Caption; a list gives a list, in order. With num_captions over one, each is a
        list of captions, best first.

        images: paths, bytes, uint8 arrays (H, W, 3) or Pillow images. decoding: fields of DecodingOptions,
        over the model's defaults.
        on_error: "return" puts the ImageError in the place of a caption.
        Raises: ImageError (with on_error="raise"), OptionError for decoding options that cannot be.
        """
        many = isinstance(images, list | tuple)
        options = self.options(**decoding)
        sources = cast("Sequence[ImageSource]", images if many else [images])
        results = list(self.stream(sources, options=options, batch_size=batch_size, on_error=on_error))
        return results if many else results[0]

    def stream(
        self,
        images: Iterable[ImageSource],
        *,
        options: DecodingOptions | None = None,
        batch_size: int = 16,
        on_error: Literal["raise", "return"] = "raise",
    ) -> "Iterator[Captions | ImageError]":
        """As `caption`, for any number of images: at most a few batches are in memory at once."""
        options = options or self.decoding
        options.validate()
        if batch_size < 1:
            raise OptionError(f"--batch-size {batch_size} is not above zero; give a number such as 16.")
        loaded = load_images(images, self.encoder.preprocess, ahead=batch_size, on_error="return")
        for number, (batch, features) in enumerate(self._encoded(loaded, batch_size)):
            # A seed of its own for every batch: else the n-th image of each would share its draws.
            drawn = replace(options, seed=options.seed + number)
            captions = iter([] if features is None else self.caption_features(features, drawn))
            for item in batch:
                if not isinstance(item, ImageError):
                    of_image = next(captions)
                    yield of_image if options.num_captions > 1 else of_image[0]
                elif on_error == "raise":
                    raise item
                else:
                    yield item

    def _encoded(
        self, loaded: Iterator[torch.Tensor | ImageError], batch_size: int
    ) -> Iterator[tuple[list[torch.Tensor | ImageError], torch.Tensor | None]]:
        """loaded: images, uint8 (3, S, S) -> batches, each with the features (B, F) or (B, N, F) of its
        images; None where it has errors alone.

        On a CPU a thread encodes the next batch, and no further, while the consumer captions one: small steps
        leave a core idle now and then. Elsewhere calls do not wait for the device, and torch's devices and
        streams belong to the thread that chose them.
        """
        batches = iter(lambda: list(islice(loaded, batch_size)), [])
        if self.placement.device.type != "cpu":
            yield from ((batch, self._encode_good(batch)) for batch in batches)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="pixtell-encoder") as executor:
            waiting: deque[tuple[list[torch.Tensor | ImageError], Future[torch.Tensor | None]]] = deque()
            for batch in batches:
                waiting.append((batch, executor.submit(self._encode_good, batch)))
                if len(waiting) > 1:
                    batch, encoding = waiting.popleft()
                    yield batch, encoding.result()
            for batch, encoding in waiting:
                yield batch, encoding.result()

    def _encode_good(self, batch: list[torch.Tensor | ImageError]) -> torch.Tensor | None:
        images = [item for item in batch if not isinstance(item, ImageError)]  # each uint8 (3, S, S)
        return self.encode(torch.stack(images)) if images else None

    @torch.inference_mode()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, S, S) -> features (B, F) or (B, N, F)."""
        pixels = self.encoder.preprocess.normalise(images.to(self.placement.device))
        return self.encoder(pixels.to(self.placement.dtype))

    @torch.inference_mode()
    def caption_features(
        self, features: torch.Tensor, options: DecodingOptions | None = None
    ) -> list[list[Caption]]:
        """features (B, F) or (B, N, F) -> for each image its captions, best first."""
        features = features.to(self.placement.device, self.placement.dtype)
        decoded = decode(
            self.model,
            features,
            options or self.decoding,
            eos_id=self.tokenizer.eos_id,
            forbidden_ids=self.tokenizer.forbidden_ids,
        )
        return [[self._to_caption(one) for one in of_image] for of_image in decoded]

    def options(self, **decoding: Any) -> DecodingOptions:
        """The model's decoding defaults with these fields changed: `DecodingOptions.changed`.

        Raises: OptionError for a field that does not exist or changes nothing.
        """
        return self.decoding.changed(decoding)

    def _to_caption(self, decoded: DecodedCaption) -> Caption:
        mean = decoded.logprob / max(1, decoded.num_tokens)
        unsure = self.unsure_below is not None and mean < self.unsure_below
        text = as_sentence(self.tokenizer.decode(decoded.token_ids))
        return Caption(text, decoded.token_ids, decoded.logprob, mean, unsure)


def stored_options(directory: Path, config: CheckpointConfig) -> DecodingOptions:
    """The model's decoding defaults. Raises: CheckpointError where this pixtell cannot use them."""
    try:
        options = DecodingOptions(**config.decoding)
        options.validate()
    except (TypeError, OptionError) as cause:
        raise CheckpointError(
            f"{directory / 'config.json'} has decoding defaults that cannot be used "
            f"({str(cause).rstrip('.')}); correct them, or take the pixtell that wrote them."
        ) from cause
    return options


def as_sentence(text: str) -> str:
    """One line, capital first, full stop last, never empty: " a dog runs . " -> "A dog runs."."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    words = " ".join(printable.split()).strip(_AROUND) or "a picture"
    return words[0].upper() + words[1:] + "."
