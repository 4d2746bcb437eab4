"""How sure a measured share is."""

import math
from statistics import NormalDist


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """``(low, high)`` of Wilson's score interval for the share ``p = successes / n``, in [0, 1].

    ``(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)``, with ``z`` the normal quantile of ``(1 + confidence)/2``.
    Unlike ``p ± z sqrt(p(1-p)/n)`` it holds its level near 0 and 1, where robust accuracies live.

    Errors: ``ValueError`` for no trials, ``successes`` outside [0, n], a ``confidence`` outside (0, 1).
    Source: Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22 (1927) 209-212.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes={successes} of n={n} is no share: n must be at least 1, successes in [0, n]")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence:g} must be in (0, 1), such as 0.95")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def paired_difference(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """``(low, high)`` for the difference of two shares measured on the same ``n`` examples, in [-1, 1].

    ``gained`` examples are right in the second measurement only, ``lost`` in the first only.  With half an example
    added to each of the four cells, ``d = (gained - lost) / (n + 2)`` and
    ``d ± z sqrt(gained + lost + 1 - (gained - lost)² / (n + 2)) / (n + 2)``: unlike the interval without them it keeps
    a width when the measurements agree.

    Errors: ``ValueError`` for counts that do not fit into ``n``, a ``confidence`` outside (0, 1).
    Source: Agresti and Min, *Simple improved confidence intervals for comparing matched proportions*, Statistics in
    Medicine 24 (2005) 729-740.
    """
    if n < 1 or min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"gained={gained} and lost={lost} do not fit into n={n} examples")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence:g} must be in (0, 1), such as 0.95")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    total = n + 2
    centre = (gained - lost) / total
    half = z * math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / total) / total
    return max(centre - half, -1.0), min(centre + half, 1.0)


def difference(first: int, n: int, second: int, m: int, confidence: float = 0.95) -> tuple[float, float]:
    """``(low, high)`` for ``first / n - second / m``, two shares of different examples, in [-1, 1].

    With ``d = p - q`` and Wilson's intervals ``(l, u)`` of ``p`` and ``(v, w)`` of ``q``, from
    ``d - sqrt((p-l)² + (w-q)²)`` to ``d + sqrt((u-p)² + (q-v)²)``.

    Errors: as ``wilson``.
    Source: Newcombe, *Interval estimation for the difference between independent proportions: comparison of eleven
    methods*, Statistics in Medicine 17 (1998) 873-890, method 10.
    """
    (low_p, high_p), (low_q, high_q) = wilson(first, n, confidence), wilson(second, m, confidence)
    p, q = first / n, second / m
    return p - q - math.hypot(p - low_p, high_q - q), p - q + math.hypot(high_p - p, q - low_q)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p for two shares measured on the same examples.

    ``gained`` examples are right in the second measurement only, ``lost`` in the first only; were the shares equal,
    each of the ``n = gained + lost`` would fall either way with probability 1/2, so
    ``p = min(1, 2 Σ_{k <= min(gained, lost)} C(n, k) / 2^n)``, and 1 where nothing differs.

    Errors: ``ValueError`` for negative counts.
    Source: McNemar, *Note on the sampling error of the difference between correlated proportions or percentages*,
    Psychometrika 12 (1947) 153-157; the binomial in place of its normal approximation.
    """
    if min(gained, lost) < 0:
        raise ValueError(f"gained={gained} and lost={lost} are counts of examples: neither can be negative")
    return min(2 * _at_most(min(gained, lost), gained + lost), 1.0)


def mcnemar_gained(gained: int, lost: int) -> float:
    """McNemar's exact one-sided p that the second of two shares is no better: ``Σ_{k <= lost} C(n, k) / 2^n`` with
    ``n = gained + lost``, never more than the level in error, however few differ.  Errors, source: as ``mcnemar``."""
    if min(gained, lost) < 0:
        raise ValueError(f"gained={gained} and lost={lost} are counts of examples: neither can be negative")
    return _at_most(lost, gained + lost)


def _at_most(most: int, n: int) -> float:
    """``Σ_{k <= most} C(n, k) / 2^n``, in whole numbers: exact for any n."""
    ways, tail = 1, 0
    for k in range(most + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return tail / 2**n


def paired_score(gained: int, lost: int, n: int, margin: float = 0.0) -> float:
    """One-sided p that the second of two shares, measured on the same ``n`` examples, is worse than the first by
    ``margin`` or more; ``margin=0``: that it is not better.

    ``gained`` examples are right in the second measurement only, ``lost`` in the first only.  With the difference of
    the shares held at ``d = -margin``, the likelihood is largest at the share lost
    ``q = (sqrt(B² - 8nC) - B) / 4n``, ``B = (2n - gained + lost) d - gained - lost``, ``C = -lost d (1 - d)``, and
    ``z = (gained - lost - n d) / sqrt(n (2q + d (1 - d)))`` is standard normal for large ``n``.  At ``margin=0`` it is
    McNemar's ``(gained - lost) / sqrt(gained + lost)``.  Without any difference, and no margin, p is 1.

    Errors: ``ValueError`` for counts that do not fit into ``n``, a ``margin`` outside [0, 1).
    Source: Tango, *Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design*, Statistics in Medicine 17 (1998) 891-908.
    """
    if n < 1 or min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"gained={gained} and lost={lost} do not fit into n={n} examples")
    if not 0 <= margin < 1:
        raise ValueError(f"margin={margin:g} must be in [0, 1), such as 0.02")
    d = -margin
    b = (2 * n - gained + lost) * d - gained - lost
    c = -lost * d * (1 - d)
    share = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * share + d * (1 - d))
    if variance <= 0:  # nothing differs, and no margin: nothing speaks for the second
        return 1.0
    return 0.5 * math.erfc((gained - lost - n * d) / math.sqrt(2 * variance))  # the normal's upper tail, however small
