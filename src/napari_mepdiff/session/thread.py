"""The thread that a run is worked off in, and what becomes of it when the program ends."""

from __future__ import annotations

import atexit
import threading
from pathlib import Path

from .recovery import Interrupted, Keeper
from .runs import RunRecord
from .saving import save_somewhere
from .work import AUTOSAVE, work

AT_EXIT = 20.0  # s that the program waits for the present step when it ends in mid-run


class RunThread:
    """A run in a thread of its own.

    Parameters
    ----------
    run : RunRecord
    checkpoint : path, optional
        State of an interrupted run of the same data and settings to go on from.
    lost : Interrupted, optional
        The interrupted run that this one goes on with.

    Attributes
    ----------
    save_to : Path or None
        Where the volume is written, with its record, when the last step is done.
    """

    def __init__(
        self, run: RunRecord, checkpoint: str | Path | None = None, lost: Interrupted | None = None
    ) -> None:
        self.run = run
        self.save_to: Path | None = None
        self._checkpoint, self._lost = checkpoint, lost
        self._thread = threading.Thread(target=self._work, name=f"mepdiff {run.name}", daemon=True)

    def start(self) -> None:
        """Begin. Should the program end in mid-run, it waits a while for the present step."""
        atexit.register(self._at_exit)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it is at work."""
        return self._thread.is_alive()

    def release(self) -> None:
        """The end of the program is not to wait for it any more."""
        atexit.unregister(self._at_exit)

    def linger(self) -> None:
        """The program does not end before the run has, with what its thread writes at its end."""
        threading.Thread(target=self._thread.join, name="mepdiff lingers", daemon=False).start()

    def _work(self) -> None:
        run = self.run

        def last_act() -> None:
            if self.save_to is not None and run.frame is not None and not run.left:
                run.saved = save_somewhere(run, self.save_to)

        run.settle()
        keeper = Keeper(run, AUTOSAVE, self._lost)
        work(run, checkpoint=self._checkpoint, every=AUTOSAVE, keeper=keeper, last_act=last_act)

    def _at_exit(self) -> None:
        """The program ends in mid-run: the step is finished, and recovery keeps the volume."""
        if self.alive:
            if not self.run.control.stopped:  # nobody meant it to end
                self.run.error = "the program ended while it went on"
                self.run.control.stop()
            self._thread.join(AT_EXIT)
