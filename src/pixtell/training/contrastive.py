"""Contrastive training: images and their captions meet in one space, all others part (Radford et al. 2021,
"Learning transferable visual models from natural language supervision").

In: two towers, pairs. Out: the loss of a step, for `loop.train`, and how well texts and images of the
validation split find each other.

A caption of an image is never the negative of another one of it, nor is an equal caption of another image: a
pair's rivals are the wrong pairs alone. With one caption an image, all different, the loss is CLIP's.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from pixtell.augment import ViewOptions, random_views
from pixtell.encoders.towers import Towers, pad_text_ids
from pixtell.errors import TrainingError
from pixtell.metrics.retrieval import score_retrieval
from pixtell.tokenizers import split_words
from pixtell.training.image_memory import resident
from pixtell.training.loop import Numbers, step_seed
from pixtell.training.lora import without_adapters

SCALES = (1.0, 100.0)  # what cosines may be multiplied with, 1 / temperature; above, it is cut as CLIP's is
_RUNAWAY = 200.0  # no step of a sane size comes from below SCALES[1] to here
_PASS = 256  # images or texts that are embedded at once where there is no chunk size
_SIDES = frozenset(("left", "right", "leftmost", "rightmost", "left-hand", "right-hand"))


@dataclass(frozen=True)
class ContrastiveOptions:
    """What the towers see."""

    view_size: int  # pixels a side of a view
    batch_size: int = 256  # images a step: all of a batch are compared with each other
    chunk_size: int | None = None  # images, or texts, that hold a graph at once; None: the whole batch
    captions_per_image: int = 5  # drawn anew each time
    views: ViewOptions = field(default_factory=lambda: ViewOptions(min_area=0.6))
    seed: int = 0


@dataclass(frozen=True)
class CaptionedImages:
    """The pairs of a split. Equal captions, as the text tower reads them, are one text."""

    images: torch.Tensor  # uint8 (N, 3, S, S)
    text_ids: list[list[int]]  # of the different texts
    of_image: list[list[int]]  # of each image, the rows of text_ids that are its captions
    says_sides: torch.Tensor  # bool (N,): a caption says left or right, so that a mirror image would lie

    @classmethod
    def make(
        cls, images: torch.Tensor, captions: Sequence[Sequence[str]], encode: Callable[[str], list[int]]
    ) -> "CaptionedImages":
        """captions: of each image, at least one."""
        rows: dict[tuple[int, ...], int] = {}
        of_image = [
            list(dict.fromkeys(rows.setdefault(tuple(encode(text)), len(rows)) for text in texts))
            for texts in captions
        ]
        sides = [any(not _SIDES.isdisjoint(split_words(text)) for text in texts) for texts in captions]
        return cls(images, [list(row) for row in rows], of_image, torch.tensor(sides))


class Contrastive:
    """The objective. train.images: larger than a view or not, of one size; val.images: as the image tower's
    preprocess makes them."""

    best_metric = "mean_recall"

    def __init__(
        self,
        *,
        towers: Towers,
        train: CaptionedImages,
        val: CaptionedImages,
        options: ContrastiveOptions,
        device: torch.device,
    ) -> None:
        self.towers = towers.to(device)
        self.train = replace(train, images=resident(train.images, device))
        self.val = val
        self.options = options
        self.device = device
        self.batch_size = min(options.batch_size, len(train.images))
        self.steps_per_epoch = len(train.images) // self.batch_size  # what is left over waits an epoch
        self.module: nn.Module = self.towers

    def loss(self, step: int) -> tuple[torch.Tensor, Numbers]:
        scale = self._scale(step)
        rows, generator = self._rows_of(step)
        texts, positive = self._draw_texts(rows, generator)
        images = self._embed(self._embed_views, self._views(rows, generator))  # (B, F)
        embedded = self._embed(self.towers.embed_texts, self._text_parts(self.train, texts))  # (T, F)
        loss = contrastive_loss(images, embedded, positive.to(self.device), scale)
        epoch = (step + 1) / self.steps_per_epoch
        return loss, {"logit_scale": scale.detach(), "epoch": epoch}

    def validate(self) -> dict[str, float]:
        """R@1, R@5 and R@10 both ways on the validation split, every caption a query, and their mean."""
        batches = torch.split(self.val.images, self.options.chunk_size or _PASS)
        images = torch.cat([self._embed_views(batch.to(self.device)).float().cpu() for batch in batches])
        rows = sorted(range(len(self.val.text_ids)), key=lambda row: len(self.val.text_ids[row]))
        parts = self._text_parts(self.val, rows)
        texts = torch.cat([self.towers.embed_texts(part).float().cpu() for part in parts])
        in_order = torch.empty_like(texts)
        in_order[torch.tensor(rows)] = texts
        return score_retrieval(images.numpy(), in_order.numpy(), self.val.of_image).numbers()

    def save(self, directory: Path) -> None:
        plain = without_adapters(self.towers)
        assert isinstance(plain, Towers)
        plain.save(directory)

    def _scale(self, step: int) -> torch.Tensor:
        """What cosines are multiplied with, cut as CLIP's is. Raises: TrainingError where it ran away."""
        found = math.exp(min(self.towers.logit_scale.item(), 99.0))
        if not SCALES[0] <= found <= _RUNAWAY:  # NaN too
            raise TrainingError(
                f"The temperature ran away: at step {step + 1} cosines would be multiplied with {found:.3g}, "
                f"outside {SCALES[0]:g} to {_RUNAWAY:g}; go on from the last checkpoint with --resume, or "
                "start again, with a lower --learning-rate."
            )
        with torch.no_grad():
            self.towers.logit_scale.clamp_(max=math.log(SCALES[1]))
        return self.towers.logit_scale.exp()  # ()

    def _rows_of(self, step: int) -> tuple[torch.Tensor, torch.Generator]:
        """The images of a step, (B,), and what draws all else of it."""
        epoch, place = divmod(step, self.steps_per_epoch)
        seed = self.options.seed
        order = torch.randperm(len(self.train.images), generator=_generator(seed, -2 - epoch))
        start = place * self.batch_size
        return order[start : start + self.batch_size], _generator(seed, step)

    def _draw_texts(self, rows: torch.Tensor, generator: torch.Generator) -> tuple[list[int], torch.Tensor]:
        """Texts of the images at `rows`, each once, the short ones first; and which image has which, bool
        (B, T): also by a caption that was not drawn for it."""
        drawn: set[int] = set()
        for row in rows.tolist():
            captions = self.train.of_image[row]
            order = torch.randperm(len(captions), generator=generator)[: self.options.captions_per_image]
            drawn.update(captions[place] for place in order.tolist())
        texts = sorted(drawn, key=lambda text: (len(self.train.text_ids[text]), text))
        column = {text: place for place, text in enumerate(texts)}
        positive = torch.zeros(len(rows), len(texts), dtype=torch.bool)
        for place, row in enumerate(rows.tolist()):
            positive[place, [column[text] for text in self.train.of_image[row] if text in column]] = True
        return texts, positive

    def _views(self, rows: torch.Tensor, generator: torch.Generator) -> Sequence[torch.Tensor]:
        """Views of the images at `rows`, in parts of uint8 (b, 3, S, S), whose size changes no view."""
        size = self.options.view_size
        views = torch.empty(len(rows), 3, size, size, dtype=torch.uint8, device=self.device)
        fixed = self.train.says_sides[rows]  # (B,)
        for chosen, flip in ((fixed, 0.0), (~fixed, self.options.views.flip)):
            how = replace(self.options.views, flip=flip)
            for places in torch.split(chosen.nonzero()[:, 0], _PASS) if chosen.any() else ():
                images = self.train.images[rows[places]].to(self.device)
                views[places.to(self.device)] = random_views(images, size, how, generator)
        return torch.split(views, self.options.chunk_size or _PASS)

    def _text_parts(self, pairs: CaptionedImages, texts: Sequence[int]) -> list[torch.Tensor]:
        """Text ids (t, T) of these texts, in parts, on the device."""
        size = self.options.chunk_size or _PASS
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        pad_id = self.towers.pad_id
        return [
            pad_text_ids([pairs.text_ids[text] for text in part], pad_id).to(self.device) for part in parts
        ]

    def _embed_views(self, views: torch.Tensor) -> torch.Tensor:
        """uint8 (b, 3, S, S) -> (b, F)."""
        return self.towers.embed_images(self.towers.preprocess.normalise(views))

    def _embed(
        self, tower: Callable[[torch.Tensor], torch.Tensor], parts: Iterable[torch.Tensor]
    ) -> torch.Tensor:
        """Embeddings of all parts, (B, F), with a graph.

        With a chunk size the graph is cached gradients (Gao et al. 2021, "Scaling deep contrastive learning
        batch size under memory limited setup"): the parts are embedded without one; once the gradient of the
        loss has come to the embeddings, one part after the other is embedded again, its random state as it
        was, and differentiated. That is what torch's checkpoint does with a whole part for its segment.
        """
        if self.options.chunk_size is None:
            return torch.cat([tower(part) for part in parts])
        return torch.cat([checkpoint(tower, part, use_reentrant=False) for part in parts])


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, positive: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """What a pair costs among its wrong rivals: the mean over the pairs of a query, then over the queries,
    then over both ways, image to text and text to image.

    images (B, F), texts (T, F), positive bool (B, T), scale (). A pair's cost is -log(e^s / (e^s + sum of e^r
    over the wrong r)), which is CLIP's cross-entropy where a query has one right answer. Other right answers
    stay out of the sum: in it they would be pushed away (Khosla et al. 2020, equation 2, keeps them in; its
    minimum is not zero then). Every row and column has a pair; one without a wrong rival costs nothing.
    """
    with torch.autocast(images.device.type, enabled=False):  # bf16 would round a logit of 30 to 1/8
        exact = torch.promote_types(images.dtype, torch.float32)
        image_unit, text_unit = (F.normalize(side.to(exact), dim=1) for side in (images, texts))
        logits = scale.to(exact) * image_unit @ text_unit.T  # (B, T)
        return (_one_way(logits, positive) + _one_way(logits.T, positive.T)) / 2


def _one_way(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Queries along the first dimension: (Q, A) and (Q, A) -> ()."""
    # Finite where all answers are right: minus infinity has no gradient, and would make NaN of it.
    rivals = logits.masked_fill(positive, torch.finfo(logits.dtype).min).logsumexp(1, keepdim=True)  # (Q, 1)
    costs = F.softplus(rivals - logits).masked_fill(~positive, 0.0)  # (Q, A)
    return (costs.sum(1) / positive.sum(1)).mean()


def _generator(seed: int, stream: int) -> torch.Generator:
    """stream: the step, or for what belongs to an epoch a negative number."""
    return torch.Generator().manual_seed(step_seed(seed, stream) ^ 0x5C0DE)
