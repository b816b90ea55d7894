"""What a person can ask of a training: the flags of `pixtell train` and `pixtell train-encoder`.

Each field is a flag; its default and its help exist here and nowhere else.
"""

from dataclasses import dataclass
from pathlib import Path

from pixtell.options import check_positive, option
from pixtell.training.loop import LoopOptions


@dataclass(frozen=True)
class DataOptions:
    """Which pictures."""

    dataset: str = option("folder", "Data set: flickr8k, folder (one's own) or shapes (generated).")
    data_dir: Path | None = option(None, "Where the data set lies; shapes needs none.")
    limit: int | None = option(None, "Use only the first N images of each split.")


@dataclass(frozen=True)
class RunOptions:
    """How long, how fast, where to."""

    output: Path = option(None, "The run's directory.", required=True)
    max_steps: int | None = option(None, "Stop after N updates, whatever the epochs.")
    max_seconds: float | None = option(None, "Stop cleanly after S seconds; --resume goes on.")
    batch_size: int = option(64, "Images a step.")
    learning_rate: float = option(5e-4, "Peak learning rate.")
    weight_decay: float = option(0.05, "AdamW's weight decay.")
    warmup_ratio: float = option(0.05, "Share of the steps in which the learning rate rises.")
    ema_decay: float | None = option(
        None, "Average the weights with this decay, e.g. 0.999; not given: no average."
    )
    seed: int = option(0, "Seed of everything random.")
    resume: bool = option(False, "Go on with the run that lies in --output.")
    device: str = option("auto", "auto, cpu, cuda or mps.")
    dtype: str = option("auto", "auto, fp32 or bf16 arithmetic.")

    def loop(self, max_steps: int, validate_every: int, patience: int | None) -> LoopOptions:
        """Raises: OptionError for numbers that cannot be."""
        check_positive(self, "max_steps", "max_seconds", "batch_size", "learning_rate")
        return LoopOptions(
            max_steps=self.max_steps or max_steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_ratio=self.warmup_ratio,
            ema_decay=self.ema_decay,
            validate_every=validate_every,
            patience=patience,
            max_seconds=self.max_seconds,
            seed=self.seed,
        )


@dataclass(frozen=True)
class CaptionerOptions:
    """What is trained on cross-entropy, and from what."""

    family: str | None = option(None, "lstm or clipcap; with --init-from it comes from there.")
    encoder: str | None = option(
        None, "nano, vgg16, a directory, a weights file or a hub id; with --init-from it comes from there."
    )
    encoder_output: str | None = option(
        None, "embedding, pooled or patches; not given: the encoder's usual one."
    )
    init_from: str | None = option(None, "Start from this model: nano, nano-lstm, a directory or a hub id.")
    features: Path | None = option(
        None, "Directory of feature caches to use and fill; not given: inside --output."
    )
    views: int = option(
        1, "Cached views of every training image, the first one plain, the others cropped and recoloured."
    )
    min_area: float = option(0.6, "Smallest crop of a view, as a share of the image; 1: no crop.")
    colour: float = option(0.2, "Largest change of a view's brightness, contrast and saturation; 0: none.")
    train_encoder: bool = option(False, "Train the encoder too, end to end from pixels.")
    mapping: str | None = option(
        None, "clipcap: mlp, transformer, encoder or patch; not given: patch for patches, else mlp."
    )
    prefix_length: int | None = option(
        None, "clipcap: prefix positions; not given: the mapping's usual number."
    )
    language_model: str | None = option(
        None, "clipcap: a GPT-2 directory or hub id; not given: a small one of our own, from scratch."
    )
    train_language_model: str = option(
        "all", "clipcap: train all of GPT-2, its two ends, or nothing of it (frozen)."
    )
    width: int | None = option(None, "Width of the LSTM or of our own small GPT-2; not given: 256.")
    num_layers: int = option(4, "Layers of our own small GPT-2.")
    dropout: float | None = option(None, "Dropout inside the model; not given: the family's usual one.")
    feature_dropout: float = option(0.0, "clipcap: share of feature values zeroed in training.")
    normalise_features: bool = option(False, "Scale feature vectors to length 1 first.")
    min_count: int = option(4, "Words seen less often in the training captions are unknown (word tokenizer).")
    max_tokens: int = option(40, "Training captions are cut after this many tokens.")
    epochs: int = option(15, "Passes over the training images.")
    label_smoothing: float = option(0.1, "Probability spread over all tokens by the loss.")
    patience: int | None = option(4, "Stop after this many epochs without a better CIDEr-D.")


@dataclass(frozen=True)
class EncoderOptions:
    """What an encoder is trained for, and by whom."""

    objective: str = option("distill", "distill: learn from --teacher.")
    teacher: Path | None = option(None, "Directory of a network that transformers loads with its classifier.")
    init_from: str | None = option(None, "Start from this nano encoder: nano or a directory.")
    encoder_width: int = option(48, "Channels of the first stage; each of the four stages doubles them.")
    image_size: int = option(192, "Pixels a side that the encoder is used with.")
    view_size: int = option(128, "Pixels a side of a training view; smaller is quicker.")
    min_area: float = option(0.25, "Smallest crop, as a share of the image.")
    pool_views: int = option(8192, "Views the teacher labels at a time.")
    reuse: int = option(4, "Times the student sees a view before it is drawn anew.")
    validate_every: int = option(1000, "Steps between validations.")


@dataclass(frozen=True)
class EncoderRunOptions(RunOptions):
    """As RunOptions, with the rates that suit a small network trained from random weights."""

    learning_rate: float = option(2e-3, "Peak learning rate.")
    weight_decay: float = option(0.02, "AdamW's weight decay.")
    warmup_ratio: float = option(0.03, "Share of the steps in which the learning rate rises.")
    ema_decay: float | None = option(0.9995, "Average the weights with this decay.")
