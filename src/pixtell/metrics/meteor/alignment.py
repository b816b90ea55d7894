"""Two captions -> which words of one match which of the other: METEOR's alignment.

In: two prepared captions, and which phrases paraphrase which. Out: counts of matched words and of chunks,
a row of `STATISTICS` numbers. It does not know where stems, synonyms and paraphrases come from, nor
what the counts are worth.

Every pair of a word (or phrase) of the hypothesis and one of the reference that match in some way is a
candidate. The best set of candidates that share no word is looked for with a beam of 40, from the first
word of the reference to the last: most matched words, then fewest chunks, then the shortest distance.
As in Meteor 1.5's `Aligner`, and with the order of its candidates, for that decides between equals:

- in this search, and in it alone, a stem, synonym or paraphrase counts half, rounded down a phrase: a single
  such word counts nothing;
- the distance of a candidate is charged to the candidates after it, not to itself;
- a candidate whose words are in no other is taken before the search;
- captions of equal words match word by word, exactly.

One thing is not the jar's. Where two captions have more than 400,000 candidates (English texts of 2,000 words
and more), only the eight that are nearest to a word's own place are looked at: the search could take minutes
otherwise.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

# Lengths of hypothesis and reference, function words in each; then for each kind of match the matched
# content words of both and the matched function words of both; chunks (column 20); matched words of both.
STATISTICS, CHUNKS, MATCHED = 23, 20, 21
EXACT, STEM, SYNONYM, PARAPHRASE = range(4)

_BEAM = 40
_CHUNK = 1 << 56  # in a state's rank: above any sum of distances
_MATCH = 1 << 88  # above any number of chunks
_CROWD = 400_000  # more candidates than that between two captions are thinned
_NEAREST = 8  # candidates a word has in a crowd


class Candidate(NamedTuple):
    """`length` words of the reference from `start` match `match_length` of the hypothesis from
    `match_start`."""

    start: int
    length: int
    match_start: int
    match_length: int
    kind: int

    @property
    def gain(self) -> int:
        """What the search counts for it."""
        if self.kind == EXACT:
            return 2
        return self.match_length // 2 + self.length // 2


@dataclass(frozen=True)
class Caption:
    """A caption as METEOR sees it, once for all its comparisons.

    senses: the WordNet synsets of each word. phrases: at each place the paraphrasable phrases that begin
    there, shortest first, as (length, phrase).
    """

    words: Sequence[str]
    stems: Sequence[str]
    senses: Sequence[frozenset[str]]
    is_function: Sequence[bool]
    phrases: Sequence[Sequence[tuple[int, int]]] = field(default=())

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Word -> where it stands."""
        return _places(self.words)

    @cached_property
    def stem_places(self) -> dict[str, list[int]]:
        return _places(self.stems)

    @cached_property
    def known_senses(self) -> dict[str, frozenset[str]]:
        """Word -> its senses, for words that have any."""
        return {word: senses for word, senses in zip(self.words, self.senses, strict=True) if senses}

    @cached_property
    def phrase_places(self) -> dict[int, tuple[int, list[int]]]:
        """Phrase -> its length, and where it begins."""
        places: dict[int, tuple[int, list[int]]] = {}
        for start, of_place in enumerate(self.phrases):
            for length, phrase in of_place:
                places.setdefault(phrase, (length, []))[1].append(start)
        return places


def _places(items: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item, []).append(place)
    return places


def align(hypothesis: Caption, reference: Caption, paraphrases: Mapping[int, Mapping[int, int]]) -> list[int]:
    """The `STATISTICS` of one hypothesis and one reference.

    paraphrases: phrase -> the phrases it may become, with their rank in the table.
    """
    candidates = _candidates(hypothesis, reference, paraphrases)
    fixed = _fixed(candidates, len(hypothesis.words), len(reference.words))
    matches, chunks = _search(candidates, fixed)
    return _count(hypothesis, reference, matches, chunks)


def _candidates(
    hypothesis: Caption, reference: Caption, paraphrases: Mapping[int, Mapping[int, int]]
) -> list[list[Candidate]]:
    """Candidates by the place in the reference where they begin, in the jar's order."""
    same = list(hypothesis.words) == list(reference.words)
    of_words = _word_groups(hypothesis, reference, exact_only=same)
    of_phrases = [] if same else list(_phrase_groups(hypothesis, reference, paraphrases))
    num_candidates = sum(len(places) for word in reference.words for places, _ in of_words[word])
    num_candidates += sum(len(group.places) for group in of_phrases)
    crowded = num_candidates > _CROWD
    candidates = [
        [
            Candidate(start, 1, place, 1, kind)
            for places, kind in of_words[word]
            for place in _near(places, start, crowded)
        ]
        for start, word in enumerate(reference.words)
    ]
    for of_reference, start, length, places, other_length in of_phrases:
        for place in _near(places, start, crowded):
            if of_reference:
                candidates[start].append(Candidate(start, length, place, other_length, PARAPHRASE))
            else:
                candidates[place].append(Candidate(place, other_length, start, length, PARAPHRASE))
    if crowded:
        for of_place in candidates:
            of_place.sort(key=lambda match: abs(match.match_start - match.start))
            del of_place[_NEAREST:]
    return candidates


def _word_groups(
    hypothesis: Caption, reference: Caption, *, exact_only: bool
) -> dict[str, list[tuple[Sequence[int], int]]]:
    """Each word of the reference -> the places in the hypothesis that it matches, by kind of match."""
    words, places = hypothesis.words, hypothesis.places
    groups: dict[str, list[tuple[Sequence[int], int]]] = {}
    for word, stem, senses in zip(reference.words, reference.stems, reference.senses, strict=True):
        if word in groups:
            continue
        groups[word] = [(places.get(word, ()), EXACT)]
        if exact_only:
            continue
        stemmed = [place for place in hypothesis.stem_places.get(stem, ()) if words[place] != word]
        alike = [
            place
            for other, others in hypothesis.known_senses.items()
            if other != word and not senses.isdisjoint(others)
            for place in places[other]
        ]
        groups[word] += [(stemmed, STEM), (sorted(alike), SYNONYM)]
    return groups


class _PhraseGroup(NamedTuple):
    """`length` words from `start` of one caption, and where in the other a paraphrase of them stands."""

    of_reference: bool
    start: int
    length: int
    places: Sequence[int]
    other_length: int


def _phrase_groups(
    hypothesis: Caption, reference: Caption, paraphrases: Mapping[int, Mapping[int, int]]
) -> Iterator[_PhraseGroup]:
    """First what the reference's phrases become, then what the hypothesis's do; a pair that the table has
    both ways is there twice."""
    for ours, theirs in ((reference, hypothesis), (hypothesis, reference)):
        present = theirs.phrase_places
        for start, of_place in enumerate(ours.phrases):
            for length, phrase in of_place:
                ranks = paraphrases.get(phrase)
                if not ranks or not (found := ranks.keys() & present.keys()):
                    continue
                for other in sorted(found, key=ranks.__getitem__) if len(found) > 1 else found:
                    other_length, places = present[other]
                    yield _PhraseGroup(ours is reference, start, length, places, other_length)


def _near(places: Sequence[int], start: int, crowded: bool) -> Sequence[int]:
    """The ascending places, in a crowd those nearest to `start` alone."""
    if not crowded or len(places) <= _NEAREST:
        return places
    middle = bisect_left(places, start)
    around = places[max(0, middle - _NEAREST) : middle + _NEAREST]
    return sorted(sorted(around, key=lambda place: abs(place - start))[:_NEAREST])


def _fixed(
    candidates: Sequence[Sequence[Candidate]], num_words: int, num_reference: int
) -> list[Candidate | None]:
    """By place, the candidate whose words are in no other."""
    coverage, reference_coverage = [0] * num_words, [0] * num_reference
    for of_place in candidates:
        for start, length, match_start, match_length, _ in of_place:
            for place in range(start, start + length):
                reference_coverage[place] += 1
            for place in range(match_start, match_start + match_length):
                coverage[place] += 1
    return [
        of_place[0]
        if len(of_place) == 1
        and max(reference_coverage[of_place[0].start : of_place[0].start + of_place[0].length]) == 1
        and max(coverage[of_place[0].match_start : of_place[0].match_start + of_place[0].match_length]) == 1
        else None
        for of_place in candidates
    ]


# A state of the search: its rank, less is better (distance + chunks * _CHUNK - matched * _MATCH); the
# hypothesis's words in use, as bits; where the last match ended in the hypothesis, -1 after a word without
# one; the next place in the reference; the matches, as a linked list.
_State = tuple[int, int, int, int, "tuple[object, Candidate] | None"]


def _search(
    candidates: Sequence[Sequence[Candidate]], fixed: Sequence[Candidate | None]
) -> tuple[list[Candidate], int]:
    """The matches of the best state, and their chunks."""
    states: list[_State] = [(0, 0, -1, 0, None)]
    rank_of = itemgetter(0)
    for place, of_place in enumerate(candidates):
        if len(states) > 1:
            states.sort(key=rank_of)
            del states[_BEAM:]
        taken = fixed[place]
        if taken is not None:
            states = [_take(state, taken) for state in states]
        elif of_place:
            states = _branch(states, place, of_place)
        else:
            states = [
                state
                if state[3] > place
                else (state[0] + _CHUNK if state[2] >= 0 else state[0], state[1], -1, place + 1, state[4])
                for state in states
            ]
    if len(states) > 1:
        states.sort(key=rank_of)
        del states[_BEAM:]
    best = min(
        ((rank + _CHUNK if end >= 0 else rank, chain) for rank, _, end, _, chain in states), key=rank_of
    )
    rank, link = best
    matches: list[Candidate] = []
    while link is not None:
        link, match = link  # type: ignore[assignment]
        matches.append(match)
    return matches[::-1], rank % _MATCH // _CHUNK


def _take(state: _State, match: Candidate) -> _State:
    """The state with a fixed match, whose distance is its own."""
    rank, used, end, _, chain = state
    start, length, match_start, match_length, _ = match
    rank += abs(start - match_start) - match.gain * _MATCH
    if end not in (-1, match_start):
        rank += _CHUNK
    return rank, used, match_start + match_length, start + length, (chain, match)


def _branch(states: Sequence[_State], place: int, of_place: Sequence[Candidate]) -> list[_State]:
    """Each state with each candidate that is free, and without any.

    Of one state's candidates that gain as much and begin a chunk, the distance only grows: what comes after
    as many as the beam holds is never looked at, and is left out.
    """
    options = [
        (
            ((1 << match[3]) - 1) << match[2],
            match.gain * _MATCH,
            match[2],
            match[2] + match[3],
            place + match[1],
            abs(place - match[2]),
            match,
        )
        for match in of_place
    ]
    branched: list[_State] = []
    add = branched.append
    for state in states:
        rank, used, end, following, chain = state
        if following > place:
            add(state)
            continue
        broken = rank + _CHUNK if end >= 0 else rank
        room: dict[int, int] = {}
        for mask, gain, match_start, match_end, match_following, distance, match in options:
            if used & mask:
                continue
            if match_start == end:
                add((rank - gain, used | mask, match_end, match_following, (chain, match)))
            elif left := room.get(gain, _BEAM):
                room[gain] = left - 1
                add((broken - gain, used | mask, match_end, match_following, (chain, match)))
            rank += distance
            broken += distance
        add((broken, used, -1, place + 1, chain))
    return branched


def _count(hypothesis: Caption, reference: Caption, matches: Sequence[Candidate], chunks: int) -> list[int]:
    row = [0] * STATISTICS
    row[0], row[1] = len(hypothesis.words), len(reference.words)
    row[2], row[3] = sum(hypothesis.is_function), sum(reference.is_function)
    for start, length, match_start, match_length, kind in matches:
        first = 4 + 4 * kind
        functions = sum(hypothesis.is_function[match_start : match_start + match_length])
        row[first] += match_length - functions
        row[first + 2] += functions
        functions = sum(reference.is_function[start : start + length])
        row[first + 1] += length - functions
        row[first + 3] += functions
        row[MATCHED] += match_length
        row[MATCHED + 1] += length
    row[CHUNKS] = chunks
    return row
