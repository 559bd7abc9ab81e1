"""One compiled pass over the pixels for each step of the multislice model: what lies between two
transforms.

Each is held to torch in the tests. They work in place and release the interpreter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_jit = njit(nogil=True, fastmath=True, cache=True, error_model="numpy")


@_jit
def to_corner(pattern: Any, out: Any) -> None:
    """out = pattern (K, L) with DC moved from (K // 2, L // 2) to the corner."""
    height, width = out.shape
    y, x = height // 2, width // 2
    for i in range(height):
        row = pattern[i + y if i < height - y else i - (height - y)]
        for j in range(width - x):
            out[i, j] = row[j + x]
        for j in range(width - x, width):
            out[i, j] = row[j - (width - x)]


@_jit
def modulate(out: Any, a: Any, ry: Any, rx: Any) -> None:
    """out[b] = a · ry[b] · rx[b]: waves (B, M, K, L), a spectrum (M, K, L), factors per row and
    column."""
    for b in range(out.shape[0]):
        for m in range(a.shape[0]):
            for i in range(a.shape[1]):
                f = ry[b, i]
                for j in range(a.shape[2]):
                    out[b, m, i, j] = a[m, i, j] * (f * rx[b, j])


@_jit
def transmit(out: Any, wave: Any, canvas: Any, corner: Any) -> None:
    """out = wave · canvas window."""
    for b in range(wave.shape[0]):
        y, x = corner[b]
        for m in range(wave.shape[1]):
            for i in range(wave.shape[2]):
                row = canvas[y + i, x : x + wave.shape[3]]
                for j in range(wave.shape[3]):
                    out[b, m, i, j] = wave[b, m, i, j] * row[j]


@_jit
def multiply(wave: Any, h: Any) -> None:
    """wave *= h."""
    for b in range(wave.shape[0]):
        for m in range(wave.shape[1]):
            for i in range(wave.shape[2]):
                for j in range(wave.shape[3]):
                    wave[b, m, i, j] *= h[i, j]


@_jit
def absorb(chi: Any, before: Any, canvas: Any, acc: Any, corner: Any) -> None:
    """acc window += conj(before) · chi (summed over modes); chi *= conj(canvas window)."""
    for b in range(chi.shape[0]):
        y, x = corner[b]
        for m in range(chi.shape[1]):
            for i in range(chi.shape[2]):
                row = canvas[y + i, x : x + chi.shape[3]]
                total = acc[y + i, x : x + chi.shape[3]]
                for j in range(chi.shape[3]):
                    c = chi[b, m, i, j]
                    total[j] += np.conj(before[b, m, i, j]) * c
                    chi[b, m, i, j] = c * np.conj(row[j])


@_jit
def absorb_phase(chi: Any, before: Any, canvas: Any, acc: Any, corner: Any) -> None:
    """For a pure phase object: chi *= conj(canvas window); acc window += Im(conj(before) · chi), a
    real sum."""
    for b in range(chi.shape[0]):
        y, x = corner[b]
        for m in range(chi.shape[1]):
            for i in range(chi.shape[2]):
                row = canvas[y + i, x : x + chi.shape[3]]
                total = acc[y + i, x : x + chi.shape[3]]
                for j in range(chi.shape[3]):
                    c = chi[b, m, i, j] * np.conj(row[j])
                    p = before[b, m, i, j]
                    total[j] += p.real * c.imag - p.imag * c.real
                    chi[b, m, i, j] = c


@_jit
def correlate(chi: Any, psi: Any, out: Any) -> None:
    """out += Im(conj(chi) · psi), summed over positions and modes."""
    for b in range(chi.shape[0]):
        for m in range(chi.shape[1]):
            for i in range(chi.shape[2]):
                for j in range(chi.shape[3]):
                    c, p = chi[b, m, i, j], psi[b, m, i, j]
                    out[i, j] += c.real * p.imag - c.imag * p.real


@_jit
def intensity(psi: Any, out: Any, scale2: Any, background: Any) -> None:
    """out = Σ_m |Ψ_m|² · scale2 + background."""
    for i in range(psi.shape[1]):
        for j in range(psi.shape[2]):
            p = psi[0, i, j]
            out[i, j] = (p.real * p.real + p.imag * p.imag) * scale2 + background
        for m in range(1, psi.shape[0]):
            for j in range(psi.shape[2]):
                p = psi[m, i, j]
                out[i, j] += (p.real * p.real + p.imag * p.imag) * scale2


@_jit
def misfit_intensity(v: Any, n: Any, w: Any) -> float:
    """Loss Σ w (v − n)²; v becomes dL/dv."""
    loss: Any = 0.0
    for i in range(v.shape[0]):
        part = np.float32(0)
        for j in range(v.shape[1]):
            d = v[i, j] - n[i, j]
            part += w[i, j] * d * d
            v[i, j] = np.float32(2) * w[i, j] * d
        loss += part
    return loss


@_jit
def misfit_amplitude(v: Any, n: Any, w: Any) -> float:
    """Loss Σ w (√v − √n)²; v becomes dL/dv."""
    loss: Any = 0.0
    for i in range(v.shape[0]):
        part = np.float32(0)
        for j in range(v.shape[1]):
            sv = np.sqrt(v[i, j])
            d = sv - np.sqrt(n[i, j])
            part += w[i, j] * d * d
            v[i, j] = w[i, j] * d / sv
        loss += part
    return loss


@_jit
def logarithm(v: Any, bits: Any, out: Any, out_bits: Any) -> None:
    """out = log v, element by element, to float32. `bits` and `out_bits` are the same memory seen
    as int32.

    Spelled out (exponent, then the atanh series of the mantissa in [√½, √2)): the library's
    logarithm does not vectorise and would cost more than a transform.
    """
    half_root = np.int32(0x3F3504F3)
    for i in range(v.shape[0]):
        for j in range(v.shape[1]):
            out_bits[i, j] = bits[i, j] - (
                ((bits[i, j] - half_root) >> np.int32(23)) << np.int32(23)
            )
        for j in range(v.shape[1]):
            exponent = np.float32((bits[i, j] - half_root) >> np.int32(23))
            m = out[i, j]
            s = (m - np.float32(1)) / (m + np.float32(1))
            q = s * s
            series = np.float32(1) + q * (
                np.float32(1 / 3)
                + q * (np.float32(1 / 5) + q * (np.float32(1 / 7) + q * np.float32(1 / 9)))
            )
            out[i, j] = exponent * np.float32(0.6931471805599453) + np.float32(2) * s * series


@_jit
def misfit_poisson(v: Any, n: Any, w: Any, log_v: Any) -> float:
    """Loss Σ w (v − n log v); v becomes dL/dv. What depends on n alone is added outside."""
    loss: Any = 0.0
    for i in range(v.shape[0]):
        part = np.float32(0)
        for j in range(v.shape[1]):
            part += w[i, j] * (v[i, j] - n[i, j] * log_v[i, j])
            v[i, j] = w[i, j] * (np.float32(1) - n[i, j] / v[i, j])
        loss += part
    return loss


@_jit
def spread(v: Any, ky: Any, kx: Any, row: Any, out: Any) -> None:
    """out = v convolved with symmetric kernels (2r + 1) along both axes, wrapped around.

    `row` is scratch, of the width of v and twice the reach of `kx`.
    """
    height, width = v.shape
    ry, rx = ky.shape[0] // 2, kx.shape[0] // 2
    middle = row[rx : rx + width]
    for i in range(height):
        here, w = v[i], ky[ry]
        for j in range(width):
            middle[j] = w * here[j]
        for t in range(1, ry + 1):
            above, below, w = v[(i - t) % height], v[(i + t) % height], ky[ry + t]
            for j in range(width):
                middle[j] += w * (above[j] + below[j])
        for j in range(rx):  # the rims
            row[rx - 1 - j] = middle[(width - 1 - j) % width]
            row[rx + width + j] = middle[j % width]
        target, w = out[i], kx[rx]
        for j in range(width):
            target[j] = w * middle[j]
        for t in range(1, rx + 1):
            left, right, w = row[rx - t : rx - t + width], row[rx + t : rx + t + width], kx[rx + t]
            for j in range(width):
                target[j] += w * (left[j] + right[j])


@_jit
def total(v: Any) -> float:
    """Σ v."""
    out: Any = 0.0
    for i in range(v.shape[0]):
        part = np.float32(0)
        for j in range(v.shape[1]):
            part += v[i, j]
        out += part
    return out


@_jit
def dot(a: Any, b: Any) -> float:
    """Σ a · b."""
    out: Any = 0.0
    for i in range(a.shape[0]):
        part = np.float32(0)
        for j in range(a.shape[1]):
            part += a[i, j] * b[i, j]
        out += part
    return out


@_jit
def scale_waves(psi: Any, g: Any, scale2: Any) -> None:
    """psi *= g · scale2: from Ψ to ∂L/∂Ψ*."""
    for m in range(psi.shape[0]):
        for i in range(psi.shape[1]):
            for j in range(psi.shape[2]):
                psi[m, i, j] *= g[i, j] * scale2
