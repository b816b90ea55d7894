"""The flags that belong to the command line alone; those of decoding and training stand beside the code
that reads them."""

from dataclasses import dataclass
from pathlib import Path

from pixtell.options import option


@dataclass(frozen=True)
class ModelFlag:
    """Which model."""

    model: str = option("nano", "nano, nano-lstm, a directory that pixtell train wrote, or a hub id.")


@dataclass(frozen=True)
class ComputeFlags:
    """On what it runs."""

    batch_size: int = option(16, "Images at a time.")
    device: str = option("auto", "auto, cpu, cuda or mps.")
    dtype: str = option("auto", "auto, fp32, bf16 or fp16 arithmetic.")


@dataclass(frozen=True)
class CaptionFlags:
    """Of `pixtell caption`."""

    paths: list[Path] = option(
        [], "Pictures, or folders of pictures (read recursively).", argument=True, required=True
    )
    format: str = option("text", "text (path, tab, caption), jsonl or csv.")
    output: Path | None = option(None, "Write the captions to this file, not to the screen.")
    explain: Path | None = option(
        None, "Write a PNG for each picture into this folder: where the model looked, word by word."
    )


@dataclass(frozen=True)
class SplitFlags:
    """Of `pixtell evaluate`."""

    dataset: str = option("folder", "Data set: flickr8k, folder or shapes.")
    data_dir: Path | None = option(None, "Where the data set lies; shapes needs none.")
    split: str = option("test", "train, val (or dev) or test.")
    output: Path | None = option(None, "Write the results to this JSON file.")
    limit: int | None = option(None, "Score only the first N images.")


@dataclass(frozen=True)
class ScoreFlags:
    """Of `pixtell score`."""

    hypotheses: Path = option(None, "Captions to score: JSON, JSON lines, CSV or plain text.", required=True)
    references: list[Path] = option(
        [], "What people wrote: such a file, COCO annotations; several times for several.", required=True
    )
    images: Path | None = option(None, "Folder of the pictures, named by image id, for --clip.")
    output: Path | None = option(None, "Write the scores to this JSON file.")


@dataclass(frozen=True)
class CompareFlags:
    """Of `pixtell compare`."""

    paths: list[Path] = option([], "Pictures or folders, without references.", argument=True)
    model: list[str] = option([], "nano, nano-lstm, a directory or a hub id; once for each system.")
    captions: list[Path] = option([], "A file of somebody else's captions; once for each system.")
    dataset: str | None = option(None, "Data set: flickr8k, folder or shapes.")
    data_dir: Path | None = option(None, "Where the data set lies; shapes needs none.")
    split: str = option("test", "train, val (or dev) or test.")
    limit: int | None = option(None, "Only the first N images.")
    title: str | None = option(None, "Of the page.")
    output: Path = option(None, "Write the page to this HTML file.", required=True)


@dataclass(frozen=True)
class MetricFlags:
    """Which metrics, and what some of them need."""

    metrics: str | None = option(
        None, "Names with commas, such as bleu,cider-d; not given: all that need nothing more than captions."
    )
    clip: str | None = option(None, "A CLIP for CLIPScore and RefCLIPScore: directory or hub id.")
    meteor_dir: Path | None = option(None, "Where METEOR's tables are; not given: in pycocoevalcap.")
    spice_dir: Path | None = option(None, "Where SPICE's jars are.")
    java: str = option("java", "The Java that runs SPICE: 8 to 13.")
    train_captions: Path | None = option(None, "Captions of a training, for novel: a file as --references.")


@dataclass(frozen=True)
class SearchFlags:
    """Of `pixtell search`."""

    text: str = option(None, "What to look for, in quotes.", argument=True, required=True)
    folders: list[Path] = option([], "Folders of pictures (read recursively).", argument=True, required=True)
    model: str = option("nano", "nano, or the directory or hub id of a CLIP or of trained towers.")
    top: int = option(10, "How many pictures.")
    format: str = option("text", "text (cosine, tab, path) or jsonl.")
    cache: Path | None = option(None, "Where embeddings are kept; not given: in the user's cache.")


@dataclass(frozen=True)
class FeatureFlags:
    """Of `pixtell features`."""

    dataset: str = option("folder", "Data set: flickr8k, folder or shapes.")
    data_dir: Path | None = option(None, "Where the data set lies; shapes needs none.")
    encoder: str = option(None, "nano, vgg16, a directory, a weights file or a hub id.", required=True)
    encoder_output: str | None = option(
        None, "embedding, pooled or patches; not given: the encoder's usual one."
    )
    views: int = option(
        1, "Views of every training image, the first one plain, the others cropped and recoloured."
    )
    min_area: float = option(0.6, "Smallest crop of a view, as a share of the image; 1: no crop.")
    colour: float = option(0.2, "Largest change of a view's brightness, contrast and saturation; 0: none.")
    output: Path = option(None, "Directory of feature caches.", required=True)
    limit: int | None = option(None, "Only the first N images of each split.")
    device: str = option("auto", "auto, cpu, cuda or mps.")


@dataclass(frozen=True)
class DatasetFlags:
    """Of `pixtell datasets`."""

    action: str = option("list", "list: which kinds there are; check: every problem of one.", argument=True)
    dataset: str = option("folder", "Data set to check: flickr8k, folder or shapes.")
    data_dir: Path | None = option(None, "Where it lies.")


@dataclass(frozen=True)
class ModelFlags:
    """Of `pixtell models`."""

    action: str = option(
        "list", "list: the models in the package; export: one for another runtime.", argument=True
    )
    model: str | None = option(None, "What to export: as --model elsewhere.", argument=True)
    format: str = option("onnx", "onnx: graphs for ONNX Runtime on a CPU.")
    dtype: str = option("fp32", "fp32: the same captions; int8: smaller, quicker, nearly the same.")
    output: Path | None = option(None, "Directory of the exported model, which is a --model.")
