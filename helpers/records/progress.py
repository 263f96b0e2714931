"""Progress as lines of text, for notebooks and log files alike."""

import logging


def show_progress() -> None:
    """Print what this package logs, one line each, flushed: no bars, for notebooks and log files alike."""
    package = logging.getLogger("helpers")
    package.setLevel(logging.INFO)
    if not any(isinstance(handler, _Printer) for handler in package.handlers):
        package.addHandler(_Printer())


def hide_progress() -> None:
    """Print it no longer: a worker's lines are not for the notebook that it works for."""
    package = logging.getLogger("helpers")
    package.handlers = [handler for handler in package.handlers if not isinstance(handler, _Printer)]


class _Printer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)
