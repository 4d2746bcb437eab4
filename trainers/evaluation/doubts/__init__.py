"""What may be wrong with a robust accuracy, looked for and named."""

from trainers.evaluation.doubts.doubt import Doubt, Tally
from trainers.evaluation.doubts.examine import CHECKS, examine

__all__ = ["CHECKS", "Doubt", "Tally", "examine"]
