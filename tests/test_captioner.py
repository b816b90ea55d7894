"""Images in, captions out, with both families: one or many, batched or not, in order, never in a heap."""

import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixtell.captioner import Caption, Captioner, as_sentence
from pixtell.decoding import DecodingOptions
from pixtell.errors import CheckpointError, ImageError, OptionError
from pixtell.models.packed import PackedLinear, can_pack


@pytest.fixture(scope="module", params=["clipcap", "lstm"])
def captioner(request: pytest.FixtureRequest, tiny_models: Path) -> Captioner:
    return Captioner.from_pretrained(tiny_models / request.param, device="cpu")


def test_one_in_one_out_and_many_in_many_out(captioner: Captioner, pictures: list[Path]) -> None:
    one = captioner.caption(pictures[0])
    assert isinstance(one, Caption)
    assert captioner.caption([pictures[0]]) == [one]
    assert captioner.caption(tuple(pictures[:1])) == [one]
    assert captioner.caption([]) == []


def test_a_batch_is_one_by_one_in_the_order_given(captioner: Captioner, pictures: list[Path]) -> None:
    alone = [captioner.caption(path) for path in pictures]
    assert len({caption.text for caption in alone}) > 1, "the test needs captions that differ"
    for batch_size in (1, 4, 16):
        together = captioner.caption(pictures, batch_size=batch_size)
        assert [caption.text for caption in together] == [caption.text for caption in alone]
        for caption, expected in zip(together, alone, strict=True):
            assert caption.logprob == pytest.approx(expected.logprob, abs=1e-4)
    backwards = captioner.caption(pictures[::-1])
    assert [caption.text for caption in backwards] == [caption.text for caption in alone[::-1]]


def test_every_kind_of_source_gives_the_same_caption(captioner: Captioner, pictures: list[Path]) -> None:
    path = pictures[1]  # a PNG
    image = Image.open(path)
    sources = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    assert len(set(captioner.caption(sources))) == 1


def test_the_caption_explains_itself(captioner: Captioner, pictures: list[Path]) -> None:
    for caption in captioner.caption(pictures):
        assert caption.text == as_sentence(captioner.tokenizer.decode(caption.token_ids))
        assert 1 <= len(caption.token_ids) <= 8
        assert caption.logprob < 0
        assert caption.mean_logprob * len(caption.token_ids) >= caption.logprob - 1e-5
        assert not caption.unsure


def test_several_captions_an_image_come_best_first(captioner: Captioner, pictures: list[Path]) -> None:
    of_each = captioner.caption(pictures, beam_size=3, num_captions=3, length_penalty=0.0)
    assert [len(captions) for captions in of_each] == [3] * len(pictures)
    for captions in of_each:
        assert len({caption.token_ids for caption in captions}) == 3
        assert [caption.logprob for caption in captions] == sorted(
            (caption.logprob for caption in captions), reverse=True
        )
    of_one = captioner.caption(pictures[0], beam_size=3, num_captions=3, length_penalty=0.0)
    assert [caption.text for caption in of_one] == [caption.text for caption in of_each[0]]


def test_sampling_repeats_with_its_seed(captioner: Captioner, pictures: list[Path]) -> None:
    def draw(seed: int) -> list[tuple[int, ...]]:
        drawn = captioner.caption(pictures, temperature=1.0, seed=seed)
        return [caption.token_ids for caption in drawn]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_options_of_a_call_go_over_those_of_the_model(captioner: Captioner, pictures: list[Path]) -> None:
    assert captioner.decoding == DecodingOptions(max_new_tokens=8)
    assert captioner.options(beam_size=2) == DecodingOptions(max_new_tokens=8, beam_size=2)
    assert len(captioner.caption(pictures[0], max_new_tokens=2).token_ids) <= 2
    with pytest.raises(
        OptionError, match=r"^There is no decoding option 'beams'; choose from beam_size, .*\.$"
    ):
        captioner.caption(pictures[0], beams=2)
    with pytest.raises(OptionError, match="--beam-size 0 is outside"):
        captioner.caption(pictures[0], beam_size=0)
    with pytest.raises(OptionError, match="--batch-size 0 is not above zero; give a number such as 16"):
        captioner.caption(pictures[0], batch_size=0)


@pytest.mark.parametrize(
    ("decoding", "sentence"),
    [
        (
            {"early_stopping": True},
            "--early-stopping changes nothing at --beam-size 1; add --beam-size 3 or leave it out.",
        ),
        (
            {"length_penalty": 0.7},  # the default, but typed
            "--length-penalty 0.7 changes nothing at --beam-size 1; add --beam-size 3 or leave it out.",
        ),
        (
            {"length_penalty": 1.0, "temperature": 0.5},
            "--length-penalty 1.0 changes nothing at --beam-size 1; leave it out.",
        ),
    ],
)
def test_what_only_beams_need_is_refused_without_them(
    captioner: Captioner, pictures: list[Path], decoding: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(OptionError) as caught:
        captioner.caption(pictures[0], **decoding)
    assert str(caught.value) == sentence


def test_what_waits_for_beams_is_no_fault_of_a_model() -> None:
    brought = DecodingOptions(length_penalty=1.0, early_stopping=True)
    assert brought.changed({"max_new_tokens": 9}) == replace(brought, max_new_tokens=9)
    assert brought.changed({"early_stopping": False}) == replace(brought, early_stopping=False)
    ranked = {"temperature": 1.0, "num_captions": 3, "length_penalty": 0.0}  # draws are ranked by it
    assert brought.changed(ranked) == replace(brought, **ranked)
    beams = replace(brought, beam_size=3)
    assert beams.changed({"length_penalty": 0.5}) == replace(beams, length_penalty=0.5)
    with pytest.raises(OptionError, match="--early-stopping changes nothing at --beam-size 1"):
        beams.changed({"beam_size": 1, "early_stopping": True})


def test_a_bad_image_is_raised_or_returned_in_its_place(
    captioner: Captioner, pictures: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    sources = [*pictures[:2], bad, *pictures[2:]]
    with pytest.raises(ImageError, match=r"bad\.jpg: it is not an image"):
        captioner.caption(sources)
    results = captioner.caption(sources, on_error="return", batch_size=2)
    assert isinstance(results[2], ImageError)
    assert results[2].name == str(bad)
    good = [result for result in results if isinstance(result, Caption)]
    assert [caption.text for caption in good] == [
        caption.text for caption in captioner.caption(pictures, batch_size=2)
    ]
    assert isinstance(captioner.caption(bad, on_error="return"), ImageError)
    assert len(captioner.caption([bad] * 5, on_error="return", batch_size=2)) == 5


def test_a_stream_reads_no_further_than_it_must(captioner: Captioner, pictures: list[Path]) -> None:
    read = 0

    def endless() -> Iterator[Path]:
        nonlocal read
        while True:
            read += 1
            yield pictures[read % len(pictures)]

    stream = captioner.stream(endless(), batch_size=4)
    assert read == 0
    for _ in range(10):
        next(stream)
    assert read < 60  # three batches, and the look-ahead of at most eight threads
    stream.close()  # type: ignore[attr-defined]


def encoder_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("pixtell-encoder")]


def test_the_next_batch_is_encoded_while_one_is_captioned(
    captioner: Captioner, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three batches, the second is being encoded before the first has captions, and the third waits."""
    started: list[str] = []
    second_began = threading.Event()
    encode, caption_features = captioner.encode, captioner.caption_features

    def note_encode(images: torch.Tensor) -> torch.Tensor:
        started.append("encode")
        if started.count("encode") == 2:
            second_began.set()
        return encode(images)

    def note_captions(features: torch.Tensor, options: DecodingOptions) -> list[list[Caption]]:
        assert second_began.wait(60), "nobody encodes the second batch while the first is captioned"
        started.append("caption")
        return caption_features(features, options)

    monkeypatch.setattr(captioner, "encode", note_encode)
    monkeypatch.setattr(captioner, "caption_features", note_captions)
    stream = captioner.stream(pictures[:2] * 3, batch_size=2)
    next(stream)
    assert started == ["encode", "encode", "caption"]
    assert len(list(stream)) == 5
    assert started.count("encode") == started.count("caption") == 3
    assert encoder_threads() == []


def test_a_stream_that_is_left_or_fails_leaves_no_thread(
    captioner: Captioner, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = captioner.stream(pictures * 3, batch_size=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert encoder_threads() == []

    encode, calls = captioner.encode, itertools.count()

    def fail_second(images: torch.Tensor) -> torch.Tensor:
        if next(calls) == 1:
            raise MemoryError
        return encode(images)

    monkeypatch.setattr(captioner, "encode", fail_second)
    results = []
    with pytest.raises(MemoryError):
        results.extend(captioner.stream(pictures[:2] * 3, batch_size=2))
    assert len(results) == 2, "the first batch is captioned all the same"
    assert encoder_threads() == []


def test_a_bad_image_is_raised_after_the_captions_before_it(
    captioner: Captioner, pictures: list[Path]
) -> None:
    results = []
    with pytest.raises(ImageError):
        results.extend(captioner.stream([*pictures[:3], b"no picture", *pictures], batch_size=2))
    assert len(results) == 3


def test_weights_are_packed_where_they_can_be(captioner: Captioner, tiny_models: Path) -> None:
    def packed(of: Captioner) -> bool:
        assert isinstance(of.model, torch.nn.Module)
        return any(isinstance(module, PackedLinear) for module in of.model.modules())

    assert packed(captioner) == can_pack(torch.zeros(1, 1))
    assert not packed(Captioner.from_pretrained(tiny_models / "lstm", device="cpu", dtype="bf16"))


def test_nothing_is_left_to_autograd(captioner: Captioner, pictures: list[Path]) -> None:
    image = captioner.encoder.preprocess.resize_image(np.asarray(Image.open(pictures[1]).convert("RGB")))
    features = captioner.encode(image[None])
    assert features.shape == (1, *captioner.encoder.feature_shape)
    assert not features.requires_grad
    [[caption]] = captioner.caption_features(features)
    assert caption == captioner.caption(pictures[1])


def test_half_the_precision_says_nearly_the_same(tiny_models: Path, pictures: list[Path]) -> None:
    exact = Captioner.from_pretrained(tiny_models / "clipcap").caption(pictures)
    short = Captioner.from_pretrained(tiny_models / "clipcap", dtype="bf16")
    assert next(short.model.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]
    pairs = zip(exact, short.caption(pictures), strict=True)
    assert sum(a.token_ids[:1] == b.token_ids[:1] for a, b in pairs) >= 4


def test_a_caption_less_likely_than_usual_is_unsure(
    tiny_models: Path, pictures: list[Path], tmp_path: Path
) -> None:
    usual = Captioner.from_pretrained(tiny_models / "clipcap").caption(pictures)
    means = sorted(caption.mean_logprob for caption in usual)
    limit = (means[0] + means[1]) / 2
    shutil.copytree(tiny_models, tmp_path / "m")
    change_config(tmp_path / "m" / "clipcap", unsure_below=limit)
    captions = Captioner.from_pretrained(tmp_path / "m" / "clipcap").caption(pictures)
    assert [caption.unsure for caption in captions] == [caption.mean_logprob < limit for caption in captions]
    assert sum(caption.unsure for caption in captions) == 1


@pytest.mark.parametrize("decoding", [{"beams": 3}, {"beam_size": "three"}, {"top_p": 7}])
def test_stored_decoding_that_cannot_be_used_is_one_sentence(
    tiny_models: Path, tmp_path: Path, decoding: dict[str, object]
) -> None:
    shutil.copytree(tiny_models, tmp_path / "m")
    change_config(tmp_path / "m" / "lstm", decoding=decoding)
    with pytest.raises(CheckpointError) as error:
        Captioner.from_pretrained(tmp_path / "m" / "lstm")
    start = f"{tmp_path / 'm' / 'lstm' / 'config.json'} has decoding defaults that cannot be used ("
    assert str(error.value).startswith(start)
    assert str(error.value).endswith("); correct them, or take the pixtell that wrote them.")


def change_config(checkpoint: Path, **changes: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a dog runs .", "A dog runs."),
        (" a  dog\nruns", "A dog runs."),
        ("is it a dog ?", "Is it a dog."),
        ("", "A picture."),
        (" . ", "A picture."),
        ("3 dogs", "3 dogs."),
        ("élan", "Élan."),
    ],
)
def test_sentences(text: str, sentence: str) -> None:
    assert as_sentence(text) == sentence


@given(st.text())
def test_whatever_a_model_says_becomes_a_sentence(text: str) -> None:
    sentence = as_sentence(text)
    assert len(sentence) > 1
    assert sentence.isprintable()
    assert sentence[0] == sentence[0].upper()
    assert sentence.endswith(".")
    assert not sentence[:-1].endswith((".", " "))
    assert as_sentence(sentence) == sentence


def test_a_temperature_alone_draws_whatever_beams_the_model_brings(captioner: Captioner) -> None:
    with_beams = Captioner(
        name="with beams",
        encoder=captioner.encoder,
        model=captioner.model,
        tokenizer=captioner.tokenizer,
        decoding=DecodingOptions(beam_size=3),
        placement=captioner.placement,
    )
    assert with_beams.options(temperature=0.8).beam_size == 1
    assert with_beams.options(temperature=0.0).beam_size == 3
    with pytest.raises(OptionError, match="--beam-size"):
        with_beams.options(temperature=0.8, beam_size=3).validate()


def test_batches_of_a_stream_draw_differently(captioner: Captioner, pictures: list[Path]) -> None:
    options = captioner.options(temperature=2.0, seed=1)
    same_picture = [pictures[0]] * 8
    drawn = list(captioner.stream(same_picture, options=options, batch_size=1))
    assert len({caption.text for caption in drawn if isinstance(caption, Caption)}) > 1
