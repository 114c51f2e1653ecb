"""Pictures of what was measured: speed over tokens, a line per model of one server or a line per server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.errors import BenchctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

PANELS = (("pp", "Prompt processing", "prompt length (tokens)"), ("tg", "Text generation", "tokens generated"))

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart (https://jfly.uni-koeln.de/color/)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
MARKERS = "osD^vPX*"

FALLBACK = "gpu_fallback"


def format_of(path: str) -> str:
    """The format that a file name's extension means.

    Raises:
        UsageError: it is none that can be drawn.
    """
    extension = Path(path).suffix.lstrip(".").lower()
    if extension not in FORMATS:
        raise UsageError(
            f"A plot can't be written as '{path}': its extension names no format.",
            f"Use one of .{', .'.join(FORMATS)}.",
        )
    return extension


def plot_speeds(rows: Sequence[Mapping[str, Any]], path: str, title: str = "") -> None:
    """Draw the speeds of ``rows`` (of :func:`benchctl.db.queries.measurements`) into a file.

    One panel a task, both axes logarithmic, the 95 % confidence interval as error bars. What ended without a score is
    not drawn, and what ran on the CPU instead of the GPU is a line of its own.

    Raises:
        UsageError: the extension names no format.
        BenchctlError: the file can't be written.
    """
    kind = format_of(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row["outcome"] in ("ok", FALLBACK) and row["tokens_per_second"]]
    lines = list(dict.fromkeys(_line_of(row, rows) for row in drawn))
    tasks = [panel for panel in PANELS if any(row["task"] == panel[0] for row in drawn)] or list(PANELS)
    figure = Figure(figsize=(5.2 * len(tasks) + 2.4, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, (task, name, unit) in zip(panels, tasks, strict=True):
        for index, line in enumerate(lines):
            points = sorted(
                (row for row in drawn if row["task"] == task and _line_of(row, rows) == line),
                key=lambda row: int(row["tokens"]),
            )
            _draw(axes, points, line, index)
        _dress(axes, name, unit, sorted({int(row["tokens"]) for row in drawn if row["task"] == task}))
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
    figure.suptitle("\n".join(filter(None, (title, _weights(drawn)))), fontsize=10)
    _save(figure, path, kind)


def plot_servers(points: Sequence[Mapping[str, Any]], path: str) -> None:
    """Draw servers side by side into a file: of :attr:`benchctl.db.comparing.SideBySide.points`.

    A row of panels per model and a column per task, a line per server; the error bars hold what another instance of the
    server type may show. A hollow mark ran on the CPU instead of the GPU.

    Raises:
        UsageError: the extension names no format.
        BenchctlError: the file can't be written.
    """
    kind = format_of(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys((point["model"], point["weights"]) for point in points))
    servers = list(dict.fromkeys(point["server"] for point in points))
    tasks = [panel for panel in PANELS if any(point["task"] == panel[0] for point in points)]
    figure = Figure(figsize=(5.2 * len(tasks) + 0.4, 2.5 * len(models) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(models), len(tasks), squeeze=False, sharex="col")
    several_weights = len({weights for _, weights in models}) > 1
    for place, (model, weights) in enumerate(models):
        for axes, (task, name, unit) in zip(panels[place], tasks, strict=True):
            drawn = [p for p in points if (p["model"], p["weights"], p["task"]) == (model, weights, task)]
            for index, server in enumerate(servers):
                of_server = sorted((p for p in drawn if p["server"] == server), key=lambda p: int(p["tokens"]))
                # a little to the side, so that the error bars of equal servers don't hide each other
                _draw_server(axes, of_server, server, index, 1.05 ** (index - (len(servers) - 1) / 2))
            _dress(axes, "", unit, sorted({int(p["tokens"]) for p in points if p["task"] == task}))
            axes.set_title(
                f"{model}{f', {weights}' if several_weights else ''} · {name.lower()}", fontsize=9, loc="left"
            )
            if place < len(models) - 1:
                axes.set_xlabel("")
            if not drawn:
                axes.text(0.5, 0.5, "no score", transform=axes.transAxes, ha="center", color="0.5")
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper left",
        frameon=False,
        ncols=min(4, len(servers)),
        fontsize=9,
    )
    kinds = " and ".join(sorted({weights for _, weights in models}))
    figure.supxlabel(
        f"weights: {kinds}; error bars: 95 % confidence, differences between instances included",
        x=0.99, ha="right", fontsize=7, color="0.35",
    )  # fmt: skip
    _save(figure, path, kind)


def _save(figure: Figure, path: str, kind: str) -> None:
    try:
        figure.savefig(path, format=kind, dpi=150)
    except OSError as error:
        raise BenchctlError(f"The plot {path} can't be written: {error.strerror}.", "Choose another file.") from error


def _draw_server(axes: Axes, points: Sequence[Mapping[str, Any]], label: str, index: int, aside: float) -> None:
    if not points:
        return
    speeds = [float(point["tokens_per_second"]) for point in points]
    low = [speed - max(point["low"], speed / 100) for speed, point in zip(speeds, points, strict=True)]
    high = [point["high"] - speed for speed, point in zip(speeds, points, strict=True)]
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    tokens = [int(point["tokens"]) * aside for point in points]
    style = "-" if index < len(COLOURS) else "--"
    axes.errorbar(
        tokens, speeds, yerr=(low, high), label=label, color=colour, marker=marker, linestyle=style, markersize=4.5,
        linewidth=1.3, capsize=2.5, elinewidth=0.9,
    )  # fmt: skip
    hollow = [(x, y) for x, y, point in zip(tokens, speeds, points, strict=True) if point["outcome"] == FALLBACK]
    if hollow:
        axes.plot(*zip(*hollow, strict=True), marker, color=colour, markerfacecolor="white", markersize=4.5, zorder=4)


def _draw(axes: Axes, points: Sequence[Mapping[str, Any]], label: str, index: int) -> None:
    if not points:
        return
    speeds = [float(row["tokens_per_second"]) for row in points]
    intervals = [(row["tokens_per_second_ci_low"], row["tokens_per_second_ci_high"]) for row in points]
    # a logarithmic axis has no 0: an interval that reaches it is drawn down to a tenth of the speed
    low = [
        0 if end is None else speed - max(end, speed / 10) for speed, (end, _) in zip(speeds, intervals, strict=True)
    ]
    high = [0 if end is None else end - speed for speed, (_, end) in zip(speeds, intervals, strict=True)]
    axes.errorbar(
        [int(row["tokens"]) for row in points],
        speeds,
        yerr=(low, high),
        label=label,
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        linestyle="-" if index < len(COLOURS) else "--",
        markersize=5,
        linewidth=1.4,
        capsize=3,
    )


def _dress(axes: Axes, name: str, unit: str, ticks: Sequence[int]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_title(name, fontsize=11)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [f"{tick // 1024}k" if tick >= 1024 and tick % 1024 == 0 else str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 15 * low else (1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(unit)
    axes.set_ylabel("tokens/s")
    axes.grid(visible=True, which="major", alpha=0.3)


def _line_of(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The model, and what else tells the lines apart where several servers, jobs or weights are in one picture."""
    label = str(row["model"])
    for key in ("api_reference", "job_id", "weights"):
        if len({other[key] for other in rows}) > 1:
            label += f" {row[key]}"
    return f"{label} (on the CPU)" if row["outcome"] == FALLBACK else label


def _weights(rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = sorted({str(row["weights"]) for row in rows})
    return f"weights: {' and '.join(kinds)}; error bars: 95 % confidence interval of the mean" if kinds else ""
