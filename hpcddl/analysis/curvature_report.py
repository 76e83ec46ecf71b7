"""Reports curvatures: a table, and files of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np

from hpcddl.analysis.several_runs import samples_said
from hpcddl.analysis.spectral_density import trace_estimate
from hpcddl.analysis.spectrum import Curvature, SpectrumPlan
from hpcddl.common.study import StudyFolder
from hpcddl.common.table import aligned

HEAD = (
    *("run", "strategy", "epoch", "rate", "2/lambda_max", "lambda_max", "lambda_min"),
    *("|min|/|max|", "|g|"),
)


def table(found: Sequence[Curvature], plan: SpectrumPlan) -> str:
    """One line per run, then what else was asked for, and what was measured."""
    rows = [list(HEAD)]
    for curvature in found:
        facts, largest = curvature.facts, curvature.top[0]
        rows.append(
            [
                *(curvature.name, facts["strategy"], str(facts["epoch"])),
                f"{facts['learning_rate']:.4g}",
                f"{2 / largest:.4g}" if largest > 0 else "-",
                f"{largest:.4g}",
                f"{curvature.least:.4g}",
                f"{curvature.ratio:.4f}",
                f"{facts['gradient_norm']:.4g}",
            ]
        )
    lines = aligned(rows, left=2)
    for curvature in found:
        facts = curvature.facts
        lines.append(f"{curvature.name}: largest {', '.join(f'{x:.4g}' for x in curvature.top)}")
        if curvature.spectrum:
            trace, error = trace_estimate(curvature.spectrum, facts["weights"])
            lines.append(f"{curvature.name}: trace {trace:.4g} ± {error:.2g} (standard error)")
        if curvature.grid is not None:
            ratios = curvature.ratios
            lines.append(
                f"{curvature.name}: |min|/|max| on the grid: mean {ratios.mean():.4f}, "
                f"{ratios.min():.4f} to {ratios.max():.4f}"
            )
        ratio = facts["product_seconds"] / facts["gradient_seconds"]
        lines.append(
            f"{curvature.name}: {facts['products']} Hessian-vector products on {facts['ranks']} "
            f"ranks; one takes {ratio:.1f} gradients ({facts['product_seconds']:.3g} s)"
        )
    return "\n".join([*lines, described(found, plan)])


def described(found: Sequence[Curvature], plan: SpectrumPlan) -> str:
    """What was measured, in one line."""
    facts = [curvature.facts for curvature in found]
    samples = samples_said(facts, {"train": "train", "heldout": "heldout"})
    norm = "; ".join(sorted({f["batch_norm"] for f in facts}))
    parts = [
        f"Hessian of the mean loss over {samples}, without weight decay",
        f"batch norm: {norm}",
        f"seed {plan.seed}",
    ]
    if plan.probes:
        parts.append(f"density of {plan.probes} probes of {plan.steps} steps")
    if plan.grid:
        unit = "each filter's length" if plan.normalise == "filter" else "N(0, 1) per weight"
        parts.append(f"grid to ±{plan.scale:g} along two random directions, 1 is {unit}")
    return "; ".join(parts)


def write(found: Sequence[Curvature], plan: SpectrumPlan, folder: StudyFolder) -> None:
    """Writes curvature.json, and NAME.density.csv, NAME.grid.csv of each run."""
    said = {**asdict(plan), "runs": [_said(curvature) for curvature in found]}
    folder.write_json("curvature.json", said)
    for curvature in found:
        if curvature.spectrum:
            folder.write_csv(f"{curvature.name}.density.csv", _density(curvature))
        if curvature.grid is not None:
            folder.write_csv(f"{curvature.name}.grid.csv", _grid(curvature, plan))


def _said(curvature: Curvature) -> dict[str, Any]:
    said = {
        "name": curvature.name,
        **curvature.facts,
        "largest": curvature.top.tolist(),
        "least": curvature.least,
        "ratio": curvature.ratio,
    }
    if curvature.spectrum:
        trace, error = trace_estimate(curvature.spectrum, curvature.facts["weights"])
        said |= {"trace": trace, "trace_standard_error": error}
    if curvature.grid is not None:
        said["mean_ratio_of_grid"] = float(curvature.ratios.mean())
    return said


def _density(curvature: Curvature) -> list[list[Any]]:
    """Every node of every probe, with its weight; a probe's weights sum to 1."""
    return [
        ["probe", "node", "weight"],
        *(
            [number, node, weight]
            for number, probe in enumerate(curvature.spectrum)
            for node, weight in zip(probe.nodes.tolist(), probe.weights.tolist(), strict=True)
        ),
    ]


def _grid(curvature: Curvature, plan: SpectrumPlan) -> list[list[Any]]:
    assert curvature.grid is not None
    values = np.concatenate([curvature.grid, curvature.ratios[..., None]], axis=-1)
    places = product(plan.along.tolist(), repeat=2)
    return [
        ["along_first", "along_second", "lambda_max", "lambda_min", "ratio"],
        *([*at, *row] for at, row in zip(places, values.reshape(-1, 3).tolist(), strict=True)),
    ]
