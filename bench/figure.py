"""A figure: what was measured, what it is measured against, and whether the target is met."""

from __future__ import annotations

from typing import Literal

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the result. `ours`, `limit` and the official figures are in `unit`; a ratio is ours over the other.

    `limit` is the least (or most) that the work can take: the one thing in it that nobody can leave out. `target` is
    the ratio to the limit that is to be reached.
    """

    name: str
    ours: float
    unit: str
    better: Literal["lower", "higher"]
    limit: float | None = None
    official: float | None = None
    official_coincurve: float | None = None
    target: float | None = None

    @property
    def ratio_to_limit(self) -> float | None:
        """Ours over the limit."""
        return _ratio(self.ours, self.limit)

    @property
    def ratio_to_official(self) -> float | None:
        """Ours over the official package's, as it installs by default."""
        return _ratio(self.ours, self.official)

    @property
    def met(self) -> bool | None:
        """Whether the ratio to the limit reaches the target; None where there is no target."""
        ratio = self.ratio_to_limit
        if ratio is None or self.target is None:
            return None
        return ratio <= self.target if self.better == "lower" else ratio >= self.target

    def to_json(self) -> dict[str, object]:
        """The line of `--json`."""
        return {
            "name": self.name,
            "ours": round(self.ours, 3),
            "unit": self.unit,
            "better": self.better,
            "limit": _rounded(self.limit),
            "official": _rounded(self.official),
            "official_coincurve": _rounded(self.official_coincurve),
            "ratio_to_limit": _rounded(self.ratio_to_limit),
            "ratio_to_official": _rounded(self.ratio_to_official, digits=5),
            "target": self.target,
            "met": self.met,
        }

    def to_text(self) -> str:
        """The line for people."""
        parts = [f"{self.name}: {self.ours:.1f} {self.unit} ({self.better} is better)"]
        for label, value in (
            ("limit", self.limit),
            ("official", self.official),
            ("official with coincurve", self.official_coincurve),
        ):
            if value is not None and self.limit:
                parts.append(f"{label} {value:.1f} ({value / self.limit:.2f}x limit)")
            elif value is not None:
                parts.append(f"{label} {value:.1f}")
        if self.ratio_to_limit is not None:
            verdict = {True: "met", False: "MISSED", None: "no target"}[self.met]
            parts.append(f"ours {self.ratio_to_limit:.2f}x limit, target {self.target}: {verdict}")
        return "; ".join(parts)


def _ratio(ours: float, other: float | None) -> float | None:
    return ours / other if other else None


def _rounded(value: float | None, *, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
