"""Who works an evaluation's items off: this process, or actors on Ray, of which any may be lost."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pipelines.errors import Failure, Lost, first_line
from pipelines.evaluation.evaluator import Evaluator, Order
from trainers.evaluation.ledger import Item
from trainers.evaluation.piece import Piece

LOSSES = 3
"""Actors that may be lost one after the other before the evaluation gives up."""

BEAT = 5.0
"""Seconds after which a wait for an actor is looked up from."""

Question = Callable[[Evaluator], Any]
Take = Callable[[], Item | None]
Finished = Iterator[tuple[Item, Piece]]


class Crew(Protocol):
    workers: int
    device: str

    def work(self, take: Take, give_back: Callable[[Item], None], beat: Callable[[], None]) -> Finished:
        """Items from ``take`` as they are finished, in any order, until it has none and none is on its way.  An item
        whose worker was lost goes through ``give_back``.  ``beat`` is called every few seconds, or oftener."""
        ...

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """The answer to each."""
        ...

    def close(self) -> None: ...


class Here:
    """This process."""

    workers = 1

    def __init__(self, order: Order, device: str) -> None:
        self.device, self._evaluator = device, Evaluator(order, device)

    def work(self, take: Take, give_back: Callable[[Item], None], beat: Callable[[], None]) -> Finished:
        while item := take():
            yield item, Piece.of_plain(self._evaluator.work(item, beat))

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        return [self._evaluator.ask(question) for question in questions]

    def close(self) -> None:
        pass


class Actors:
    """``workers`` actors, each with ``resources``; one that is lost is replaced, and its item given to another."""

    def __init__(self, order: Order, workers: int, use_gpu: bool, resources: dict[str, float]) -> None:
        import ray

        self.workers, self.device = workers, "cuda" if use_gpu else "cpu"
        made: Any = ray.remote(Evaluator)
        self._order = ray.put(order)
        self._made = made.options(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0))
        self._actors = [self._actor() for _ in range(workers)]

    def _actor(self) -> Any:
        return self._made.remote(self._order, self.device)

    def work(self, take: Take, give_back: Callable[[Item], None], beat: Callable[[], None]) -> Finished:
        import ray
        from ray.exceptions import RayActorError, RaySystemError

        idle, busy, lost = list(range(self.workers)), dict[Any, tuple[int, Item]](), 0
        while True:
            while idle and (item := take()) is not None:
                number = idle.pop(0)
                busy[self._actors[number].work.remote(item)] = (number, item)
            if not busy:
                return
            done, _ = ray.wait(list(busy), num_returns=1, timeout=BEAT)
            beat()
            if not done:
                continue
            ready = done[0]
            number, item = busy.pop(ready)
            try:
                piece = Piece.of_plain(_answer(ready))
            except RayActorError as error:
                lost += 1
                if lost > LOSSES:
                    raise Failure(
                        f"{lost} evaluation workers were lost one after the other ({first_line(error)}); if they ran "
                        "out of memory, lower batch_size; the same command continues from the journal"
                    ) from error
                self._actors[number] = self._actor()
                give_back(item)
            except (RaySystemError, ConnectionError) as error:
                raise Lost(
                    f"the Ray cluster went away ({first_line(error)}); the same command continues from the journal"
                ) from error
            else:
                lost = 0
                yield item, piece
            idle.append(number)

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        asked = [self._actors[i % self.workers].ask.remote(question) for i, question in enumerate(questions)]
        return [_answer(each) for each in asked]

    def close(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)


def _answer(reference: Any) -> Any:
    """What an actor answers, or the error it met, without Ray's wrapping."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
