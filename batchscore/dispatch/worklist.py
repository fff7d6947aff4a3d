"""What is still to be handed out, one task at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from batchscore.plan import Task


class HandOut:
    """Implements `ports.Worklist`: hands out nothing while it may not, or beyond ``most``, the partitions under way at a time."""

    def __init__(self, tasks: Sequence[Task], may: Callable[[], bool], most: int | None = None) -> None:
        self._tasks = deque(tasks)
        self._may = may
        self._most = most
        self._out: set[int] = set()  # numbers of the partitions that are under way

    def next(self) -> Task | None:
        """The next task; None when there is nothing to hand out now."""
        if not self._tasks or not self._may():
            return None
        others = self._out - {self._tasks[0].partition.number}  # another task of the same partition takes the older one's place
        if self._most is not None and len(others) >= self._most:
            return None
        task = self._tasks.popleft()
        self._out.add(task.partition.number)
        return task

    def put(self, task: Task) -> None:
        """To be done after the others."""
        self._tasks.append(task)

    def put_first(self, task: Task) -> None:
        """To be done next."""
        self._tasks.appendleft(task)

    def came_home(self, task: Task) -> None:
        """It is under way no more."""
        self._out.discard(task.partition.number)

    def __len__(self) -> int:
        return len(self._tasks)


def apart(task: Task) -> list[Task]:
    """The task's own partition alone, and those beside it, alone; but one of another stage waits for that stage."""
    mine = (partition for partition in (task.partition, *task.beside) if partition.stage is task.partition.stage)
    return [task.model_copy(update={"partition": partition, "beside": ()}) for partition in mine]
