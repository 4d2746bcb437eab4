"""An attack without gradients that fools what those with gradients left standing."""

from trainers.evaluation.doubts.case import Case
from trainers.evaluation.doubts.doubt import Doubt, shown
from trainers.evaluation.intervals import wilson

NAME = "black-box stronger than white-box"

BLACK_BOX = frozenset({"square"})
SHARE = 0.002


def look(case: Case) -> Doubt | None:
    """After an attack with gradients, one without lowers the accuracy by more than 0.2 points, shown with 95 %
    confidence and by 3 examples or more.

    The bound is AutoAttack's; it compares the bare share with it, which one example of 128 exceeds.  Asking for
    confidence makes that 3 examples up to n = 510, 5 of 1,000 and 29 of 10,000 (AutoAttack: 3 and 21).
    """
    tally, white, found, left = case.tally, False, 0, case.tally.clean_right
    standing = left
    for name, fooled in tally.fooled.items():
        if name in BLACK_BOX and white:
            standing, found = (left if found == 0 else standing), found + fooled
        white |= name not in BLACK_BOX
        left -= fooled
    if not shown(found, tally.n, SHARE):
        return None
    return Doubt(
        NAME,
        f"Square, which looks at no gradient, fooled {found} of the {standing} images that the gradient attacks left "
        f"standing ({found / tally.n:.1%} of all; AutoAttack's bound is {SHARE:.1%}). That is a sign of masked "
        "gradients: the true robust accuracy is probably lower, and an attack adapted to this model is needed.",
        {
            "n": tally.n,
            "left_by_white_box": standing,
            "fooled_by_black_box": found,
            "share": found / tally.n,
            "share_at_least": wilson(found, tally.n)[0],
        },
    )
