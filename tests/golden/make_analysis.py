"""Writes analysis.json: what numpy says of the singular values and subspaces of dense low-rank updates, for tests/analysis.rs.

    PYTHONPATH=scripts python tests/golden/make_analysis.py

The factors come from the counter generator (key, bound 1), so that the file holds answers only. Everything is in f64 on the dense matrix.
"""

import json
from pathlib import Path

import numpy as np

from weblora_reference.counter import uniform

OUT, IN = 13, 17
# Two links of one site: (name, rank, scale).
LINKS = [("one", 3, 2.0), ("two", 4, 0.5)]


def product(name: str, rank: int, scale: float) -> np.ndarray:
    a = np.asarray(uniform(0, f"{name}.a", (rank, IN), 1.0), np.float64)
    b = np.asarray(uniform(0, f"{name}.b", (OUT, rank), 1.0), np.float64)
    return scale * b @ a


def entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def spectrum(w: np.ndarray, n: int) -> dict:
    s = np.linalg.svd(w, compute_uv=False)[:n]
    p = s**2 / (s**2).sum()
    return {
        "singular_values": s.tolist(),
        "frobenius": float(np.linalg.norm(w)),
        "rank": int(np.linalg.matrix_rank(w)),
        "entropy": entropy(p),
        "normalized_entropy": entropy(p) / float(np.log(n)),
        "effective_rank": float(np.exp(entropy(p))),
        "effective_rank_sigma": float(np.exp(entropy(s / s.sum()))),
        "stable_rank": float(np.linalg.norm(w) ** 2 / np.linalg.norm(w, 2) ** 2),
        "top1_energy": float(p[0]),
    }


def phi(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    def cell(i: int, j: int) -> float:
        return float(np.linalg.norm(x[:, :i].T @ y[:, :j]) ** 2 / min(i, j))

    return [[cell(i, j) for j in range(1, y.shape[1] + 1)] for i in range(1, x.shape[1] + 1)]


weights = [product(*link) for link in LINKS]
(u1, _, v1), (u2, _, v2) = [np.linalg.svd(w) for w in weights]
(r1, r2) = [rank for _, rank, _ in LINKS]
golden = {
    "out": OUT,
    "in": IN,
    "links": [{"name": name, "rank": rank, "scale": scale} for name, rank, scale in LINKS],
    "spectra": [spectrum(w, rank) for w, (_, rank, _) in zip(weights, LINKS)],
    "sum": spectrum(sum(weights), r1 + r2),
    "left": phi(u1[:, :r1], u2[:, :r2]),
    "right": phi(v1.T[:, :r1], v2.T[:, :r2]),
    "cosine": float((weights[0] * weights[1]).sum() / np.linalg.norm(weights[0]) / np.linalg.norm(weights[1])),
}
Path(__file__).with_name("analysis.json").write_text(json.dumps(golden, indent=1) + "\n")
