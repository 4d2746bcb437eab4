"""Several attacks in turn, each on the examples that those before it have left standing; AutoAttack is one of them."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainers import noise
from trainers.attacks.apgd import APGD
from trainers.attacks.fab import FAB
from trainers.attacks.search import misclassified
from trainers.attacks.square import Square
from trainers.modes import mode, outside_inference
from trainers.threat import Threat, per_example
from trainers.types import Attack, Model

VERSIONS = ("standard", "plus", "rand")


@dataclass(frozen=True)
class Cascade:
    """``members`` in the order they are tried; an example is attacked until one of them fools the model.

    So the robust accuracy under a cascade is the share that withstands all of them, never their mean.  A member draws
    from a stream of its own name: leaving another out, or trying them in another order, does not change what it finds.

    Errors: ``ValueError`` for no members, two of one name, or members of different threats.
    """

    members: Sequence[Attack]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if not self.members:
            raise ValueError("attack.members is empty: a cascade needs one attack or more")
        names = [member.name for member in self.members]
        if len(set(names)) < len(names):
            raise ValueError(f"attack.members holds two attacks of one name ({', '.join(names)}); leave one out")
        if len({member.threat for member in self.members}) > 1:  # type: ignore[attr-defined]
            raise ValueError("attack.members have different threats: a robust accuracy is under one; give all the same")

    @property
    def name(self) -> str:
        return "+".join(member.name for member in self.members)

    @property
    def threat(self) -> Threat:
        return self.members[0].threat  # type: ignore[attr-defined]

    def __call__(self, model: Model, x: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        """Of each example the point it was fooled at, else ``x``."""
        x, y = outside_inference(x), outside_inference(y)
        keys = noise.fresh(len(x), x.device) if keys is None else keys
        x_adv, left = x.clone(), ~_fooled(model, x, y)
        for member in self.members:
            rows = left.nonzero()[:, 0]
            if not len(rows):
                break
            found = member(model, x[rows], y[rows], stream(keys[rows], member.name))
            fooled = _fooled(model, found, y[rows])
            x_adv[rows] = torch.where(per_example(fooled, found), found, x[rows])
            left[rows] = ~fooled
        return x_adv


def stream(keys: Tensor, name: str) -> Tensor:
    """The keys that the member ``name`` draws from."""
    return noise.stream(keys, zlib.crc32(name.encode()))


@torch.no_grad()
def _fooled(model: Model, x: Tensor, y: Tensor) -> Tensor:
    with mode(model, train=False):
        return misclassified(model(x), y)


def autoattack(threat: Threat, version: str = "standard", classes: int = 10) -> Cascade:
    """AutoAttack for a model of so many ``classes``.

    ``standard``: ``apgd-ce``, ``apgd-t``, ``fab-t``, ``square``.  ``plus``: five restarts each of ``apgd-ce``,
    ``apgd-dlr`` and ``fab``, then ``square``, ``apgd-t``, ``fab-t``.  ``rand``: ``apgd-ce`` and ``apgd-dlr``, each
    gradient the mean of 20, for models that draw random numbers.  Targeted attacks take the 9 likeliest wrong classes,
    or all there are.  Under an L1 threat ``standard`` gives ``apgd-ce`` five restarts and ``apgd-t`` 5 targets, both
    with larger eps first.

    With 3 classes the targeted ratio is not defined and ``apgd-dlr`` takes its place in ``standard``; with 2 the ratio
    is not defined either, and both are left out.

    Errors: ``ValueError`` for an unknown version and for fewer than 2 classes.
    Source: Croce and Hein 2020 (2003.01690), section 6, for L1 2021 (2103.01208), and the authors' code.
    """
    if version not in VERSIONS:
        raise ValueError(f"attack.version={version!r} must be one of {', '.join(VERSIONS)}")
    if classes < 2:
        raise ValueError(f"the model has {classes} class: there is no other to be mistaken for")
    ce, dlr, targeted = APGD(threat), APGD(threat, "dlr"), APGD(threat, "targeted_dlr")
    if threat.norm == "L1" and version == "standard":
        ce, dlr = replace(ce, restarts=5, larger_eps=True), replace(dlr, larger_eps=True)
        targeted = replace(targeted, targets=5, larger_eps=True)
    fab, square = FAB(threat), Square(threat)
    members: list[APGD | FAB | Square]
    if version == "standard":
        members = [ce, dlr if classes == 3 else targeted, fab, square]
    elif version == "plus":
        members = [APGD(threat, restarts=5), APGD(threat, "dlr", restarts=5), FAB(threat, targets=0, restarts=5)]
        members += [square, targeted, fab]
    else:
        members = [APGD(threat, eot=20), APGD(threat, "dlr", eot=20)]
    return Cascade([member for member in members if classes >= getattr(member, "classes", 2)])
