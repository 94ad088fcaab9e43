"""Places for what is costly: how many of it go on at a time, and how many of them may be one
owner's."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from nelbo.errors import Overloaded, OverQuota


class Places:
    """Places of one process, for the event loop alone. Nobody waits for one: whoever finds none is
    told to come back."""

    def __init__(
        self, number: int, of_owner: int, what: str, advice: str, retry_after: float
    ) -> None:
        self._number, self._of_owner = number, of_owner
        self._what, self._advice, self._retry_after = what, advice, retry_after
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """Hold a place. Raises OverQuota where the owner has no further one, Overloaded where
        nobody has."""
        if self._taken[owner] >= self._of_owner:
            raise OverQuota(
                f"{self._of_owner:,} {self._what} of yours go on at this moment, the most of one"
                f" owner{self._advice}",
                retry_after=self._retry_after,
            )
        if self._taken.total() >= self._number:
            raise Overloaded(
                f"{self._number:,} {self._what} go on at this moment, the most of all"
                f" owners{self._advice}",
                retry_after=self._retry_after,
            )
        self._taken[owner] += 1
        try:
            yield
        finally:
            self._taken[owner] -= 1
            self._taken += Counter()  # forgets owners without a place
