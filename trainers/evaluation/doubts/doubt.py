"""A doubt, what the evaluation itself counted, and how many examples make one."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainers.evaluation.intervals import wilson

Evidence = dict[str, float | int | str]


@dataclass(frozen=True)
class Doubt:
    """Why a robust accuracy may be wrong: ``explanation`` says what was seen, what it may mean and what to do."""

    name: str
    explanation: str
    evidence: Evidence


@dataclass(frozen=True)
class Tally:
    """What the evaluation of one threat counted, in examples.

    ``fooled``: by each attack, those it was the first to fool, in the order the attacks were tried.  ``outside``:
    points an attack claimed that were outside threat or cube.  ``non_finite``: examples whose logits, clean or
    attacked, were not finite.

    Errors: ``ValueError`` for counts that do not fit into ``n``.
    """

    n: int
    clean_right: int
    fooled: Mapping[str, int]
    outside: int = 0
    non_finite: int = 0

    def __post_init__(self) -> None:
        fooled = sum(self.fooled.values())
        if min(self.outside, self.non_finite, *self.fooled.values(), 0) < 0 or not fooled <= self.clean_right <= self.n:
            raise ValueError(
                f"{fooled} fooled of {self.clean_right} classified rightly of n={self.n} is no tally: attacks fool "
                "only examples that were right, each once"
            )


def shown(count: int, n: int, share: float) -> bool:
    """Whether ``count`` of ``n`` examples show, with 95 % confidence, that more than ``share`` of all are like them.

    Wilson's lower bound must be above ``share``, and ``count`` at least 3: of few examples one or two alone can put
    the bound above a small share, and one or two are what any attack misses.
    """
    return count >= 3 and wilson(count, n)[0] > share


def many(count: int, n: int, share: float) -> bool:
    """``count`` of ``n`` is a ``share`` or more, for what a sound model shows in no example: two suffice, or one of
    fewer than four."""
    return count >= max(2 if n >= 4 else 1, share * n)
