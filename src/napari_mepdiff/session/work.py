"""The work of a run, in whichever thread calls it.

Set up, step, keep, clean up, say how it ended.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..base.devices import torch_trouble
from ..reconstruction.frame import Frame
from .record import Outcome

if TYPE_CHECKING:
    from .recovery import Keeper
    from .runs import RunRecord

log = logging.getLogger(__name__)
AUTOSAVE = 30.0  # s


def work(
    run: RunRecord,
    *,
    checkpoint: str | Path | None = None,
    every: float = AUTOSAVE,
    keeper: Keeper | None = None,
    watch: Callable[[Frame], None] | None = None,
    last_act: Callable[[], None] | None = None,
) -> BaseException | None:
    """Do a run from its beginning to its end, whatever ends it.

    Parameters
    ----------
    run : RunRecord
        Its frames, problem and, as the last thing, its outcome are filled in.
    checkpoint : path, optional
        State to go on from, and to keep; that of the keeper if not given.
    every : float
        Seconds between states.
    keeper : Keeper, optional
        Leaves volume and record on disk while the run goes on.
    watch : callable, optional
        Called with each frame in this thread.
    last_act : callable, optional
        Called when the run has ended and before the outcome is published (partial volumes).

    Returns
    -------
    BaseException or None
        What ended the run if it failed. The last good volume is in ``run.frames.last``.
    """
    failure: BaseException | None = None
    try:
        from ..prior.self_test import prove
        from ..reconstruction.registry import solve

        prove(run.recipe.device)
        run.settle()
        run.problem = run.recipe.problem(run.data)
        run.stage = "first step"
        for frame in solve(
            run.problem,
            run.first,
            run.control,
            start=run.start,
            checkpoint=checkpoint or (keeper.checkpoint if keeper is not None else None),
            every=every,
        ):
            run.append(frame)
            if keeper is not None:
                keeper.look()
            if watch is not None:
                watch(frame)
    except BaseException as error:  # a signal or an exit, too: what there is must be kept
        failure = error
        if not run.left:
            run.error = plain_words(error)
            run.details = "".join(traceback.format_exception(error))
        log.warning("%s ended early: %s", run.name, plain_words(error))
        _forget_frames(error)
    ending = run.ending if run.left and run.ending is not None else _outcome(run, failure)
    run.ending = ending
    try:
        if keeper is not None:
            keeper.close(ending)
        if last_act is not None:
            last_act()
        _free_device(run.recipe.device)
    except Exception:  # cleaning up must not hide the outcome
        log.exception("after %s", run.name)
    finally:
        run.finish()
    return failure


def _outcome(run: RunRecord, failure: BaseException | None) -> Outcome:
    state: Literal["done", "stopped", "failed"] = "done"
    if failure is not None:
        state = "stopped" if isinstance(failure, KeyboardInterrupt) else "failed"
    elif run.control.stopped and (run.frame is None or run.frame.step < run.frame.total):
        state = "failed" if run.error else "stopped"  # an error: the program is about to end
        run.error = run.error or "stopped by the user"
    return run.so_far(state)


def plain_words(error: BaseException) -> str:
    """What went wrong and what to do."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by the user"
    if (trouble := torch_trouble(error)) is not None:
        return trouble
    if name == "OutOfMemoryError" or "out of memory" in text.lower():
        return (
            "the device has not enough memory: crop the field, use fewer samples or slices, or "
            "choose the CPU"
        )
    if isinstance(error, MemoryError):
        return text or "this machine has not enough memory: crop or bin the data"
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return text or name


def _forget_frames(error: BaseException) -> None:
    """The stack frames of an error hold the solver's tensors."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


def _free_device(device: str) -> None:
    """Give cached memory of a GPU back once nothing uses it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
