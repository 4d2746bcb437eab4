"""What an evaluation has found out so far, in its folder of ``storage``: a kill loses only what was being worked on."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from pipelines import storage
from pipelines.errors import Misuse, first_line
from pipelines.evaluation.evaluator import item_of, key
from pipelines.redact import redact_text
from trainers.evaluation.ledger import Item, Ledger
from trainers.evaluation.piece import Piece

SAME = 1e-2
"""Of the largest logit: how far those of one model may be apart on two machines."""


class Journal:
    """Below ``place``, for the evaluation of ``digest`` alone: ``journal/`` holds a file for each finished item,
    ``answers/`` one for each question asked, ``middle/`` the middle of each long item that is being worked on.  Each
    file is whole or not there."""

    def __init__(self, place: str, digest: str) -> None:
        self._pieces, self._answers, self.middles = (
            f"{place}/{folder}/{digest[:16]}" for folder in ("journal", "answers", "middle")
        )

    def read(self, ledger: Ledger) -> tuple[int, list[Item]]:
        """Tell ``ledger`` what is known; ``(pieces, items whose middle was written down)``, these reserved in it.

        Errors: ``Misuse`` for a file that is not whole.
        """
        pieces = [self._piece(uri, ledger) for uri in self._in(self._pieces)]
        for piece in sorted(pieces, key=ledger.place):
            ledger.add(piece)
        items = []
        for uri in self._in(self.middles):
            item = item_of(uri)
            if item is None or not ledger.waiting(item):
                storage.remove(uri)
                continue
            ledger.reserve(item)
            items.append(item)
        return len(pieces), items

    def _piece(self, uri: str, ledger: Ledger) -> Piece:
        try:
            piece = Piece.of_plain(_read(uri))
            ledger.place(piece)
            ledger.rows(piece.ids)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise Misuse(
                f"storage: {redact_text(uri)} is not whole or not of this evaluation ({first_line(error)}); remove it, "
                "and the same command works its examples off again"
            ) from error
        return piece

    def add(self, item: Item, piece: Piece) -> None:
        """Write a finished item down; its middle is no longer needed."""
        storage.write(f"{self._pieces}/{key(item)}.json", json.dumps(piece.plain()).encode())
        storage.remove(f"{self.middles}/{key(item)}.safetensors")

    def recognise(self, logits: Sequence[Sequence[float]]) -> None:
        """Refuse a model that answers the first images otherwise than the one this journal was begun with: a change of
        its code shows in no tensor.  Errors: ``Misuse``."""
        before, now = torch.tensor(self.once("logits", lambda: logits)), torch.tensor(logits)
        size = float(before.abs().max()) if len(before) else 0.0
        if before.shape != now.shape or not torch.allclose(now, before, rtol=0, atol=SAME * size):
            raise Misuse(
                "model: it answers the first images otherwise than when this journal was begun, though its weights are "
                "the same: its code has changed, or it draws random numbers; give another name to begin anew"
            )

    def knows(self, name: str) -> bool:
        """Whether the question ``name`` was answered."""
        uri = f"{self._answers}/{name}.json"
        return storage.files(uri).exists(uri)

    def once(self, name: str, ask: Callable[[], Any]) -> Any:
        """What was answered to the question ``name`` before, or ``ask()`` now, written down; plain values."""
        uri = f"{self._answers}/{name}.json"
        if self.knows(name):
            return _read(uri)
        answer = ask()
        storage.write(uri, json.dumps(answer).encode())
        return answer

    def _in(self, folder: str) -> Iterator[str]:
        found = storage.files(folder)
        return iter([uri for uri in found.list(folder) if not uri.endswith(".partial")] if found.exists(folder) else [])


def _read(uri: str) -> Any:
    with storage.files(uri).open(uri) as file:
        return json.loads(file.read())
