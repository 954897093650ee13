# SPDX-License-Identifier: Apache-2.0
"""Curves as SVG files: panels side by side over one logarithmic axis. The one importer of matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from identity.errors import UsageError

Panel = tuple[str, Sequence[float], float | None]
"""(what the ordinate is, with its unit; a value for each point; the wanted limit, None for none)"""

FAR = 50  # times the least value: from here on a linear ordinate would show the greatest ones only
_LINE, _WANTED = "#1f5fa8", "#b04a2f"


def plot(path: Path, abscissa: str, points: Sequence[float], panels: Sequence[Panel]) -> None:
    """Write one figure; the same points give the same bytes.

    Raises:
        UsageError: ``plots-missing``: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415  (only where a plot is wanted)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("plots-missing", "The plots need matplotlib.", next="pip install -e '.[bench]'") from error
    # A fixed salt and no date: otherwise each run of the benchmark would change every line of the file.
    with mpl.rc_context(
        {"svg.hashsalt": "fedledger", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    ):
        figure = Figure(figsize=(4.2 * len(panels), 3.0), layout="constrained")
        for axes, (ordinate, values, wanted) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            axes.plot(points, values, marker="o", color=_LINE, linewidth=1.6, markersize=4)
            if wanted is not None:
                axes.axhline(wanted, color=_WANTED, linewidth=1, linestyle="--")
                axes.annotate(f"wanted: at most {wanted:g}", (points[0], wanted), xytext=(0, 3), textcoords="offset points",
                              color=_WANTED, fontsize=8)  # fmt: skip
            axes.set(xscale="log", xlabel=abscissa, title=ordinate)
            axes.title.set_fontsize(9)
            if min(values) > 0 and max(values) > FAR * min(values):
                axes.set_yscale("log")
            else:
                axes.set_ylim(0, 1.1 * max(*values, wanted or 0.0))
            axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})
