"""What the starts of a run held, and what of it was wasted: work that was done again, and what it took to get there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from pipelines.tracking.holding import FINISHED, STOPPED, Start

Points = Sequence[tuple[int, float]]
"""``(milliseconds since 1970, training step)``, the oldest first."""
PREEMPTED, FAILED, STOP = "pre-empted", "failed", "stopped"
"""Why an attempt had to be followed by another: a pre-emption was announced, a person ended it, or anything else."""


@dataclass(frozen=True)
class Held:
    """``seconds``: None where the end of ``start`` is not known.  ``wasted``: seconds of them, by cause; ``again``:
    training steps that had been trained before."""

    start: Start
    seconds: float | None
    wasted: Mapping[str, float] = field(default_factory=dict)
    again: int = 0


@dataclass(frozen=True)
class _Attempt:
    """A start of the workers.  ``since``: the last sign of the attempt before it, or its command's beginning if that is
    later.  ``cause``: why it had to be; None for one that repeats nothing."""

    since: int
    began: int
    step: float
    reports: Points
    cause: str | None

    @property
    def top(self) -> float:
        return max([self.step, *(step for _, step in self.reports)])


def plain(start: Start) -> Held:
    """Of an evaluation, which leaves no reports."""
    return Held(start, None if start.ended is None else _seconds(start.began, start.ended))


def trained(starts: Sequence[Start], begun: Points, reached: Points, notices: Points) -> list[Held]:
    """Of the starts of one training, in order; ``begun``: where its workers began, ``reached``: what they reported.

    A start is held to its end, or, where it was killed and could write none, to the last sign of its workers.  An
    attempt after one that had not finished wastes all the time until it is where the training had been, and a whole
    one that never came there.
    """
    found: list[Held] = []
    furthest = 0.0
    before: str | None = None
    signs = sorted([*begun, *reached, *notices])
    ends = [*(start.began for start in starts[1:]), max([start.began for start in starts] + [t for t, _ in signs]) + 1]
    for start, until in zip(starts, ends, strict=True):
        attempts = list(_attempts(start, until, before, begun, reached, notices))
        seen = [when for when, _ in signs if start.began <= when < until]
        last = start.ended if start.ended is not None else max(seen, default=None)
        wasted, again = dict[str, float](), 0
        for attempt, after in zip_longest(attempts, attempts[1:]):
            ended = after.since if after else last
            if attempt.cause is not None and ended is not None:
                lost = _seconds(attempt.since, min(_caught_up(attempt, furthest, ended), ended))
                wasted[attempt.cause] = wasted.get(attempt.cause, 0.0) + lost
                if attempt.reports:
                    again += max(0, round(min(furthest, attempt.top) - attempt.step))
            furthest = max(furthest, attempt.top)
        found.append(Held(start, None if last is None else _seconds(start.began, last), wasted, again))
        before = _why(start, [when for when, _ in notices if attempts and attempts[-1].began <= when < until])
    return found


def _attempts(
    start: Start, until: int, before: str | None, begun: Points, reached: Points, notices: Points
) -> list[_Attempt]:
    """Those of one start.  ``before``: why the start before it had to be followed."""
    here = [(when, step) for when, step in begun if start.began <= when < until]
    found: list[_Attempt] = []
    for (when, step), after in zip_longest(here, here[1:]):
        end, since, cause = after[0] if after else until, start.began, before
        if found:
            since = max([found[-1].began, *(w for w, _ in found[-1].reports)])
            cause = PREEMPTED if any(found[-1].began <= w < when for w, _ in notices) else FAILED
        reports = [point for point in reached if when <= point[0] < end]
        found.append(_Attempt(since, when, step, reports, cause))
    if not here and before is not None:  # it ended before its workers were there
        found.append(_Attempt(start.began, until, float("-inf"), (), before))
    return found


def _caught_up(attempt: _Attempt, furthest: float, ended: int) -> float:
    """When it was at step ``furthest``, on a straight line between two reports; ``ended`` if it never was."""
    when, step = attempt.began, attempt.step
    if step >= furthest:
        return when
    for then, reached in attempt.reports:
        if reached >= furthest:
            return when + (then - when) * (furthest - step) / (reached - step)
        when, step = then, max(step, reached)
    return ended


def _why(start: Start, notices: Sequence[int]) -> str | None:
    """Why ``start`` had to be followed by another, if it had."""
    if start.how == FINISHED:
        return None
    if notices:
        return PREEMPTED
    return STOP if start.how == STOPPED else FAILED


def _seconds(began: float, ended: float) -> float:
    return max(0.0, ended - began) / 1000
