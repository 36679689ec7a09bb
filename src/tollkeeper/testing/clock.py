"""A clock that only moves when told to."""

from __future__ import annotations


class FakeClock:
    """Stands wherever a `clock: Callable[[], float]` is asked for.

    Example:
        >>> clock = FakeClock(100.0)
        >>> clock.advance(2.5)
        >>> clock()
        102.5
    """

    def __init__(self, now: float = 0.0, *, step: float = 0.0) -> None:
        """Start at `now`; every reading then moves the clock `step` seconds on.

        Args:
            now: first reading, in seconds.
            step: seconds that pass with each reading, at least 0.
        """
        if step < 0:
            raise ValueError(f"expected a step of at least 0, got {step}; clocks do not run back")
        self.now = now
        self._step = step

    def __call__(self) -> float:
        """Return the time in seconds."""
        reading = self.now
        self.now += self._step
        return reading

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"expected at least 0 seconds, got {seconds}; clocks do not run back")
        self.now += seconds
