"""How long the service works: the loads that the simulator and the benchmark's server share. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


@dataclass(frozen=True)
class LogNormal:
    """Service times in seconds; `sigma` is the spread of their logarithm. Draws beyond `most_s` are cut to it."""

    median_s: float
    sigma: float
    most_s: float = math.inf

    def draw(self, rng: random.Random) -> float:
        return min(self.median_s * math.exp(self.sigma * rng.gauss(0.0, 1.0)), self.most_s)

    def cdf(self, at_s: float) -> float:
        if at_s <= 0.0:
            return 0.0
        if at_s >= self.most_s:
            return 1.0
        return 0.5 * (1.0 + math.erf(math.log(at_s / self.median_s) / (self.sigma * math.sqrt(2.0))))


@dataclass(frozen=True)
class Load:
    """Request classes in equal shares, taken in turn."""

    name: str
    classes: tuple[LogNormal, ...]

    def draw(self, number: int, rng: random.Random) -> tuple[int, float]:
        """The class of the `number`-th task, and how long the service works on it."""
        place = number % len(self.classes)
        return place, self.classes[place].draw(rng)


ONE_CLASS = Load("one class", (LogNormal(25.0, 0.5),))
TWO_CLASSES = Load("two classes", (LogNormal(12.0, 0.3), LogNormal(50.0, 0.3)))
SLOW = Load("slow class", (LogNormal(70.0, 0.4),))
"""The three loads of the simulator, as in the project's limits and floors."""

TYPICAL = Load("typical", (LogNormal(30.0, 0.5, most_s=120.0),))
"""What the contenders are served at true scale."""
