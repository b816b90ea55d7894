"""decoding/ through its real seam.

Decoders are tables of logits; oracles are searches in plain Python and transformers' generate.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pixtell.decoding import DecodedCaption, DecodingOptions, decode, generate
from pixtell.errors import ModelError, OptionError
from pixtell.models.clipcap import ClipCap, ClipCapConfig
from pixtell.models.gpt2 import Gpt2Config

EOS = 0
WORDS = (1, 2, 3)
V = 4


class TableDecoder:
    """A language model of order two: features (B, V, V, V) are the logits after each pair of tokens."""

    def __init__(self) -> None:
        self.steps: list[int] = []  # rows of each call

    def start(self, features: Tensor) -> tuple[Tensor, Any]:
        eos = torch.full((len(features),), EOS)
        return self._logits((features, eos, eos)), (features, eos, eos)

    def step(self, token_ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        self.steps.append(len(token_ids))
        state = (state[0], state[2], token_ids)
        return self._logits(state), state

    def reorder(self, state: Any, beam_index: Tensor) -> Any:
        return tuple(part[beam_index] for part in state)

    @staticmethod
    def _logits(state: Any) -> Tensor:
        table, before, last = state
        return table[torch.arange(len(table)), before, last]


def random_tables(num_images: int, seed: int = 0, sharpness: float = 1.5, vocab_size: int = V) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_images, *3 * [vocab_size], generator=generator) * sharpness


def teacher_forced(table: Tensor, token_ids: list[int]) -> float:
    """The oracle's logprob: plain arithmetic, one token at a time."""
    total, before, last = 0.0, EOS, EOS
    for token_id in token_ids:
        row = [float(logit) for logit in table[before, last]]
        total += row[token_id] - math.log(sum(math.exp(logit) for logit in row))
        before, last = last, token_id
    return total


def new_tokens(caption: DecodedCaption) -> list[int]:
    return [*caption.token_ids, *([EOS] if caption.finished else [])]


def all_sequences(max_new_tokens: int) -> Iterator[list[int]]:
    for length in range(max_new_tokens):
        for words in itertools.product(WORDS, repeat=length):
            yield [*words, EOS]
    yield from (list(words) for words in itertools.product(WORDS, repeat=max_new_tokens))


def run(features: Tensor, **options: Any) -> list[list[DecodedCaption]]:
    return decode(TableDecoder(), features, DecodingOptions(**options), eos_id=EOS)


def ids_of(captions: list[list[DecodedCaption]]) -> list[list[list[int]]]:
    return [[new_tokens(caption) for caption in one] for one in captions]


@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 0.7, 2.0])
@pytest.mark.parametrize("min_length", [0, 2])
def test_beam_search_with_enough_beams_finds_the_best_of_all_sequences(
    length_penalty: float, min_length: int
) -> None:
    tables, limit = random_tables(5), 4
    found = run(
        tables,
        beam_size=100,
        num_captions=6,
        max_new_tokens=limit,
        length_penalty=length_penalty,
        min_length=min_length,
    )
    for table, captions in zip(tables, found, strict=True):
        ranked = sorted(
            (teacher_forced(table, ids) / len(ids) ** length_penalty, ids)
            for ids in all_sequences(limit)
            if len(ids) > min_length
        )
        assert [new_tokens(caption) for caption in captions] == [ids for _, ids in reversed(ranked[-6:])]


def test_beam_search_matches_a_plain_one_with_few_beams() -> None:
    """The oracle: lists, one image, no batch; no early exit, or the one that is asked for."""

    def plain(table: Tensor, beam_size: int, limit: int, penalty: float, early: bool) -> list[int]:
        live: list[tuple[float, list[int]]] = [(0.0, [])]
        ended: list[tuple[float, list[int]]] = []
        for length in range(1, limit + 1):
            grown = [
                (teacher_forced(table, [*ids, token]), [*ids, token])
                for _, ids in live
                for token in range(len(table))
            ]
            grown = sorted(grown, reverse=True)[: 2 * beam_size]
            ended += [
                (total / length**penalty, ids)
                for total, ids in grown[:beam_size]
                if ids[-1] == EOS or length == limit
            ]
            live = [(total, ids) for total, ids in grown if ids[-1] != EOS][:beam_size]
            if early and ended and max(ended)[0] >= live[0][0] / length**penalty:
                break
        return max(ended)[1]

    few_words, more_words = random_tables(40, seed=1), random_tables(10, seed=2, vocab_size=13)
    different = 0
    for tables, beam_size, penalty in itertools.product((few_words, more_words), (2, 3, 5), (0.0, 0.7, -1.0)):
        options = {"beam_size": beam_size, "max_new_tokens": 7, "length_penalty": penalty, "min_length": 0}
        exact, early = (
            [ids[0] for ids in ids_of(run(tables, **options, early_stopping=early))]
            for early in (False, True)
        )
        assert exact == [plain(table, beam_size, 7, penalty, early=False) for table in tables]
        assert early == [plain(table, beam_size, 7, penalty, early=True) for table in tables]
        different += exact != early
    assert different > 0


def test_a_long_caption_overtakes_under_a_strong_length_penalty() -> None:
    """An image stays until the longest caption that is allowed could no longer win, not just the next one.

    Ending after two tokens ranks log(0.9) / 2**2 = -0.026; going on costs log(0.1) and nothing more:
    -0.256 at three tokens, -0.016 at twelve.
    """
    table = torch.full((1, V, V, V), -30.0)
    table[..., 3] = 0
    table[0, EOS, EOS] = torch.tensor([-30.0, 0, -30, -30])
    table[0, EOS, 1, [EOS, 2]] = torch.tensor([0.9, 0.1]).log()
    table[0, EOS, 1, 3] = -30
    ((caption,),) = run(table, beam_size=2, max_new_tokens=12, length_penalty=2.0)
    assert caption.token_ids == (1, 2, *[3] * 10)
    ((caption,),) = run(table, beam_size=2, max_new_tokens=6, length_penalty=2.0)
    assert caption.token_ids == (1,)
    ((caption,),) = run(table, beam_size=2, max_new_tokens=12, length_penalty=2.0, early_stopping=True)
    assert caption.token_ids == (1,)


def test_greedy_takes_the_likeliest_token_each_time() -> None:
    tables = random_tables(30, seed=2)
    for table, (caption,) in zip(tables, run(tables, max_new_tokens=8, min_length=0), strict=True):
        before, last, expected = EOS, EOS, list[int]()
        while len(expected) < 8 and EOS not in expected:
            expected.append(int(table[before, last].argmax()))
            before, last = last, expected[-1]
        assert new_tokens(caption) == expected
        assert caption.finished == (expected[-1] == EOS)
        assert caption.num_tokens == len(expected)


def test_beam_one_and_top_k_one_and_a_tiny_temperature_are_greedy() -> None:
    tables = random_tables(20, seed=3)
    greedy = ids_of(run(tables, max_new_tokens=8))
    assert ids_of(run(tables, max_new_tokens=8, beam_size=1)) == greedy
    assert ids_of(run(tables, max_new_tokens=8, temperature=1.0, top_k=1)) == greedy
    assert ids_of(run(tables, max_new_tokens=8, temperature=1.0, top_p=1e-9)) == greedy
    assert ids_of(run(tables, max_new_tokens=8, temperature=1e-40)) == greedy


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beam_size": 3, "num_captions": 2},
        {"beam_size": 2, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
        {"repetition_penalty": 1.5, "min_length": 3},
    ],
)
def test_a_batch_equals_one_by_one(options: dict[str, Any]) -> None:
    tables = random_tables(25, seed=4)
    together = run(tables, max_new_tokens=9, **options)
    alone = [run(table[None], max_new_tokens=9, **options)[0] for table in tables]
    assert ids_of(together) == ids_of(alone)
    for one, other in zip(itertools.chain(*together), itertools.chain(*alone), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"min_length": 0},
        {"beam_size": 4, "num_captions": 4},
        {"temperature": 1.7, "top_k": 3, "top_p": 0.8, "num_captions": 5, "repetition_penalty": 2.0},
        {"temperature": 9.0, "num_captions": 7, "min_length": 0},
        {"beam_size": 3, "repetition_penalty": 1.4, "min_length": 4},
    ],
)
def test_logprob_is_the_teacher_forced_sum_before_filters_and_the_best_comes_first(
    options: dict[str, Any],
) -> None:
    tables = random_tables(15, seed=5)
    for table, captions in zip(tables, run(tables, max_new_tokens=6, **options), strict=True):
        assert len(captions) == options.get("num_captions", 1)
        for caption in captions:
            assert caption.logprob == pytest.approx(teacher_forced(table, new_tokens(caption)), abs=1e-4)
        ranks = [caption.logprob / caption.num_tokens**0.7 for caption in captions]
        assert ranks == sorted(ranks, reverse=True)


def test_samples_follow_the_distribution_and_the_seed() -> None:
    table = random_tables(1, seed=6, sharpness=1.0)
    count = 4000
    options = {"temperature": 0.8, "num_captions": count, "max_new_tokens": 2, "min_length": 0}
    (captions,) = run(table, **options, seed=11)
    seen = Counter(tuple(new_tokens(caption)) for caption in captions)
    chi_square, num_cells = 0.0, 0
    for ids in all_sequences(2):
        expected = count * math.exp(teacher_forced(table[0] / 0.8, ids))
        chi_square += (seen[tuple(ids)] - expected) ** 2 / expected
        num_cells += 1
    # Mean num_cells - 1 = 12, standard deviation about 5.
    assert num_cells == 13
    assert chi_square < 40
    assert run(table, **options, seed=11) == [captions]
    assert run(table, **options, seed=12) != [captions]


def test_samples_of_two_images_are_drawn_apart() -> None:
    table = torch.zeros(1, V, V, V).expand(8, V, V, V)
    captions = run(table, temperature=1.0, max_new_tokens=10)
    assert len({caption.token_ids for (caption,) in captions}) > 4


def test_sampling_draws_only_from_the_nucleus() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.3, 0.1])
    table = probabilities.log().expand(1, V, V, V)
    (captions,) = run(table, temperature=1.0, top_p=0.6, num_captions=300, max_new_tokens=3)
    assert {token for caption in captions for token in caption.token_ids} == {1, 2}


def test_a_model_that_only_ends() -> None:
    table = torch.full((3, V, V, V), -50.0)
    table[..., EOS] = 0
    for options in ({}, {"beam_size": 3}, {"temperature": 1.0, "num_captions": 2}):
        captions = run(table, min_length=0, **options)
        assert [len(one) for one in captions] == [options.get("num_captions", 1)] * 3
        assert all(new_tokens(one[0]) == [EOS] and one[0].finished for one in captions)
        assert captions[0][0].num_tokens == 1
        assert captions[0][0].logprob == pytest.approx(0)


def test_a_vocabulary_of_the_end_token_alone() -> None:
    table = torch.zeros(2, 1, 1, 1)
    for options in ({}, {"beam_size": 3, "num_captions": 3}, {"temperature": 1.0}):
        captions = run(table, **options)  # min_length 1 bans all there is: the caption may end
        assert ids_of(captions) == [[[EOS]], [[EOS]]]


def test_a_model_that_never_ends_stops_at_the_limit() -> None:
    table = random_tables(3)
    table[..., EOS] = -math.inf
    for options in ({}, {"beam_size": 3}, {"temperature": 1.0}):
        for (caption,) in run(table, max_new_tokens=5, **options):
            assert not caption.finished
            assert caption.num_tokens == len(caption.token_ids) == 5


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"temperature": 2.0}])
def test_min_length_no_repeats_and_forbidden_ids_hold(options: dict[str, Any]) -> None:
    tables = random_tables(20, seed=7)
    for (caption,) in run(tables, max_new_tokens=8, min_length=4, **options):
        assert len(caption.token_ids) >= 4
    for (caption,) in run(tables, max_new_tokens=8, no_repeat_ngram_size=2, **options):
        pairs = list(itertools.pairwise(caption.token_ids))
        assert len(set(pairs)) == len(pairs)
    forbidden = decode(TableDecoder(), tables, DecodingOptions(**options), eos_id=EOS, forbidden_ids={2, 1})
    assert {token for (caption,) in forbidden for token in caption.token_ids} == {3}


def test_a_caption_with_nothing_left_to_say_ends_before_min_length() -> None:
    table = random_tables(2, seed=8)
    for options in ({}, {"beam_size": 2}, {"temperature": 1.0}):
        for (caption,) in run(table, no_repeat_ngram_size=1, min_length=9, max_new_tokens=9, **options):
            assert sorted(caption.token_ids) == [1, 2, 3]
            assert caption.finished


def test_a_strong_repetition_penalty_stops_a_loop() -> None:
    table = torch.zeros(1, V, V, V)
    table[..., 1] = 4
    table[..., 2] = 3.9
    assert set(run(table, max_new_tokens=6)[0][0].token_ids) == {1}
    assert set(run(table, max_new_tokens=6, repetition_penalty=1.5)[0][0].token_ids) == {1, 2}
    beams = run(table, max_new_tokens=6, repetition_penalty=1.5, beam_size=2)
    assert set(beams[0][0].token_ids) == {1, 2}


@pytest.mark.parametrize(
    ("options", "rows"), [({}, 6), ({"beam_size": 3}, 18), ({"temperature": 1.0, "num_captions": 2}, 12)]
)
def test_each_new_token_costs_one_step_of_one_token_a_row(options: dict[str, Any], rows: int) -> None:
    table = random_tables(6)
    table[..., EOS] = -math.inf
    decoder = TableDecoder()
    decode(decoder, table, DecodingOptions(max_new_tokens=7, **options), eos_id=EOS)
    assert decoder.steps == [rows] * 6  # the first token comes from `start`


def test_images_that_are_done_leave_the_batch() -> None:
    """Image i ends after i + 1 words: rows fall as images end, and nothing runs on for those that have."""
    length = 4
    tables = torch.full((length, V, V, V), -20.0)
    for image in range(length):  # the chain 1, 2, 3, 3, ... leaves for eos after image + 1 words
        tables[image, EOS, EOS, 1] = 0
        tables[image, EOS, 1, EOS if image == 0 else 2] = 0
        tables[image, 1, 2, EOS if image == 1 else 3] = 0
        tables[image, 2, 3, EOS if image == 2 else 1] = 0
        tables[image, 3, 1, EOS] = 0
    for beam_size in (1, 2):
        decoder = TableDecoder()
        captions = decode(decoder, tables, DecodingOptions(beam_size=beam_size), eos_id=EOS)
        assert [one[0].num_tokens for one in captions] == [2, 3, 4, 5]
        assert decoder.steps == [rows * beam_size for rows in (4, 3, 2, 1)]


class CountWaits(TorchDispatchMode):
    """Counts the operators that bring a value from the device to Python or need one there."""

    waiting = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        boolean_index = name.startswith("index") and any(
            isinstance(part, Tensor) and part.dtype == torch.bool
            for part in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        self.count += name in self.waiting or boolean_index
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beam_size": 4, "num_captions": 2},
        {"temperature": 1.0, "top_k": 3, "top_p": 0.9, "num_captions": 3},
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_length": 5},
    ],
)
def test_a_step_waits_for_the_device_at_most_once(options: dict[str, Any]) -> None:
    searches = generate(TableDecoder(), random_tables(9), DecodingOptions(**options), eos_id=EOS)
    counts = []
    search: Any = True
    while search is not None:
        with CountWaits() as waits:
            search = next(searches, None)
        counts.append(waits.count)
    assert len(counts) > 3
    assert set(counts[:-2]) == {1}
    assert max(counts) == 1


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"temperature": 1.0, "num_captions": 2}])
def test_generate_shows_the_captions_growing_and_decode_collects_them(options: dict[str, Any]) -> None:
    tables = random_tables(4, seed=9)
    settings = DecodingOptions(max_new_tokens=6, **options)
    seen = []
    for search in generate(TableDecoder(), tables, settings, eos_id=EOS):
        seen.append(search.captions())
        assert torch.is_grad_enabled()
    assert seen[-1] == decode(TableDecoder(), tables, settings, eos_id=EOS)
    for step, captions in enumerate(seen, start=1):
        assert max(caption.num_tokens for one in captions for caption in one) <= step
        assert all(len(one) == settings.num_captions for one in captions)
    if settings.num_captions == 1 and settings.beam_size == 1:
        for earlier, later in itertools.pairwise(seen):
            for (shorter,), (longer,) in zip(earlier, later, strict=True):
                assert longer.token_ids[: len(shorter.token_ids)] == shorter.token_ids


def test_bfloat16_logits_are_summed_in_float32() -> None:
    tables = random_tables(5, seed=10).bfloat16()
    for beam_size in (1, 3):
        for table, (caption,) in zip(
            tables, run(tables, beam_size=beam_size, max_new_tokens=20), strict=True
        ):
            assert caption.logprob == pytest.approx(teacher_forced(table, new_tokens(caption)), abs=1e-4)


def test_no_gradient_is_recorded_and_inference_mode_works() -> None:
    tables = random_tables(2).requires_grad_()
    with torch.inference_mode():
        expected = [run(tables, beam_size=beam_size) for beam_size in (1, 3)]
    assert [run(tables, beam_size=beam_size) for beam_size in (1, 3)] == expected
    for search in generate(TableDecoder(), tables, DecodingOptions(), eos_id=EOS):
        assert not search.logprob.requires_grad  # type: ignore[attr-defined]


def test_no_images_give_no_captions() -> None:
    assert run(random_tables(3)[:0]) == []
    assert run(random_tables(3)[:0], beam_size=3) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beam_size": 0}, "--beam-size 0 is outside [1, inf); give a number such as 3."),
        ({"beam_size": 2.5}, "--beam-size 2.5 is not a whole number; give a number such as 3."),
        ({"beam_size": True}, "--beam-size True is not a whole number; give a number such as 3."),
        ({"beam_size": None}, "--beam-size None is not a whole number; give a number such as 3."),
        ({"early_stopping": 1}, "--early-stopping 1 is neither true nor false; give one of them."),
        ({"max_new_tokens": 0}, "--max-new-tokens 0 is outside [1, inf); give a number such as 30."),
        ({"length_penalty": math.nan}, "--length-penalty nan is outside [-5, 5]; give a number such as 0.7."),
        ({"length_penalty": 9}, "--length-penalty 9 is outside [-5, 5]; give a number such as 0.7."),
        ({"temperature": -1.0}, "--temperature -1.0 is outside [0, 100]; give a number such as 0.7."),
        ({"temperature": math.inf}, "--temperature inf is outside [0, 100]; give a number such as 0.7."),
        ({"temperature": "hot"}, "--temperature hot is not a number; give a number such as 0.7."),
        ({"top_k": 0}, "--top-k 0 is outside [1, inf); give a number such as 50."),
        ({"top_p": 1.5}, "--top-p 1.5 is outside (0, 1]; give a number such as 0.9."),
        ({"top_p": 0.0}, "--top-p 0.0 is outside (0, 1]; give a number such as 0.9."),
        ({"num_captions": 0}, "--num-captions 0 is outside [1, inf); give a number such as 1."),
        ({"seed": -1}, "--seed -1 is outside [0, 1e18]; give a number such as 0."),
        ({"min_length": -1}, "--min-length -1 is outside [0, inf); give a number such as 5."),
        (
            {"repetition_penalty": 0},
            "--repetition-penalty 0 is outside [0.01, 100]; give a number such as 1.2.",
        ),
        (
            {"no_repeat_ngram_size": 0},
            "--no-repeat-ngram-size 0 is outside [1, inf); give a number such as 3.",
        ),
        (
            {"temperature": 0.7, "beam_size": 3},
            "--temperature 0.7 draws, which --beam-size 3 cannot do; leave one out.",
        ),
        (
            {"top_k": 5},
            "--top-k 5 changes nothing at --temperature 0; add --temperature 1 or leave it out.",
        ),
        (
            {"top_p": 0.9},
            "--top-p 0.9 changes nothing at --temperature 0; add --temperature 1 or leave it out.",
        ),
        (
            {"num_captions": 5, "beam_size": 3},
            "--num-captions 5 is more than --beam-size 3 can find; "
            "give --beam-size 5, or --temperature 1 to draw them.",
        ),
        (
            {"min_length": 40},
            "--min-length 40 is more than --max-new-tokens 30; lower the one or raise the other.",
        ),
        (
            {"top_p": 2, "beam_size": -1},
            "--beam-size -1 is outside [1, inf); give a number such as 3. "
            "--top-p 2 is outside (0, 1]; give a number such as 0.9.",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_runs(
    options: dict[str, Any], sentence: str
) -> None:
    decoder = TableDecoder()
    with pytest.raises(OptionError) as caught:
        generate(decoder, random_tables(1), DecodingOptions(**options), eos_id=EOS)
    assert str(caught.value) == sentence
    with pytest.raises(OptionError):
        run(random_tables(1), **options)


def test_every_option_has_help_limits_and_an_example_within_them() -> None:
    DecodingOptions().validate()
    for field in dataclasses.fields(DecodingOptions):
        assert field.metadata["help"]
        extra = {"beam_size": 9} if field.name == "num_captions" else {}
        extra |= {"temperature": 1.0} if field.name.startswith("top_") else {}
        DecodingOptions(**{field.name: field.metadata["example"], **extra}).validate()


@pytest.fixture(scope="module")
def clipcap() -> ClipCap:
    gpt2 = Gpt2Config(vocab_size=40, width=32, num_layers=2, num_heads=4, max_positions=64)
    torch.manual_seed(0)
    model = ClipCap(ClipCapConfig(feature_dim=8, gpt2=gpt2, prefix_length=3)).eval()
    with torch.no_grad():
        for name, parameter in model.gpt2.named_parameters():
            if name.endswith("weight") and parameter.dim() > 1:
                parameter *= 8  # so that tokens differ in likelihood and depend on what came before
    return model


@pytest.fixture(scope="module")
def transformers_gpt2(clipcap: ClipCap) -> Any:
    transformers = pytest.importorskip("transformers")
    ours = clipcap.gpt2.config
    config = transformers.GPT2Config(
        vocab_size=ours.vocab_size,
        n_embd=ours.width,
        n_layer=ours.num_layers,
        n_head=ours.num_heads,
        n_positions=ours.max_positions,
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    transposed = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    weights = {
        name: weight.T if name.endswith(transposed) else weight
        for name, weight in clipcap.gpt2.state_dict().items()
    }
    theirs.transformer.load_state_dict(weights)
    return theirs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_length": 4},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"beam_size": 4, "num_captions": 4},
        {"beam_size": 4, "num_captions": 4, "early_stopping": True},
        {"beam_size": 3, "length_penalty": 0.0},
        {"beam_size": 3, "length_penalty": 1.0, "min_length": 5},
        {"beam_size": 5, "length_penalty": -1.0, "num_captions": 2},
        {"beam_size": 3, "no_repeat_ngram_size": 1},
        {"beam_size": 3, "repetition_penalty": 1.4},
    ],
)
@pytest.mark.filterwarnings("ignore:Passing .* with `inputs_embeds`")
def test_captions_equal_those_of_transformers_generate(
    clipcap: ClipCap, transformers_gpt2: Any, options: dict[str, Any]
) -> None:
    eos_id, forbidden, limit = 30, [3, 11], 12
    features = 3 * torch.randn(9, 8, generator=torch.Generator().manual_seed(1))
    settings = DecodingOptions(max_new_tokens=limit, **options)
    ours = decode(clipcap, features, settings, eos_id=eos_id, forbidden_ids=forbidden)
    assert len({caption.num_tokens for one in ours for caption in one}) > 1

    with torch.no_grad():
        prefix = clipcap.map_features(features)  # (B, P, D)
    result = transformers_gpt2.generate(
        inputs_embeds=prefix,
        attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long),
        do_sample=False,
        num_beams=settings.beam_size,
        num_return_sequences=settings.num_captions,
        max_new_tokens=limit,
        min_new_tokens=settings.min_length,
        length_penalty=settings.length_penalty,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram_size=settings.no_repeat_ngram_size or 0,
        suppress_tokens=forbidden,
        early_stopping="never" if settings.beam_size > 1 and not settings.early_stopping else False,
        eos_token_id=eos_id,
        pad_token_id=eos_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    theirs = [
        tuple(itertools.takewhile(lambda token: token != eos_id, ids)) for ids in result.sequences.tolist()
    ]
    flat = [caption for one in ours for caption in one]
    assert [caption.token_ids for caption in flat] == theirs
    if settings.beam_size > 1 and settings.repetition_penalty == 1:  # theirs is the penalised sum
        ranks = [caption.logprob / caption.num_tokens**settings.length_penalty for caption in flat]
        assert ranks == pytest.approx(result.sequences_scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_logits_that_are_not_numbers_are_one_sentence(beam_size: int) -> None:
    with pytest.raises(ModelError, match=r"logits are not numbers \(NaN\).*lower --learning-rate"):
        run(torch.full_like(random_tables(2), float("nan")), beam_size=beam_size)
