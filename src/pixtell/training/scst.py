"""Self-critical sequence training: captions that score well become likelier.

In: a model that cross-entropy has trained, features, and a reward. Out: the loss of a step, for `loop.train`.
For each image K captions are drawn from the model as it stands; each is judged against the others:

    loss = - mean over captions of (reward - mean reward of the image's K - 1 others) * sum log p(token)

the end token included. Its gradient is that of the expected reward, with less noise than the reward alone
would give (Rennie et al., Self-critical Sequence Training for Image Captioning, 2017; the baseline is Luo's,
A Better Variant of Self-Critical Sequence Training, 2020). The mean is over captions: over tokens, the
length of the others in a batch would scale what a caption teaches.

Drawing and gradient both see the model without dropout, in eval mode: a caption is judged as what the model
that will be used says, and teaches that model.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from pixtell.batching import make_batch
from pixtell.decoding import DecodedCaption, DecodingOptions, decode
from pixtell.errors import TrainingError
from pixtell.metrics.diversity import bad_ending_rate, distinct_share
from pixtell.models.base import CaptionDecoder, CaptionModel, DecodingState
from pixtell.tokenizers import Tokenizer
from pixtell.training.feature_sources import FeatureSource
from pixtell.training.image_batches import ImageBatches
from pixtell.training.loop import Numbers, step_seed
from pixtell.training.predictions import predict
from pixtell.training.rewards import DrawnCaption, Reward

_SEEDS = 10**18  # that decoding takes


class SelfCritical:
    """The objective.

    num_samples: K, 2 or more. max_tokens: a caption that is longer breaks off. evaluate, save: as
    CrossEntropy has them.
    """

    best_metric = "CIDEr-D"

    def __init__(
        self,
        *,
        model: CaptionModel,
        features: FeatureSource,
        tokenizer: Tokenizer,
        reward: Reward,
        batches: ImageBatches,
        num_samples: int,
        max_tokens: int,
        device: torch.device,
        evaluate: Callable[[], dict[str, float]],
        save: Callable[[Path], None],
    ) -> None:
        self.model = model
        self.features = features
        self.tokenizer = tokenizer
        self.reward = reward
        self.batches = batches
        self.num_samples = num_samples
        self.max_tokens = max_tokens
        self.device = device
        self.validate = evaluate
        self.save = save
        self.module: nn.Module = nn.ModuleDict(
            {"model": model} if features.module is None else {"model": model, "encoder": features.module}
        )

    def loss(self, call: int) -> tuple[torch.Tensor, Numbers]:
        """Of a call that is a part of an update, its share of the mean."""
        batch = self.batches[call]
        share = len(batch.rows) / len(batch.update_rows)
        if share == 0:
            return torch.zeros((), device=self.device, requires_grad=True), {}
        _use_without_dropout(self.module)
        features = self.features(batch.rows, batch.epoch)  # (B, F) or (B, N, F)
        logits, state = self.model.start(features)  # (B, V)
        captions = self._draw(_Started(self.model, logits.detach(), state), features.detach(), call)
        drawn = [
            [DrawnCaption(self.tokenizer.decode(one.token_ids), one.finished) for one in of_image]
            for of_image in captions
        ]
        rewards = torch.tensor(self.reward(batch.rows.tolist(), drawn), dtype=torch.float64)  # (B, K)
        if not rewards.isfinite().all():
            wrong = rewards[~rewards.isfinite()][0].item()
            step = call // self.batches.accumulate + 1  # as people count
            raise TrainingError(
                f"A reward of step {step} is {wrong}, no number to learn from; "
                "leave the part of --reward out that gives it and start again from the last checkpoint."
            )
        log_probs = self._log_probs(logits, state, captions)  # (B * K,)
        weights = advantages(rewards).flatten().to(self.device, log_probs.dtype)  # (B * K,)
        texts = [caption.text for of_image in drawn for caption in of_image]
        numbers = {
            "epoch": batch.passes,
            "samples/reward": rewards.mean().item(),
            "samples/distinct_share": distinct_share(texts),
            "samples/bad_ending_rate": bad_ending_rate(texts),
            "samples/mean_tokens": sum(one.num_tokens for found in captions for one in found) / len(texts),
        }
        return -(weights * log_probs).mean() * share, numbers

    def _draw(self, model: CaptionDecoder, features: torch.Tensor, call: int) -> list[list[DecodedCaption]]:
        """K captions of each image, drawn as the model has it: no filter but the ban of what no caption may
        contain."""
        options = DecodingOptions(
            temperature=1.0,
            num_captions=self.num_samples,
            max_new_tokens=self.max_tokens,
            min_length=0,
            seed=step_seed(self.batches.seed, call) % _SEEDS,
        )
        return decode(
            model,
            features,
            options,
            eos_id=self.tokenizer.eos_id,
            forbidden_ids=self.tokenizer.forbidden_ids,
        )

    def _log_probs(
        self, first_logits: torch.Tensor, state: DecodingState, captions: Sequence[Sequence[DecodedCaption]]
    ) -> torch.Tensor:
        """The log-probabilities (B * K,) of whole captions, the end token counted, for the gradient.

        first_logits (B, V), state: what the model's `start` gave.
        """
        eos_id, device = self.tokenizer.eos_id, self.device
        token_ids = [
            [[*one.token_ids, eos_id] if one.finished else list(one.token_ids) for one in of_image]
            for of_image in captions
        ]
        batch = make_batch(token_ids, torch.arange(len(token_ids)))
        banned = torch.tensor(list(self.tokenizer.forbidden_ids), dtype=torch.long, device=device)
        sums = torch.zeros(len(batch.labels), device=device)  # (B * K,)
        for part in predict(self.model, first_logits, state, batch):
            logits = part.logits.index_fill(1, banned, -math.inf)  # as when they were drawn
            losses = F.cross_entropy(logits, part.labels, reduction="none")  # (M,)
            sums = sums.index_add(0, part.captions, -losses)
        return sums


class _Started:
    """A model that has read its images: drawing and gradient share that pass."""

    def __init__(self, model: CaptionModel, logits: torch.Tensor, state: DecodingState) -> None:
        """logits (B, V), state: what the model's `start` gave."""
        self.begun = logits, state
        self.step = model.step
        self.reorder = model.reorder

    def start(self, features: torch.Tensor) -> tuple[torch.Tensor, DecodingState]:
        return self.begun


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Each reward less the mean of the image's other ones: (B, K) -> (B, K).

    [1, 2, 6] -> [1 - 4, 2 - 3.5, 6 - 1.5].
    """
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def _use_without_dropout(module: nn.Module) -> None:
    """Eval mode. An LSTM, which has no dropout of its own, stays in training mode: cuDNN's goes back in no
    other."""
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part.train()
