"""What a person sees of a job: bars for images and regions while it runs, a table of seconds at its end."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detector.job import Task
from detector.stage_timer import StageTimer

STAGES = ("read", "proposals", "choice of boxes", "crop", "network", "NMS", "draw")


class JobDisplay:
    """Two progress bars; failures appear above them. Where there is no terminal, only the failures."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[name]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._images = self._progress.add_task("images", total=total, name="")
        self._regions = self._progress.add_task("regions", total=None, name="")
        self._started = 0

    def __enter__(self) -> "JobDisplay":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._progress.update(self._images, completed=self._started, name="")
        self._progress.stop()

    def image(self, task: Task) -> None:
        """The next image begins."""
        self._progress.update(self._images, completed=self._started, name=task.image.name)
        self._progress.reset(self._regions, total=None)
        self._started += 1

    def regions(self, done: int, total: int) -> None:
        """So many of the image's regions are scored."""
        self._progress.update(self._regions, completed=done, total=total)

    def failure(self, sentence: str) -> None:
        """An image failed."""
        self._console.print(f"error: {sentence}", markup=False, soft_wrap=True)


def stage_table(timer: StageTimer, images: int) -> Table:
    """Seconds of each stage, in all and for one image; boxes and detections of one image."""
    each = max(images, 1)
    table = Table("stage", "seconds", "per image", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    total = sum(timer.seconds.values())
    for stage in [name for name in STAGES if name in timer.seconds]:
        seconds = timer.seconds[stage]
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / each:.3f}", f"{seconds / max(total, 1e-9):.0%}")
    table.add_section()
    table.add_row("all", f"{total:.2f}", f"{total / each:.3f}", "")
    for what in ("boxes", "detections"):
        table.add_row(what, str(timer.counts[what]), f"{timer.counts[what] / each:.1f}", "")
    return table
