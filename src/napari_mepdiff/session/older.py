"""Records of earlier versions, in the form of today."""

from __future__ import annotations

from typing import Any

_STATES = {"done": "done", "stopped": "stopped", "failed": "failed"}


def migrated(history: dict[str, Any]) -> dict[str, Any]:
    """A flat record (schema 1) as the fields of :class:`~.record.Record`.

    Raises
    ------
    KeyError
        If it lacks what every record had.
    """
    old = dict(history["recipe"])
    source = history.get("data", {}).get("source", {})
    preparation = dict(old.get("preparation", {}))
    if old.get("pixel_mrad") is not None:
        preparation.setdefault("pixel_mrad", old["pixel_mrad"])
    recipe = {
        "opening": {
            "path": old["file"],
            "fingerprint": source.get("hash"),
            "dataset": old.get("dataset"),
            "scan_shape": old.get("scan"),
            "calibration": old.get("calibration", {}),
        },
        "preparation": preparation,
        "optics": old.get("optics", {}),
        "probe": None if old.get("probe") is None else {"path": old["probe"]},
        "start": _start(old.get("start"), history.get("started_from", "")),
        **{
            name: old[name]
            for name in ("solver", "slices", "slice_thickness", "modes", "device", "preview")
            if name in old
        },
    }
    complete = bool(history["complete"])
    state = "done" if complete else _STATES.get(history.get("state", "stopped"), "stopped")
    return {
        "schema_version": 2,
        "made_by": history.get("made_by", "an earlier version"),
        "run": history.get("run", ""),
        "measurement": "",
        "recipe": recipe,
        "settings": _settings(old["solver"], history["settings"]),
        "changes": [_change(old["solver"], change) for change in history["changes"]],
        "notes": history.get("notes", ()),
        "outcome": {
            "state": state,
            "steps": history["steps"],
            "planned": history.get("planned", 0),
            "loss": history.get("loss"),
            "seconds": history.get("seconds") or 0.0,
        },
        "versions": history.get("versions", {}),
        "machine": {},
    }


def _start(file: str | None, layer: str) -> dict[str, Any] | None:
    """Earlier records kept a file's name, or a layer's, without the values."""
    if file is None and not layer:
        return None
    return {"sha256": "", "file": file, "name": layer}


def _settings(solver: str, fields: dict[str, Any]) -> dict[str, Any]:
    if solver == "dps":
        from ..reconstruction.diffusion.settings import of_earlier_version

        return of_earlier_version(fields)
    return dict(fields)


def _change(solver: str, change: Any) -> dict[str, Any]:
    from ..reconstruction.change import Change

    found = Change.from_json(change).as_json()
    if "settings" in found:
        found["settings"] = _settings(solver, found["settings"])
    return found


def interrupted_run(description: dict[str, Any]) -> dict[str, Any]:
    """What an earlier version left of a run that goes on, as a record of today.

    Raises
    ------
    KeyError
        If it lacks what every description had.
    """
    from .record import SCHEMA

    setup = description["choices"]["setup"]
    started = setup.get("start", "")
    return {
        "schema_version": SCHEMA,
        "made_by": "an earlier version",
        "run": description["name"],
        "recipe": {
            "opening": {"path": description["path"]},
            "preparation": description["choices"]["preparation"],
            "start": _start(None, started),
            **{k: v for k, v in setup.items() if k != "start"},
        },
        "settings": _settings(description["solver"], description["settings"]),
        "versions": {},
        "machine": {},
    }
