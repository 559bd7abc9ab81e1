"""Change: what was changed during a run, and by whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Change:
    """One thing that was changed during a run.

    Attributes
    ----------
    step : int
        Steps that had been done.
    settings : dict
        Fields with their new values, as JSON has them; empty where the run was taken back.
    back : int or None
        The step whose state the run was taken back to.
    by : 'user' or 'solver'
        Who made it.
    reason : str
        Why the solver made it.
    """

    step: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    back: int | None = None
    by: Literal["user", "solver"] = "user"
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        out: dict[str, Any] = {"step": self.step, "by": self.by}
        if self.settings:
            out["settings"] = dict(self.settings)
        if self.back is not None:
            out["back"] = self.back
        if self.reason:
            out["reason"] = self.reason
        return out

    @classmethod
    def from_json(cls, value: Any) -> Change:
        """From a record; also from the pairs (step, fields) that earlier versions wrote.

        Raises
        ------
        ValueError
            If it is neither.
        """
        try:
            if isinstance(value, dict):
                by: Literal["user", "solver"] = "solver" if value.get("by") == "solver" else "user"
                back = value.get("back")
                return cls(
                    int(value["step"]),
                    dict(value.get("settings", {})),
                    None if back is None else int(back),
                    by,
                    str(value.get("reason", "")),
                )
            step, fields = value
            fields = dict(fields)
            by = "solver" if fields.pop("by", "user") == "solver" else "user"
            reason, back = str(fields.pop("reason", "")), fields.pop("back", None)
            return cls(int(step), fields, None if back is None else int(back), by, reason)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"not a change of a run: {value!r}") from error
