"""How captions are chosen: the options of every search, their limits and what excludes what."""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any

from pixtell.errors import OptionError
from pixtell.options import flag_name, option


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How captions are chosen. `decode` calls `validate` first, which reads the limits and examples."""

    beam_size: int = option(1, "Live sequences an image in beam search; 1: greedy, or draws.", example=3)
    max_new_tokens: int = option(30, "Limit of a caption in tokens, the end token counted.", example=30)
    length_penalty: float = option(
        0.7, "Captions rank by logprob / length**A; more: longer ones.", limits="[-5, 5]", example=0.7
    )
    temperature: float = option(
        0.0, "0 takes the likeliest; above 0 draws (beam size 1).", limits="[0, 100]", example=0.7
    )
    top_k: int | None = option(None, "Draw among the K likeliest tokens; left out: all.", example=50)
    top_p: float | None = option(
        None, "Draw among the fewest tokens of mass P; left out: all.", limits="(0, 1]", example=0.9
    )
    num_captions: int = option(1, "Captions an image; at most the beam size, unless drawn.", example=1)
    seed: int = option(0, "Seed of the draws: same batch, same captions.", limits="[0, 1e18]", example=0)
    min_length: int = option(1, "Least tokens before the end token; 0: none.", limits="[0, inf)", example=5)
    repetition_penalty: float = option(
        1.0, "Above 1, tokens that were used become less likely.", limits="[0.01, 100]", example=1.2
    )
    no_repeat_ngram_size: int | None = option(
        None, "No run of so many tokens comes twice; left out: it may.", example=3
    )
    early_stopping: bool = option(
        False, "Beam search ends where no sequence would win as it stands: quicker, not exact.", example=True
    )

    def validate(self) -> None:
        """Raises: OptionError with a sentence for each problem; rules across fields come last."""
        problems = [text for field in fields(self) for text in _field_problems(self, field)]
        if problems := problems or list(_conflicts(self)):
            raise OptionError(" ".join(problems))

    def changed(self, given: Mapping[str, Any]) -> "DecodingOptions":
        """These, a model's own, with the fields that a person gave. Who asks for a temperature and no beam
        size draws, whatever beams the model brings.

        Raises: OptionError for a field that does not exist, and for one that was given and changes nothing.
        """
        names = {field.name for field in fields(self)}
        if unknown := sorted(set(given) - names):
            raise OptionError(
                f"There is no decoding option {unknown[0]!r}; choose from {', '.join(sorted(names))}."
            )
        draws = {"beam_size": 1} if given.get("temperature") else {}
        options = replace(self, **(draws | dict(given)))
        if problems := list(_idle(options, given)):
            raise OptionError(" ".join(problems))
        return options


def _idle(options: DecodingOptions, given: Mapping[str, Any]) -> Iterator[str]:
    """Of a model's own options these are no fault: they wait for a beam size."""
    if options.beam_size != 1:
        return
    or_beams = "leave it out" if options.temperature else "add --beam-size 3 or leave it out"
    if given.get("early_stopping") is True:
        yield f"--early-stopping changes nothing at --beam-size 1; {or_beams}."
    if "length_penalty" in given and options.num_captions == 1:
        yield f"--length-penalty {given['length_penalty']} changes nothing at --beam-size 1; {or_beams}."


def _field_problems(options: DecodingOptions, field: Field[Any]) -> Iterator[str]:
    value, example = getattr(options, field.name), field.metadata["example"]
    if isinstance(example, bool):
        if not isinstance(value, bool):
            yield f"{flag_name(field.name)} {value} is neither true nor false; give one of them."
        return
    limits, whole = field.metadata.get("limits", "[1, inf)"), isinstance(example, int)
    low, high = (float(limit) for limit in limits[1:-1].split(","))
    if value is None and field.default is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        wrong = f"is not a {'whole ' * whole}number"
    elif not low <= value <= high or (value == low and limits[0] == "("):
        wrong = f"is outside {limits}"
    else:
        return
    yield f"{flag_name(field.name)} {value} {wrong}; give a number such as {example}."


def _conflicts(options: DecodingOptions) -> Iterator[str]:
    temperature, beam_size = options.temperature, options.beam_size
    if temperature > 0 and beam_size > 1:
        yield f"--temperature {temperature} draws, which --beam-size {beam_size} cannot do; leave one out."
    for flag, value in (("--top-k", options.top_k), ("--top-p", options.top_p)):
        if temperature == 0 and value is not None:
            yield f"{flag} {value} changes nothing at --temperature 0; add --temperature 1 or leave it out."
    if temperature == 0 and options.num_captions > beam_size:
        yield (
            f"--num-captions {options.num_captions} is more than --beam-size {beam_size} can find; "
            f"give --beam-size {options.num_captions}, or --temperature 1 to draw them."
        )
    if options.min_length > options.max_new_tokens:
        excess = f"--min-length {options.min_length} is more than --max-new-tokens {options.max_new_tokens}"
        yield f"{excess}; lower the one or raise the other."
