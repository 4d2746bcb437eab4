"""Which threats a model is judged at: those asked for, else the one it was trained to withstand."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.build import nearest
from pipelines.errors import Misuse
from pipelines.evaluation.radius import written
from trainers import threat as norms
from trainers.threat import Threat

LEVELS = 255


def threats(asked: Mapping[str, Any], own: tuple[str, float] | None, input_size: Sequence[int]) -> list[Threat]:
    """One a norm and eps, in the order they stand.  ``asked``: eps, or a list of them, by norm; ``own``: of the model.

    Errors: ``Misuse`` for an unknown norm, an eps that is no number, unsorted or given twice, or out of range.
    """
    wanted = {norm: eps if isinstance(eps, list) else [eps] for norm, eps in asked.items() if eps is not None}
    if not any(wanted.values()):
        if own is None:
            raise Misuse("threats is empty and the model's run names none: give one, such as threats.Linf=8/255")
        wanted = {own[0]: [_of_levels(own[1])]}
    found: list[Threat] = []
    for norm, every in wanted.items():
        if norm not in norms.NORMS:
            raise Misuse(f"threats.{norm}: unknown norm{nearest(norm, list(norms.NORMS))}")
        _check(norm, every)
        for eps in every:
            try:
                made = norms.create(norm, eps)
                made.check((input_size[0], input_size[1], input_size[2]))
            except ValueError as error:
                raise Misuse(str(error).replace("threat.eps=", f"threats.{norm}=")) from error
            if made.eps == 0:
                raise Misuse(
                    f"threats.{norm}=0 allows no change: clean accuracy is always measured; give an eps above 0"
                )
            found.append(made)
    return found


def title(threat: Threat) -> str:
    """``Linf 8/255``, ``L2 0.5``."""
    return f"{threat.norm} {written(threat.eps)}"


def _check(norm: str, every: Sequence[Any]) -> None:
    for eps in every:
        if isinstance(eps, bool) or not isinstance(eps, int | float):
            raise Misuse(f"threats.{norm}={eps!r} is not a number; write 8/255, 0.5 or a list: [2/255,4/255]")
    if len(set(every)) < len(every):
        raise Misuse(f"threats.{norm}={_shown(every)} names an eps twice; give each once")
    if list(every) != sorted(every):
        raise Misuse(f"threats.{norm}={_shown(every)} is not sorted; give {_shown(sorted(every))}")


def _shown(every: Sequence[float]) -> str:
    return f"[{','.join(f'{written(eps)}' for eps in every)}]"


def _of_levels(eps: float) -> float:
    """A run's tag holds six digits: 0.0313725 was 8/255."""
    whole = round(eps * LEVELS)
    return whole / LEVELS if abs(eps - whole / LEVELS) < 1e-6 * eps else eps
