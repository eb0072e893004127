"""The errors that karat raises on purpose, each with the exit code that it leads to."""


class KaratError(Exception):
    """Base of the errors below; its text says what was found, where, and the next command."""

    exit_code = 2


class UsageError(KaratError):
    """The request itself is wrong: no such candidate, suite, case or contract."""

    exit_code = 2


class GoldenError(KaratError):
    """A golden is missing, damaged or stale, so that nothing can be judged by it."""

    exit_code = 3

    def __init__(self, kind: str, text: str) -> None:
        """Keep `kind` (`missing`, `damaged` or `stale`) beside the text."""
        super().__init__(text)
        self.kind = kind


class CandidateError(KaratError):
    """The candidate could not be run, or what it left cannot be read."""

    exit_code = 4


class FreezeError(KaratError):
    """The reference cannot be trusted with this case; nothing was frozen and the old goldens are untouched."""

    exit_code = 3
