"""Where a pod stands in its attempt, and how far the attempt's pods have come: without a walk over a gang of thousands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from tuttilab.scheduler.core.rows.changes import AttemptKey
from tuttilab.scheduler.domain.model import Attempt, Pod

FEW: Final = 8
"""Pods among which one is found as fast without an index."""


@dataclass(slots=True)
class _Places:
    count: int
    by_name: dict[str, int]
    passed: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Places:
    """Of live attempts. What is remembered is checked against the attempt, and found anew where its pods have changed places."""

    _known: dict[AttemptKey, _Places] = field(default_factory=dict)

    def place(self, attempt: Attempt, name: str) -> int | None:
        """The index of the pod of that name in ``attempt.pods``."""
        pods = attempt.pods
        if len(pods) <= FEW:
            return next((index for index, pod in enumerate(pods) if pod.name == name), None)
        index = self._of(attempt).by_name.get(name)
        if index is not None and pods[index].name == name:
            return index
        self.drop((attempt.job_id, attempt.number))
        return self._of(attempt).by_name.get(name)

    def any_of(self, attempt: Attempt, what: str, is_so: Callable[[Pod], bool]) -> Pod | None:
        """A pod of which it is so: the first one, or one after it. ``what`` names the question."""
        if len(attempt.pods) <= FEW:
            return next((pod for pod in attempt.pods if is_so(pod)), None)
        known = self._of(attempt)
        # The pods before that place were past it: mostly they still are, and nothing is taken for over without a look at them.
        for index in chain(range(known.passed.get(what, 0), len(attempt.pods)), range(known.passed.get(what, 0))):
            if is_so(attempt.pods[index]):
                known.passed[what] = index
                return attempt.pods[index]
        return None

    def drop(self, key: AttemptKey) -> None:
        self._known.pop(key, None)

    def _of(self, attempt: Attempt) -> _Places:
        key = (attempt.job_id, attempt.number)
        known = self._known.get(key)
        if known is None or known.count != len(attempt.pods):
            by_name = {pod.name: index for index, pod in enumerate(attempt.pods)}
            known = self._known[key] = _Places(len(attempt.pods), by_name)
        return known
