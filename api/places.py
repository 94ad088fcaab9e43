"""Places: limits for how much costly work goes on at the same time, in all and per owner."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from nelbo.errors import Overloaded, OverQuota


class Places:
    """The places of one process, for its event loop only.

    Nobody waits for a place. A request without one is refused, with the time to try again.
    """

    def __init__(
        self, number: int, of_owner: int, what: str, advice: str, retry_after: float
    ) -> None:
        self._number = number
        self._of_owner = of_owner
        self._what = what
        self._advice = advice
        self._retry_after = retry_after
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """Hold a place.

        Raises OverQuota if the owner's places are taken, Overloaded if all places are taken.
        """
        if self._taken[owner] >= self._of_owner:
            raise OverQuota(
                f"you have {self._of_owner:,} {self._what} at this moment, the maximum per"
                f" owner{self._advice}",
                retry_after=self._retry_after,
            )
        if self._taken.total() >= self._number:
            raise Overloaded(
                f"the service has {self._number:,} {self._what} at this moment, the"
                f" maximum{self._advice}",
                retry_after=self._retry_after,
            )
        self._taken[owner] += 1
        try:
            yield
        finally:
            self._taken[owner] -= 1
            self._taken += Counter()  # removes the owners without a place
