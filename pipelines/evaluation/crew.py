"""Who works an evaluation's items off: this process, or actors on Ray, of which any may be lost."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from pipelines.errors import Failure, first_line
from pipelines.evaluation.answers import answer_of
from pipelines.evaluation.evaluator import Evaluator, Order
from trainers.evaluation.ledger import Item
from trainers.evaluation.piece import Piece

LOSSES = 3
"""Actors that may be lost one after the other before the evaluation gives up."""

BEAT = 5.0
"""Seconds after which a wait for an actor is looked up from."""

Job = TypeVar("Job")
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


class _Call(NamedTuple):
    """``job`` is None while the actor is being made; ``lost``: the losses one after the other before it was sent."""

    actor: Any
    job: Any
    lost: int


class Actors:
    """``workers`` actors, each with ``resources``; one that is lost is replaced, and its job given to another.

    Errors, of ``work`` and ``ask``: what a job raised, as it is; ``ValueError`` as an actor met it while it was made,
    ``Failure`` for anything else there, and for more than ``LOSSES`` losses one after the other (several at a time, a
    node's, are one); ``Lost`` where Ray itself no longer answers.
    """

    def __init__(self, order: Order, workers: int, use_gpu: bool, resources: dict[str, float]) -> None:
        import ray

        self.workers, self.device = workers, "cuda" if use_gpu else "cpu"
        made: Any = ray.remote(Evaluator)
        self._order = ray.put(order)
        self._made = made.options(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0))
        self._idle, self._calls, self._lost = list[Any](), dict[Any, _Call](), 0
        for _ in range(workers):
            self._make()

    def work(self, take: Take, give_back: Callable[[Item], None], beat: Callable[[], None]) -> Finished:
        for item, plain in self._drive(lambda actor, item: actor.work.remote(item), take, give_back, beat):
            yield item, Piece.of_plain(plain)

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        waiting = deque(range(len(questions)))
        answers = dict(
            self._drive(
                lambda actor, i: actor.ask.remote(questions[i]),
                lambda: waiting.popleft() if waiting else None,
                waiting.appendleft,
                lambda: None,
            )
        )
        return [answers[i] for i in range(len(questions))]

    def close(self) -> None:
        import ray

        for actor in (*self._idle, *(call.actor for call in self._calls.values())):
            ray.kill(actor)

    def _make(self) -> None:
        actor = self._made.remote(self._order, self.device)
        self._calls[actor.ready.remote()] = _Call(actor, None, self._lost)

    def _drive(
        self,
        send: Callable[[Any, Job], Any],
        take: Callable[[], Job | None],
        give_back: Callable[[Job], None],
        beat: Callable[[], None],
    ) -> Iterator[tuple[Job, Any]]:
        """Jobs and their answers, as they come; an actor works from when it is made, whoever else is not yet."""
        import ray
        from ray.exceptions import RayError

        while True:
            while self._idle and (job := take()) is not None:
                actor = self._idle.pop(0)
                self._calls[send(actor, job)] = _Call(actor, job, self._lost)
            if self._idle and all(call.job is None for call in self._calls.values()):
                return
            done, _ = ray.wait(list(self._calls), num_returns=1, timeout=BEAT)
            beat()
            for reference in done:
                call = self._calls.pop(reference)
                self._idle.append(call.actor)
                try:
                    answer = answer_of(reference)
                except RayError as error:
                    self._replace(self._idle.pop(), call.lost + 1, error)
                    if call.job is not None:
                        give_back(call.job)
                else:
                    if call.job is not None:
                        self._lost = 0
                        yield call.job, answer

    def _replace(self, actor: Any, lost: int, error: Exception) -> None:
        import ray

        ray.kill(actor)  # one that is merely out of reach would keep its place
        self._lost = max(self._lost, lost)
        if lost > LOSSES:
            raise Failure(
                f"{lost} evaluation workers were lost one after the other ({first_line(error)}); if they ran "
                "out of memory, lower batch_size; the same command continues from the journal"
            ) from error
        self._make()
