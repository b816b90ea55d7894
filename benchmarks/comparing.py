"""Two sides of a road, timed in turn: A B A B ..., medians, after their outputs were found alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def equal(ours: Any, peers: Any) -> str | None:
    """What is wrong with two outputs that should be equal; None: nothing."""
    return None if ours == peers else "the two sides give different outputs"


def mostly_equal(ours: list[Any], peers: list[Any]) -> str | None:
    """Nine tenths of the captions: the peer's pixels are up to two grey levels from ours."""
    same = sum(one == other for one, other in zip(ours, peers, strict=True))
    return None if same >= 0.9 * len(peers) else f"only {same} of {len(peers)} captions are equal"


def unjudged(ours: Any, peers: Any) -> str | None:
    """int8 on random weights: judged by CIDEr-D of trained ones, in docs/engines.md."""
    return None if len(ours) == len(peers) else "the two sides give different numbers of captions"


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    ours, peer: each does all of the work once and returns its output. units: how many images or captions
    that are. at_least: the ratio aimed at. limit: units a second that the machine could do; None: not known.
    problem: what is wrong with the two outputs, or None.
    """

    road: str
    peer_name: str
    ours: Callable[[], Any]
    peer: Callable[[], Any]
    units: int
    at_least: float | None = None
    limit: float | None = None
    problem: Callable[[Any, Any], str | None] = equal


@dataclass(frozen=True)
class Result:
    """Units a second of both sides; problem: why they are not compared."""

    comparison: Comparison
    ours: float = 0.0
    peer: float = 0.0
    problem: str | None = None

    @property
    def cells(self) -> list[str]:
        """The line of the table, as HEADER has it."""
        comparison = self.comparison
        if self.problem is not None:
            return [comparison.road, comparison.peer_name, self.problem, "", "", "", "", ""]
        limit = comparison.limit
        return [
            comparison.road,
            comparison.peer_name,
            f"{self.ours:.3g}",
            f"{self.peer:.3g}",
            f"{self.ours / self.peer:.2f}",
            "" if comparison.at_least is None else f"{comparison.at_least:.3g}",
            "" if limit is None else f"{limit:.3g}",
            "" if limit is None else f"{self.ours / limit:.0%}",
        ]


HEADER = ["road", "peer", "ours /s", "peer /s", "ratio", "at least", "limit /s", "share"]


def measure(comparison: Comparison, rounds: int) -> Result:
    """Both sides once, for their outputs and to warm up; then in turn."""
    problem = comparison.problem(comparison.ours(), comparison.peer())
    if problem is not None:
        return Result(comparison, problem=problem)
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        for side, work in (("ours", comparison.ours), ("peer", comparison.peer)):
            started = time.perf_counter()
            work()
            times[side].append(time.perf_counter() - started)
    rates = {side: comparison.units / statistics.median(found) for side, found in times.items()}
    return Result(comparison, **rates)
