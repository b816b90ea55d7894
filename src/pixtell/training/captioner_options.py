"""What a person can ask of `pixtell train`: its flags, beside those of every training.

As in run_options.py, each field is a flag, and `check_captioner` says first what cannot be.
"""

from dataclasses import dataclass
from pathlib import Path

from pixtell.augment import ViewOptions
from pixtell.errors import OptionError
from pixtell.models import FAMILIES
from pixtell.options import check_positive, option
from pixtell.training.lora import check_peft
from pixtell.training.rewards import parse_reward
from pixtell.training.run_options import DataOptions, RunOptions, check_run, check_shares, refuse_idle


@dataclass(frozen=True)
class CaptionerOptions:
    """What is trained on what objective, and from what."""

    objective: str = option(
        "cross-entropy",
        "cross-entropy: say what people said; scst: score better, from a trained --init-from.",
    )
    family: str | None = option(None, "lstm or clipcap; with --init-from it comes from there.")
    encoder: str | None = option(
        None,
        "nano, vgg16, a directory, a weights file or a hub id; with --init-from only to put another encoder "
        "of the same features in its place.",
    )
    encoder_output: str | None = option(
        None, "embedding, pooled or patches; not given: the encoder's usual one."
    )
    init_from: str | None = option(None, "Start from this model: nano, nano-lstm, a directory or a hub id.")
    features: Path | None = option(
        None, "Directory of feature caches to use and fill; not given: inside --output.", may_change=True
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
    lora_rank: int | None = option(
        None, "clipcap: train adapters of this rank beside GPT-2, and beside a CLIP with --train-encoder."
    )
    lora_targets: str | None = option(
        None, "Layers that get adapters; not given: c_attn of GPT-2, q_proj and v_proj of a CLIP."
    )
    checkpoint_activations: bool = option(
        False, "clipcap: less memory, up to half more time: GPT-2's blocks are computed again going back."
    )
    width: int | None = option(None, "Width of the LSTM or of our own small GPT-2; not given: 256.")
    num_layers: int = option(4, "Layers of our own small GPT-2.")
    dropout: float | None = option(None, "Dropout inside the model; not given: the family's usual one.")
    feature_dropout: float = option(0.0, "clipcap: share of feature values zeroed in training.")
    normalise_features: bool = option(False, "Scale feature vectors to length 1 first.")
    min_count: int = option(4, "Words seen less often in the training captions are unknown (word tokenizer).")
    max_tokens: int = option(40, "Training captions are cut after this many tokens.")
    pretrain_text: Path | None = option(
        None, "Captions alone, one a line: the language model learns them first."
    )
    pretrain_epochs: int = option(3, "Passes over --pretrain-text.")
    accumulate: int = option(1, "Batches of --batch-size whose gradients add up to those of one large step.")
    epochs: int = option(15, "Passes over the training images.", may_change=True)
    label_smoothing: float = option(0.1, "Probability spread over all tokens by the loss.")
    samples: int = option(5, "scst: captions drawn an image.")
    reward: str = option(
        "cider-d", "scst: what they earn: cider-d, bleu-4 and clipscore, weighted, say cider-d,bleu-4=0.3."
    )
    clip: str | None = option(None, "scst: the CLIP of --reward clipscore: directory or hub id.")
    patience: int | None = option(4, "Stop after this many epochs without a better CIDEr-D.", may_change=True)

    def view_options(self) -> ViewOptions:
        """Views under which a caption stays true: no mirror images, since captions say left and right."""
        return ViewOptions(min_area=self.min_area, flip=0.0, colour=self.colour)


# Flags that change nothing beside another: they are refused, or their user would think that they did.
_BROUGHT_ALONG = (
    "family encoder_output mapping prefix_length language_model train_language_model width "
    "num_layers dropout feature_dropout normalise_features min_count"
)
_SCST_ONLY = "samples reward clip"
_CROSS_ENTROPY_ONLY = "label_smoothing pretrain_text"
_CLIPCAP_ONLY = (
    "mapping prefix_length language_model train_language_model num_layers feature_dropout lora_rank "
    "checkpoint_activations"
)


def check_captioner(data: DataOptions, what: CaptionerOptions, run: RunOptions) -> None:
    """Raises: OptionError for what `pixtell train` cannot do."""
    check_run(data, run)
    check_positive(
        what, "views", "epochs", "pretrain_epochs", "min_count", "max_tokens", "accumulate", "patience"
    )
    check_positive(what, "width", "num_layers", "prefix_length", "lora_rank")
    check_shares(what, "label_smoothing")
    what.view_options()  # for its own checks, now
    _check_objective(what)
    if what.init_from is not None:
        refuse_idle(what, _BROUGHT_ALONG, "with --init-from, which brings its own")
    elif what.family not in FAMILIES:
        wrong = "is missing" if what.family is None else f"{what.family} is unknown"
        raise OptionError(
            f"--family {wrong}; choose one of {', '.join(FAMILIES)}, or start with --init-from."
        )
    elif what.encoder is None:
        raise OptionError(
            "--encoder is missing; choose nano, vgg16, a directory, a weights file or a hub id."
        )
    if what.family == "lstm":
        refuse_idle(what, _CLIPCAP_ONLY, "with --family lstm")
    if what.language_model is not None:
        refuse_idle(what, "width num_layers min_count", "with --language-model, which brings its own")
    if what.lora_rank is None:
        refuse_idle(what, "lora_targets", "without --lora-rank")
    else:
        _check_lora(what, what.lora_rank)
    if what.pretrain_text is None:
        refuse_idle(what, "pretrain_epochs", "without --pretrain-text")
    elif what.train_language_model == "frozen":
        refuse_idle(what, "pretrain_text", "with --train-language-model frozen")
    if what.train_encoder:
        refuse_idle(what, "features views", "with --train-encoder, which sees new views at every step")
    elif what.views == 1:
        refuse_idle(what, "min_area colour", "without --views 2 or more, or --train-encoder")


def _check_lora(what: CaptionerOptions, rank: int) -> None:
    refuse_idle(what, "train_language_model", "with --lora-rank, which trains nothing of it but adapters")
    check_peft(rank)


def _check_objective(what: CaptionerOptions) -> None:
    if what.objective == "cross-entropy":
        refuse_idle(what, _SCST_ONLY, "without --objective scst")
        return
    if what.objective != "scst":
        raise OptionError(f"--objective {what.objective} is unknown; choose cross-entropy or scst.")
    if what.init_from is None:
        raise OptionError(
            "--objective scst improves a model that cross-entropy has trained; name one with --init-from."
        )
    refuse_idle(what, _CROSS_ENTROPY_ONLY, "with --objective scst")
    if "clipscore" not in parse_reward(what.reward):
        refuse_idle(what, "clip", "without --reward clipscore")
    elif what.clip is None:
        raise OptionError(
            "--reward clipscore needs a CLIP; name its directory or hub id with --clip, or leave it out."
        )
    if what.samples < 2:
        raise OptionError(
            f"--samples {what.samples} leaves a caption nothing to be better than; give 2 or more, say 5."
        )
