"""Naming classes nobody has shown an example of, by their attributes."""

from trainers.evaluation.zero_shot.ale import ALE
from trainers.evaluation.zero_shot.eszsl import ESZSL
from trainers.evaluation.zero_shot.probe import ZeroShot, measure
from trainers.evaluation.zero_shot.scores import Scores, judge

__all__ = ["ALE", "ESZSL", "Scores", "ZeroShot", "judge", "measure"]
