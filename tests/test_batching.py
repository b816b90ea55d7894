"""Captions to padded batches: labels, the image of each caption, and epochs."""

import pytest
import torch

from pixtell.batching import IGNORED, encode_captions, epoch_batches, make_batch, split_by_length
from pixtell.errors import DatasetError
from pixtell.tokenizers import WordTokenizer

# three images with two, one and three captions; 0 is eos, and a word as good as any
CAPTIONS = [[[5, 6, 0], [7, 0]], [[8, 9, 9, 9, 0]], [[5, 0], [0, 0], [6, 7, 8]]]


@pytest.fixture(scope="module")
def tokenizer() -> WordTokenizer:
    return WordTokenizer.train(["a dog runs", "a dog sits"], min_count=1)


def test_captions_end_in_eos_or_at_the_limit(tokenizer: WordTokenizer) -> None:
    (encoded,) = encode_captions([["A dog runs.", "a dog"]], tokenizer, max_tokens=3)
    a, dog = tokenizer.encode("a dog")
    assert encoded == [[a, dog, tokenizer.encode("runs")[0]], [a, dog, tokenizer.eos_id]]


def test_captions_without_a_word_are_refused(tokenizer: WordTokenizer) -> None:
    with pytest.raises(DatasetError) as caught:
        encode_captions([["..."], [" ! "]], tokenizer, max_tokens=9)
    assert str(caught.value) == (
        "The training captions hold no word; give images whose captions are sentences."
    )


def test_every_image_comes_once_an_epoch_in_another_order() -> None:
    captions = [[[1, 0]]] * 10
    epochs = [epoch_batches(captions, 4, torch.Generator().manual_seed(seed)) for seed in (0, 1, 0)]
    for epoch in epochs:
        assert [len(rows) for rows in epoch] == [4, 4, 2]
        assert sorted(torch.cat(epoch).tolist()) == list(range(10))
    first, second, again = (torch.cat(epoch).tolist() for epoch in epochs)
    assert first == again != second


def test_labels_are_the_tokens_and_ignore_nothing_but_padding() -> None:
    batch = make_batch(CAPTIONS, torch.tensor([2, 0]))
    expected = [*CAPTIONS[2], *CAPTIONS[0]]
    assert batch.rows.tolist() == [2, 0]
    assert batch.image_index.tolist() == [0, 0, 0, 1, 1]
    assert batch.labels.shape == batch.token_ids.shape == (5, 3)
    for labels, token_ids, caption in zip(batch.labels, batch.token_ids, expected, strict=True):
        assert labels.tolist() == caption + [IGNORED] * (3 - len(caption))
        assert token_ids[: len(caption)].tolist() == caption
    assert batch.token_ids.min() >= 0  # padding is an id that an embedding has


def test_groups_of_like_length_hold_every_caption_once() -> None:
    batch = make_batch(CAPTIONS, torch.tensor([0, 1, 2]))
    groups = list(split_by_length(batch, 3))
    assert [group.labels.shape for _, group in groups] == [(2, 2), (2, 3), (2, 5)]
    assert sorted(torch.cat([chosen for chosen, _ in groups]).tolist()) == list(range(6))
    for chosen, group in groups:
        length = group.labels.shape[1]
        assert torch.equal(group.labels, batch.labels[chosen, :length])
        assert torch.equal(group.token_ids, batch.token_ids[chosen, :length])
        assert torch.equal(group.image_index, batch.image_index[chosen])
        assert (batch.labels[chosen, length:] == IGNORED).all()
        assert torch.equal(group.rows, batch.rows)
    assert len(list(split_by_length(make_batch(CAPTIONS, torch.tensor([1]))))) == 1


def test_padding_is_what_torch_leaves_out() -> None:
    """The mean over a padded batch is the mean over its tokens, id 0 included."""
    batch = make_batch(CAPTIONS, torch.tensor([0, 1, 2]))
    logits = torch.randn(6, 5, 10, generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
    log_probs = logits.log_softmax(-1)
    captions = [caption for of_image in CAPTIONS for caption in of_image]
    terms = [-log_probs[c, t, token] for c, caption in enumerate(captions) for t, token in enumerate(caption)]
    assert loss.item() == pytest.approx(sum(float(term) for term in terms) / len(terms), rel=1e-5)
