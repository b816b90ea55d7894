"""The sides of a road, timed in turn: A B A B ..., medians, after their outputs were found alike."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Work = Callable[[], Any]  # all of the work once; returns what it made
Judge = Callable[[Any, Any], str | None]  # ours, the peer's -> what is wrong with ours; None: nothing


def equal(ours: Any, peers: Any) -> str | None:
    """Both are the same."""
    return None if ours == peers else "the two sides give different outputs"


def equal_where_both(ours: list[Any], peers: list[Any]) -> str | None:
    """For a peer so slow that it goes along a part of the road: that part is the same."""
    return equal(ours[: len(peers)], peers)


def mostly_equal(ours: list[Any], peers: list[Any]) -> str | None:
    """Nine tenths of the captions: the peer's pixels are up to two grey levels from ours."""
    same = sum(one == other for one, other in zip(ours, peers, strict=True))
    return None if same >= 0.9 * len(peers) else f"only {same} of {len(peers)} captions are equal"


def unjudged(ours: Any, peers: Any) -> str | None:
    """Rounded numbers on random weights: `python -m benchmarks.int8` judges trained ones by CIDEr-D."""
    return None if len(ours) == len(peers) else "the two sides give different numbers of captions"


class Limit(NamedTuple):
    """rate: units a second that the machine could do. by: the figure of the machine that sets it."""

    rate: float
    by: str


@dataclass(frozen=True)
class Side:
    """One of our ways along a road. units: how many images or captions `work` makes. at_least: the ratio
    aimed at. problem: whether the output is the peer's."""

    name: str
    work: Work
    units: int
    at_least: float | None = None
    limit: Limit | None = None
    problem: Judge = equal


@dataclass(frozen=True)
class Road:
    """What a user waits for: a peer, and our sides against it.

    peer_units: as `units`; fewer than ours where one unit costs the same however many there are.
    missing: why the road cannot be gone along on this machine.
    """

    name: str
    peer_name: str
    peer: Work
    peer_units: int
    sides: Sequence[Side]
    missing: str | None = None


@dataclass(frozen=True)
class Result:
    """Units a second of one side and of its peer; problem: why they are not compared."""

    road: Road
    side: Side
    ours: float = 0.0
    peer: float = 0.0
    problem: str | None = None

    @property
    def cells(self) -> list[str]:
        """The line of the table, as HEADER has it."""
        side = self.side
        name = ", ".join(part for part in (self.road.name, side.name) if part)
        if self.problem is not None:
            return [name, self.road.peer_name, self.problem, *[""] * (len(HEADER) - 3)]
        limit = side.limit
        return [
            name,
            self.road.peer_name,
            f"{self.ours:.3g}",
            f"{self.peer:.3g}",
            f"{self.ours / self.peer:.2f}",
            "" if side.at_least is None else f"{side.at_least:.3g}",
            "" if limit is None else f"{limit.rate:.3g}",
            "" if limit is None else f"{self.ours / limit.rate:.0%}",
            "" if limit is None else limit.by,
        ]


HEADER = ["road", "peer", "ours /s", "peer /s", "ratio", "at least", "limit /s", "share", "limited by"]


def aligned(cells: Sequence[str]) -> str:
    """A line of the table for a terminal."""
    road, peer, *numbers = cells
    return f"{road:62} {peer:42} " + " ".join(f"{number:>8}" for number in numbers)


def measure(road: Road, rounds: int) -> Iterator[Result]:
    """Every side once, for its output and to warm up; those that are alike then in turn with the peer, which
    comes once a round."""
    if road.missing is not None:
        yield from (Result(road, side, problem=road.missing) for side in road.sides)
        return
    expected = road.peer()
    problems = [side.problem(side.work(), expected) for side in road.sides]
    alike = [side for side, problem in zip(road.sides, problems, strict=True) if problem is None]
    times: dict[str, list[float]] = {name: [] for name in ("peer", *(side.name for side in alike))}
    for _ in range(rounds if alike else 0):
        for name, work in (*((side.name, side.work) for side in alike), ("peer", road.peer)):
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    for side, problem in zip(road.sides, problems, strict=True):
        if problem is not None:
            yield Result(road, side, problem=problem)
        else:
            ours = side.units / statistics.median(times[side.name])
            yield Result(road, side, ours, road.peer_units / statistics.median(times["peer"]))
