"""A figure: what was measured, what it is measured against, and whether the target is met."""

from __future__ import annotations

from typing import Literal

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the result. `ours`, `limit` and the official figures are in `unit`; a ratio is ours over the other.

    `limit` is the least (or most) that the work can take: the one thing in it that nobody can leave out. `target` is
    what is to be reached: by the ratio to the limit, or by what `target_is` says. `notes` are told beside it.
    """

    name: str
    ours: float
    unit: str
    better: Literal["lower", "higher"]
    limit: float | None = None
    official: float | None = None
    official_coincurve: float | None = None
    target: float | None = None
    target_is: Literal["ratio to limit", "ratio to official", "ours"] = "ratio to limit"
    notes: tuple[str, ...] = ()

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
        """Whether the target is reached; None where there is no target, or nothing to hold against it."""
        reached = {
            "ratio to limit": self.ratio_to_limit,
            "ratio to official": self.ratio_to_official,
            "ours": self.ours,
        }[self.target_is]
        if reached is None or self.target is None:
            return None
        return reached <= self.target if self.better == "lower" else reached >= self.target

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
            "target": _rounded(self.target),
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
            parts.append(f"ours {self.ratio_to_limit:.2f}x limit")
        if self.ratio_to_official is not None and self.ratio_to_official > 0:
            parts.append(f"ours {self.ratio_to_official:.3g}x official")
        if self.target is not None:
            verdict = {True: "met", False: "MISSED", None: "not measured"}[self.met]
            parts.append(f"target {self.target_is} {self.target:g}: {verdict}")
        return "; ".join(parts)


def _ratio(ours: float, other: float | None) -> float | None:
    return ours / other if other else None


def _rounded(value: float | None, *, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
