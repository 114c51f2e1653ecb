"""What a person sees while a sweep runs: a live picture on a terminal, plain lines elsewhere. Always on stderr.

Nothing is redrawn by itself: the watcher calls :meth:`View.show` after each look, so that showing costs next to nothing
on a machine that is being measured.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Group

    from benchctl.ledger import JobState
    from benchctl.watch import Watched

_MIB = 1024 * 1024


class View(Protocol):
    """Shows how a sweep goes on."""

    def say(self, text: str) -> None:
        """Say one line."""
        ...

    def outcome(self, job: JobState, record: Mapping[str, Any], speed: float | None) -> None:
        """A scenario has ended."""
        ...

    def show(self, jobs: Sequence[Watched]) -> None:
        """Show how the jobs under watch are now."""
        ...

    def doing(self, job: str, text: str) -> None:
        """What a job's server is at while it comes and goes; empty when it neither comes nor goes."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def view_for(stream: TextIO | None = None) -> View:
    """The view that fits the stream (by default stderr)."""
    stream = cast("TextIO", _Patient(stream or sys.stderr))
    return LiveView(stream) if stream.isatty() else PlainView(stream)


class _Patient:
    """A stream that may lose its reader: a terminal that was closed must not end what gives servers back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """All of it, or nothing where nobody reads it any more."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As far as anybody reads it."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class PlainView:
    """Lines with a time, each only when something changed."""

    def __init__(self, stream: TextIO, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Write to ``stream``."""
        self._stream, self._clock = stream, clock
        self._last: dict[str, str] = {}

    def say(self, text: str) -> None:
        """See :class:`View`."""
        print(f"{self._clock():%H:%M:%S}  {text}", file=self._stream, flush=True)

    def outcome(self, job: JobState, record: Mapping[str, Any], speed: float | None) -> None:
        """See :class:`View`."""
        self.say(f"{job.job}: {outcome_line(record, speed)}")

    def show(self, jobs: Sequence[Watched]) -> None:
        """See :class:`View`: only what is downloaded is a line of its own, as the rest is told by the outcomes."""
        for one in jobs:
            fetching = {model: download["status"] for model, download in (one.progress.get("downloads") or {}).items()}
            told = ", ".join(f"{model} {status}" for model, status in fetching.items())
            if told and self._last.get(one.job.job) != told:
                self._last[one.job.job] = told
                self.say(f"{one.job.job}: models: {told}")

    def doing(self, job: str, text: str) -> None:
        """See :class:`View`: the steps in between are in the job's log, and no lines of their own."""

    def close(self) -> None:
        """See :class:`View`."""


class LiveView:
    """A picture that is redrawn in place, and the outcomes as lines above it."""

    def __init__(self, stream: TextIO) -> None:
        """Draw on the terminal behind ``stream``."""
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        self._doing: dict[str, str] = {}
        self._watched: Sequence[Watched] = ()

    def say(self, text: str) -> None:
        """See :class:`View`."""
        self._console.print(text, markup=False)

    def outcome(self, job: JobState, record: Mapping[str, Any], speed: float | None) -> None:
        """See :class:`View`."""
        self.say(f"{job.job}: {outcome_line(record, speed)}")

    def show(self, jobs: Sequence[Watched]) -> None:
        """See :class:`View`."""
        self._watched = jobs
        self._draw()

    def doing(self, job: str, text: str) -> None:
        """See :class:`View`."""
        if text:
            self._doing[job] = text
        else:
            self._doing.pop(job, None)
        self._draw()

    def _draw(self) -> None:
        doing = dict(self._doing)
        self._live.update(picture(self._watched, doing) if self._watched or doing else "", refresh=True)

    def close(self) -> None:
        """See :class:`View`."""
        self._live.stop()


def picture(jobs: Sequence[Watched], doing: Mapping[str, str] | None = None) -> Group:
    """The jobs as a table, those whose servers come and go (``doing``) among them, and below it what is downloaded."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title, align in (
        ("job", "left"), ("now", "left"), ("tokens/s", "right"), ("done", "right"), ("at most left", "right"),
        ("so far", "right"),
    ):  # fmt: skip
        table.add_column(title, justify=align)  # type: ignore[arg-type]
    fetches = Table(box=None, pad_edge=False, show_header=False)
    for one in jobs:
        progress = one.progress
        speed = progress.get("tokens_per_second")
        table.add_row(
            escape(one.job.job),
            escape("out of reach" if one.problem else now_line(progress)),
            f"{speed:.2f}" if speed else "",
            f"{progress.get('scenarios_done', 0)}/{progress.get('scenarios_total', '?')}",
            duration(progress.get("seconds_left")),
            spent(one.job, progress.get("seconds_elapsed")),
        )
        for model, download in (progress.get("downloads") or {}).items():
            if download.get("status") not in ("ready", "waiting"):
                fetches.add_row(escape(one.job.job), escape(model), escape(fetch_line(download)))
    for job, text in (doing or {}).items():
        table.add_row(escape(job), escape(text), "", "", "", "")
    return Group(table, fetches)


def now_line(progress: Mapping[str, Any]) -> str:
    """What a job is at: ``measuring SmolLM-135M pp512, sample 3``."""
    if not progress or progress.get("phase") == "ended":
        return "ended" if progress else "starting"
    scenario = f"{progress.get('task') or ''}{progress.get('tokens') or ''}"
    words = " ".join(filter(None, (str(progress.get("phase") or ""), progress.get("model"), scenario)))
    return f"{words}, sample {progress['sample']}" if scenario and progress.get("sample") else words


def fetch_line(download: Mapping[str, Any]) -> str:
    """A download: ``downloading 120 of 400 MiB, 31.2 MiB/s, 9 s left``."""
    done, total = download.get("bytes") or 0, download.get("bytes_total") or 0
    parts = [f"{download.get('status')} {done / _MIB:.0f}" + (f" of {total / _MIB:.0f} MiB" if total else " MiB")]
    if download.get("bytes_per_second"):
        parts.append(f"{download['bytes_per_second'] / _MIB:.1f} MiB/s")
    if download.get("eta_seconds") is not None:
        parts.append(f"{duration(download['eta_seconds'])} left")
    if download.get("error"):
        parts.append(str(download["error"]))
    return ", ".join(parts)


def outcome_line(record: Mapping[str, Any], speed: float | None) -> str:
    """A scenario's end: ``SmolLM-135M pp512  260.70 tokens/s`` or ``... predicted_skip (why)``."""
    name = f"{record['model']} {record['task']}{record['tokens']}"
    told = f"{speed:.2f} tokens/s" if speed is not None else ""
    if record["outcome"] != "ok":
        told = "  ".join(filter(None, (str(record["outcome"]), told)))
    noisy = f"  noisy: {', '.join(record['noisy'])}" if record.get("noisy") else ""
    reason = f"  ({record['reason']})" if record.get("reason") else ""
    return f"{name}  {told}{noisy}{reason}"


def spent(job: JobState, elapsed_seconds: float | None) -> str:
    """Time and money so far: ``1 min 20 s, 0.0010 USD``."""
    if elapsed_seconds is None:
        return ""
    told = duration(elapsed_seconds)
    if job.price_per_hour is not None:
        told += f", {job.price_per_hour * elapsed_seconds / 3600:.4f} {job.currency}"
    return told


def duration(seconds: float | None) -> str:
    """A time for people: ``42 s``, ``3 min 20 s``, ``2 h 5 min``; empty for none."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
