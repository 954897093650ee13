# SPDX-License-Identifier: Apache-2.0
"""A run, told as it happens: plain lines on stderr, and on a terminal a bar below them that moves."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from coordinator.ports import UNKNOWN_BYTES
from coordinator.steps import Event
from identity.wording import counted
from ops.output import clean, line, short, stderr, when

_NAMED = 6  # so many sites are named, of more the number is given


class Narrator:
    """Watches a run. ``names`` maps members to site names as soon as they are known."""

    def __init__(self, rounds: int) -> None:
        self.names: dict[str, str] = {}
        self._rounds, self._console = rounds, stderr()
        self._roster, self._committed = 0, 0
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn(),
            console=self._console, transient=True, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None)
        self._tell: Mapping[str, Callable[[Event], str]] = {
            "open": self._opened, "train": self._trains, "site-committed": self._site_committed, "site-failed": self._site_failed,
            "site-refuses": self._site_failed, "site-rejected": self._site_failed, "wait": self._waits,
            "seal": self._sealed, "delivered": self._delivered, "record": self._recorded, "abort": self._aborted,
        }  # fmt: skip

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def title(self, text: str) -> None:
        """The heading of a part."""
        self.say(text, "bold")

    def say(self, text: str, style: str = "") -> None:
        """One line that stays."""
        line(text, style, to=self._progress.console)

    def doing(self, text: str, total: int | None = None) -> None:
        """What is going on now; only a terminal shows it."""
        self._progress.reset(self._task, total=total, description=clean(text))

    def __call__(self, event: Event) -> None:
        """Tell an event of a round."""
        if (teller := self._tell.get(event.kind)) and (text := teller(event)):
            style = "yellow" if event.kind in {"site-failed", "site-refuses", "site-rejected", "wait", "abort"} else ""
            self.say(f"  round {event.round}{f' attempt {event.attempt}' if event.attempt > 1 else ''}: {text}", style)

    def _sites(self, members: Sequence[str]) -> str:
        named = [self.names.get(m, m) for m in members]
        return ", ".join(sorted(named)) if len(named) <= _NAMED else f"{len(named)} sites"

    def _reasons(self, pairs: Sequence[Mapping[str, str]]) -> str:
        return "".join(f"; {self._sites([p['member']])} {p['reason']}" for p in pairs[:_NAMED]) + (
            f"; and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
        )

    def _opened(self, event: Event) -> str:
        self._roster, self._committed = len(event.facts["roster"]), 0
        self.doing(f"round {event.round} of {self._rounds}: training", self._roster)
        absent = self._reasons(event.facts["absent"])
        return f"opened for {counted(self._roster, 'site')}, commitments until {when(event.facts['commit_by'])}{absent}"

    def _trains(self, event: Event) -> str:
        """Of a round that an earlier run has opened, those that are still to commit are what there is to wait for."""
        if not self._roster:
            self._roster = len(event.facts["members"])
            self.doing(f"round {event.round} of {self._rounds}: training", self._roster)
        return ""

    def _site_committed(self, event: Event) -> str:
        self._committed += 1
        if not self._progress.disable:  # a bar that nobody sees costs a round of many sites as much as one that is seen
            sites = counted(self._roster, "site")
            state = f"round {event.round} of {self._rounds}: {self._committed} of {sites} committed"
            self._progress.update(self._task, advance=1, description=state)
        return ""

    def _site_failed(self, event: Event) -> str:
        return f"{event.facts['site']} gives no update [{event.facts['code']}] {event.facts['message']}"

    def _waits(self, event: Event) -> str:
        # The agreed second is the last one in time, and the wait is over when the next one begins.
        what = f"waiting for {self._sites(event.facts['members'])} until {when(event.facts['until'] - 1)}"
        self.doing(what)
        return f"{what}, as agreed"

    def _sealed(self, event: Event) -> str:
        self._roster = 0
        self.doing(f"round {event.round} of {self._rounds}: verifying and summing")
        return (
            f"committed and sealed: {counted(len(event.facts['cohort']), 'update')}{self._reasons(event.facts['out'])}"
        )

    def _delivered(self, event: Event) -> str:
        verdict = event.facts["verdict"]
        if not verdict:
            return ""
        what = "other bytes than it committed to" if verdict in UNKNOWN_BYTES else "an update that cannot be taken"
        return f"{self._sites([event.facts['member']])} delivered {what}: refused [{verdict}]"

    def _recorded(self, event: Event) -> str:
        facts = event.facts
        metrics = ", ".join(f"{name} {float(value):.4f}" for name, value in sorted(facts["metrics"].items()))
        kept = f"{counted(len(facts['included']), 'update')}, {counted(facts['examples'], 'example')}{self._reasons(facts['omitted'])}"
        return f"recorded {short(facts['model'])}: {kept}. Held-out {metrics or 'metrics: none'}"

    def _aborted(self, event: Event) -> str:
        return f"given up ({event.facts['reason']})"
