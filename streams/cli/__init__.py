"""The command line, `tidewire`.

Exit codes: 0 done; 1 it ran and failed, or found something wrong; 2 the command or the configuration is wrong; 3 what
is needed does not answer or is held by another process; 130 interrupted. A mistake is one line on stderr, never a
traceback (`TIDEWIRE_DEBUG=1` shows it).

Importing this package is cheap, and so is `tidewire --help`: each command imports what it needs when it runs.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from schemas.errors import ConfigError, TidewireError, Unreachable

DONE, FAILED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code."""
    from streams.cli.app import app

    try:
        app(args=None if arguments is None else list(arguments), prog_name="tidewire")
    except SystemExit:
        _flush()
        raise
    except BaseException as error:
        if os.environ.get("TIDEWIRE_DEBUG") == "1":
            raise
        code, line = explain(error)
        if line:
            print(f"tidewire: {line}", file=sys.stderr)
        sys.exit(code)


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and the one line that says what happened and how to mend it."""
    match error:
        case BaseExceptionGroup() if error.exceptions:
            return explain(error.exceptions[0])
        case KeyboardInterrupt():
            return INTERRUPTED, ""
        case ConfigError():
            return USAGE, _one_line(error)
        case Unreachable():
            return UNREACHABLE, _one_line(error)
        case TidewireError():
            return FAILED, _one_line(error)
        case BrokenPipeError():
            _silence()
            return DONE, ""
        case OSError(errno=errno.EADDRINUSE):
            return UNREACHABLE, "The port is taken by another program. Name another with --port."
        case OSError(errno=errno.ENOSPC):
            return FAILED, "There is no space left on the disk."
        case OSError():
            return FAILED, _one_line(error)
        case _:
            return FAILED, (f"A fault in Tidewire itself: {type(error).__name__}: {_one_line(error)}. "
                            "Run it again with TIDEWIRE_DEBUG=1 for the details, and report them.")  # fmt: skip


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()


def _silence() -> None:
    """Whoever read our output has gone (`tidewire sql … | head`); the interpreter's last flush must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
