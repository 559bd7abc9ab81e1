"""Images of one specimen that are shifted against each other, in a way linear in their tilt.

The image that a pixel k of the bright disk sees is that of the middle seen under a tilt, I_k(r) =
I(r + s(k)). Where s = M k, all pairs of pixels with the same distance Δk show the same shift MΔk:
their cross-correlations are added before a peak is looked for, which finds it at doses where no
single pair would tell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

Array = NDArray[np.float64]


def first_guess(images: Array, cells: NDArray[np.int64], k: Array) -> Array:
    """M of s = M k by the cross-correlation of neighbours, near ones first.

    Parameters
    ----------
    images : ndarray
        (G, Ny, Nx), of mean 0.
    cells : ndarray
        (G, 2): where each image lies on a square grid over the bright disk.
    k : ndarray
        (G, 2), (y, x), any unit.

    Returns
    -------
    ndarray
        (2, 2): scan steps (y, x) for a unit of k.
    """
    ny, nx = images.shape[1:]
    window = np.hanning(ny + 2)[1:-1, None] * np.hanning(nx + 2)[None, 1:-1]
    spectra = np.fft.fft2(images * window, s=(2 * ny, 2 * nx))
    fy, fx = np.fft.fftfreq(2 * ny)[:, None], np.fft.fftfreq(2 * nx)[None]
    low = np.exp(-((fy**2 + fx**2) / 0.3**2))
    overlap = np.fft.ifft2(np.abs(np.fft.fft2(window, s=(2 * ny, 2 * nx))) ** 2).real
    overlap = overlap / overlap[0, 0]
    lag_y, lag_x = np.fft.fftfreq(2 * ny, 1 / (2 * ny)), np.fft.fftfreq(2 * nx, 1 / (2 * nx))
    at = {(int(a), int(b)): n for n, (a, b) in enumerate(cells)}
    matrix = np.zeros((2, 2))
    reach = None
    for distance in (1, 2, 3, 4):
        apart, seen = [], []
        for dy, dx in ((1, 0), (0, 1), (1, 1), (1, -1)):
            step = (dy * distance, dx * distance)
            pairs = [
                (n, at[a + step[0], b + step[1]])
                for (a, b), n in at.items()
                if (a + step[0], b + step[1]) in at
            ]
            if len(pairs) < 3:
                continue
            one, two = (list(p) for p in zip(*pairs, strict=True))
            power = (spectra[one] * spectra[two].conj()).sum(axis=0)
            power = power / np.sqrt(np.abs(power) + 1e-9 * np.abs(power).max()) * low
            score = np.fft.ifft2(power).real / np.maximum(overlap, 0.3)
            delta = (k[two] - k[one]).mean(axis=0)
            expected = matrix @ delta
            far = np.hypot(lag_y[:, None] - expected[0], lag_x[None] - expected[1])
            score[(far > (reach or min(ny, nx) / 3)) | (overlap < 0.1)] = -np.inf
            apart.append(delta)
            seen.append(_peak(score, lag_y, lag_x))
        if len(apart) >= 2:
            matrix = np.linalg.lstsq(np.array(apart), np.array(seen), rcond=None)[0].T
            reach = 1.5 + 0.5 * distance
    return matrix


def _peak(score: Array, lag_y: Array, lag_x: Array) -> Array:
    """Place of the largest value, by a parabola along each axis."""
    y, x = np.unravel_index(int(np.argmax(score)), score.shape)
    out = []
    for line, n, lag in ((score[:, x], y, lag_y), (score[y], x, lag_x)):
        a, b, c = line[n - 1], line[n], line[(n + 1) % len(line)]
        bend = a - 2 * b + c if min(a, b, c) > -np.inf else 0.0
        inner = bend < 0
        out.append(lag[n] + (float(np.clip((a - c) / (2 * bend), -0.5, 0.5)) if inner else 0.0))
    return np.array(out)


def aligned(images: Array, shifts: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Images moved over each other, and where each was really measured; both (G, Ny, Nx)."""
    ny, nx = images.shape[1:]
    moved = np.stack(
        [shift(i, s, order=3, mode="nearest") for i, s in zip(images, shifts, strict=True)]
    )
    y, x = np.arange(ny)[None, :, None], np.arange(nx)[None, None]
    sy, sx = shifts[:, 0, None, None], shifts[:, 1, None, None]
    valid = (y >= sy) & (y <= ny - 1 + sy) & (x >= sx) & (x <= nx - 1 + sx)
    return moved, valid


def refine(images: Array, k: Array, matrix: Array, rounds: int = 6) -> tuple[Array, Array, Array]:
    """Shift of each image against the mean of the others, and the linear law through them.

    Gauss-Newton on the difference to the mean of the others, after it was moved there; images that
    do not follow the law (by four robust deviations) do not take part in it.

    Returns
    -------
    matrix : (2, 2)
    shifts : (G, 2)
        Scan steps.
    weight : (G,)
        How much an image is like the mean of the others: squared correlation, 0 for outliers.
    """
    smooth = np.stack([gaussian_filter(i, 0.7) for i in images])
    model = k @ matrix.T
    shifts, weight = model, np.ones(len(k))
    for _ in range(rounds):
        moved, valid = aligned(smooth, model)
        count, total = valid.sum(axis=0), (moved * valid).sum(axis=0)
        shifts, weight = model.copy(), np.zeros(len(k))
        for n in range(len(k)):
            inside = valid[n] & (count >= max(3, 0.25 * len(k)))
            if inside.sum() < 20:
                continue
            mean = (total - moved[n] * valid[n]) / np.maximum(count - valid[n], 1)
            gy, gx = (g[inside] for g in np.gradient(mean))
            m, a = mean[inside] - mean[inside].mean(), moved[n][inside]
            a = a - a.mean()
            likeness = float(a @ m) / np.sqrt(float(a @ a) * float(m @ m) + 1e-30)
            if likeness <= 0.02:
                continue
            slope = float(a @ m) / float(m @ m)
            normal = np.array([[gy @ gy, gy @ gx], [gy @ gx, gx @ gx]])
            wanted = np.array([gy @ (a / slope - m), gx @ (a / slope - m)])
            normal = normal + 1e-3 * np.trace(normal) * np.eye(2)
            shifts[n] += np.clip(np.linalg.solve(normal, wanted), -1, 1)
            weight[n] = likeness**2
        if (weight > 0).sum() < 6:
            break
        matrix, offset, weight = fit_line(k, shifts, weight)
        model = k @ matrix.T + offset
    return matrix, shifts, weight


def fit_line(k: Array, shifts: Array, weight: Array) -> tuple[Array, Array, Array]:
    """s = M k + s0 by weighted least squares without outliers: M (2, 2), s0 (2,), weights (G,)."""
    design = np.column_stack([k, np.ones(len(k))])
    use = weight.copy()
    for _ in range(4):
        root = np.sqrt(use)[:, None]
        found = np.linalg.lstsq(design * root, shifts * root, rcond=None)[0]
        off = np.linalg.norm(shifts - design @ found, axis=1)
        scatter = 1.4826 * np.median(off[weight > 0])
        use = np.where(off <= 3 * scatter + 1e-9, weight, 0)
        if (use > 0).sum() < 6:
            use = weight
            break
    return found[:2].T, found[2], use
