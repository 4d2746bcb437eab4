"""What a person reads of an evaluation: a page to send to a colleague, a model card, a few lines on the terminal."""

from pipelines.report.card import card
from pipelines.report.lines import lines
from pipelines.report.page import page

__all__ = ["card", "lines", "page"]
