"""What an evaluation has found out so far, in its folder of ``storage``: a kill loses only what was being worked on."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from pipelines import storage
from pipelines.errors import Misuse, first_line
from pipelines.evaluation.evaluator import item_of, key
from pipelines.redact import redact_text
from trainers.evaluation.ledger import Item, Ledger
from trainers.evaluation.piece import Piece


class Journal:
    """Below ``place``: ``journal/`` holds a file for each finished item, and an answer for each question asked;
    ``middle/`` the middle of each long item that is being worked on.  Each file is whole or not there."""

    def __init__(self, place: str) -> None:
        self._pieces, self._answers, self.middles = f"{place}/journal", f"{place}/answers", f"{place}/middle"

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

    def once(self, name: str, ask: Callable[[], Any]) -> Any:
        """What was answered to the question ``name`` before, or ``ask()`` now, written down; plain values."""
        uri = f"{self._answers}/{name}.json"
        if storage.files(uri).exists(uri):
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
