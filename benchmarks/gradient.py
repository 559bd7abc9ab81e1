"""Loss and gradient over a full scan: ours, PtyRAD's autograd, and bare FFTs, side by side.

    python benchmarks/gradient.py [--json FILE] [--device cpu] [--repeats 5]

26 × 26 positions, 8 slices, 128² and 64² windows (the paper geometry), float32, intensity misfit.
Times are the best of the repeats, taken in turn so that other work on the machine hits all alike.
The limit is 30 two-dimensional transforms a position (15 forward, 15 adjoint), timed with torch at
its best batch and with FFTW. Peak memory is the rise of the resident set above the imports, each
engine in a process of its own. Below stands what a refined experiment costs beside a fixed one: a
tilted beam, renewed propagators, gradients by tilt and thickness, background, blur, and theirs;
``--experiment`` measures that alone.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python benchmarks/NAME.py`
from benchmarks import output

POSITIONS, SLICES, FFTS = 676, 8, 30
EXTRAS = {
    "tilt": "tilted beam",
    "renewed": "propagators renewed before each call",
    "gaps": "gradients by tilt and thickness",
    "background": "background",
    "blur": "background and blur of 1 px",
    "blur, gradients": "gradients by background and blur",
}


def problem(
    window: int, engine: str, device: str, stride: int = 1, extra: str = ""
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """One loss-and-gradient evaluation as a callable; `extra` is one of EXTRAS."""
    import torch

    from napari_mepdiff.physics.engines.ptyrad import PtyRADLikelihood
    from napari_mepdiff.physics.likelihood import Likelihood
    from napari_mepdiff.physics.optics import Optics, probe_from_parameters
    from napari_mepdiff.physics.scan import Raster

    torch.manual_seed(0)
    probe = probe_from_parameters(Optics(), (window, window), (0.2, 0.2)) * 512
    volume = torch.rand(SLICES, 64, 64, device=device) * 0.3
    patterns = torch.rand(POSITIONS, window, window) * 32
    common: dict[str, Any] = {
        "pixel_size": (0.2, 0.2),
        "slice_thickness": 1.6,
        "energy": 300.0,
        "device": device,
    }
    shape = (SLICES, 64, 64)
    positions = Raster().positions()
    if engine == "ptyrad":
        like: Any = PtyRADLikelihood(patterns, probe, positions, shape, **common)
    else:
        like = Likelihood(
            patterns, probe, positions, shape, propagator="exact", detector_stride=stride, **common
        )

    if extra in ("tilt", "renewed", "gaps"):
        like.set_gaps(tilt=(3.0, -4.0))
    elif extra == "background":
        like.set_detector(background=0.1)
    elif extra.startswith("blur"):
        like.set_detector(blur=1.0, background=0.1)

    def evaluate() -> Any:
        if extra == "gaps":
            out = like.gradients(volume, gaps=True)
        elif extra == "blur, gradients":
            out = like.gradients(volume, detector=True)
        else:
            if extra == "renewed":
                like.set_gaps(tilt=(3.0, -4.0))
            out = like(volume)
        if device != "cpu":
            torch.cuda.synchronize()
        return out

    return evaluate, {}


def bare_ffts_torch(window: int, device: str, batch: int) -> Callable[[], Any]:
    """FFTS transforms for every position with torch, in place where it can."""
    import torch

    x = torch.randn(batch, window, window, dtype=torch.complex64, device=device)
    out = torch.empty_like(x)

    def evaluate() -> None:
        for _ in range(POSITIONS * FFTS // (2 * batch)):
            torch.fft.fft2(x, out=out)
            torch.fft.ifft2(x, out=out)
        if device != "cpu":
            torch.cuda.synchronize()

    return evaluate


def bare_ffts_fftw(window: int, threads: int) -> Callable[[], Any]:
    """The same with FFTW, one position at a time on every core: the fastest we know here."""
    import pyfftw

    plans = []
    for _ in range(threads):
        a = pyfftw.zeros_aligned((1, window, window), dtype="complex64")
        plans.append(
            [
                pyfftw.FFTW(a, a, axes=(1, 2), direction=d, flags=("FFTW_MEASURE",))
                for d in ("FFTW_FORWARD", "FFTW_BACKWARD")
            ]
        )

    def work(i: int) -> None:
        forward, inverse = plans[i]
        for _ in range(POSITIONS * FFTS // (2 * threads)):
            forward.execute()
            inverse.execute()

    def evaluate() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))

    return evaluate


def best_in_turn(jobs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Best seconds of each job over `repeats` rounds."""
    best = dict.fromkeys(jobs, float("inf"))
    for job in jobs.values():
        job()
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def experiment(window: int, device: str, repeats: int) -> dict[str, float]:
    """Seconds of the plain evaluation ('ours') and of that with each of EXTRAS, printed too."""
    jobs = {"ours": problem(window, "ours", device)[0]}
    for name in EXTRAS:
        jobs[name] = problem(window, "ours", device, extra=name)[0]
    t = best_in_turn(jobs, repeats)
    for name, words in EXTRAS.items():
        print(f"{window:>7}² {t[name]:>8.3f}s {t[name] / t['ours'] - 1:>+7.1%}  {words}")
    return t


def peak_memory(engine: str, window: int, queue: Any) -> None:
    """Rise of the resident set, in bytes, over building the model and two evaluations."""
    import psutil
    import torch

    from napari_mepdiff.physics.likelihood import Likelihood  # noqa: F401

    if engine == "ptyrad":
        import ptyrad.core  # noqa: F401
    else:
        import pyfftw  # noqa: F401
    torch.fft.fft2(torch.zeros(2, 8, 8, dtype=torch.complex64))
    process = psutil.Process(os.getpid())
    base = process.memory_info().rss
    peak, done = [base], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    evaluate, _ = problem(window, engine, "cpu")
    evaluate()
    evaluate()
    done.set()
    watcher.join()
    queue.put(peak[0] - base)


def memory_of(engine: str, window: int) -> int:
    """`peak_memory` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak_memory, args=(engine, window, queue))
    process.start()
    value = queue.get(timeout=600)
    process.join()
    return int(value)


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--experiment", action="store_true", help="only what it adds")
    args = output.parse(parser)
    import torch

    threads = torch.get_num_threads()
    out: dict[str, Any] = {
        k: {}
        for k in (
            "ptyrad_over_ours",
            "ours_over_fft",
            "ours_over_fftw",
            "seconds",
            "memory_mb",
            "memory_ours_over_ptyrad",
            "seconds_experiment",
        )
    }
    out["device"] = args.device if args.device == "cpu" else torch.cuda.get_device_name()
    out["threads"], out["torch"], out["numpy"] = threads, torch.__version__, np.__version__
    print(f"{POSITIONS} positions, {SLICES} slices, device {out['device']}, {threads} threads\n")
    if args.experiment:
        for window in (128, 64):
            out["seconds_experiment"][str(window)] = experiment(window, args.device, args.repeats)
        output.write(out, args.json)
        return
    head = f"{'window':>8} {'ours':>9} {'PtyRAD':>9} {'30 FFTs torch':>14} {'30 FFTs FFTW':>13}"
    head += f" {'PtyRAD/ours':>12}"
    print(head + f" {'ours/FFT':>9} {'ours/FFTW':>10} {'MB ours':>8} {'MB PtyRAD':>10}")
    for window in (128, 64):
        jobs = {
            "ours": problem(window, "ours", args.device)[0],
            "ptyrad": problem(window, "ptyrad", args.device)[0],
        }
        if window == 128:
            jobs["stride2"] = problem(window, "ours", args.device, stride=2)[0]
        batches = (13, 26, 52) if args.device == "cpu" else (52, 169, 676)
        for b in batches:
            jobs[f"fft{b}"] = bare_ffts_torch(window, args.device, b)
        if args.device == "cpu":
            jobs["fftw"] = bare_ffts_fftw(window, threads)
        t = best_in_turn(jobs, args.repeats)
        fft = min(t[f"fft{b}"] for b in batches)
        key = str(window)
        out["ptyrad_over_ours"][key] = t["ptyrad"] / t["ours"]
        out["ours_over_fft"][key] = t["ours"] / fft
        out["seconds"][key] = {
            "ours": t["ours"],
            "ptyrad": t["ptyrad"],
            "fft_torch": fft,
            "fftw": t.get("fftw"),
        }
        memory = [float("nan"), float("nan")]
        if args.device == "cpu":
            out["ours_over_fftw"][key] = t["ours"] / t["fftw"]
            memory = [memory_of(e, window) / 1e6 for e in ("ours", "ptyrad")]
            out["memory_ours_over_ptyrad"][key] = memory[0] / memory[1]
            out["memory_mb"][key] = {"ours": memory[0], "ptyrad": memory[1]}
        print(
            f"{window:>7}² {t['ours']:>8.3f}s {t['ptyrad']:>8.3f}s {fft:>13.3f}s "
            f"{t.get('fftw', np.nan):>12.3f}s "
            f"{t['ptyrad'] / t['ours']:>12.2f} {t['ours'] / fft:>9.2f} "
            f"{t['ours'] / t.get('fftw', np.nan):>10.2f} "
            f"{memory[0]:>8.0f} {memory[1]:>10.0f}"
        )
        if "stride2" in t:
            out["ptyrad_over_stride2"] = t["ptyrad"] / t["stride2"]
            out["seconds"]["stride2"] = t["stride2"]
            print(
                f"{'stride 2':>8} {t['stride2']:>8.3f}s {'':>38} "
                f"{t['ptyrad'] / t['stride2']:>12.2f}"
            )
    print()
    for window in (128, 64):
        out["seconds_experiment"][str(window)] = experiment(window, args.device, args.repeats)
    output.write(out, args.json)


if __name__ == "__main__":
    main()
