"""Errors a user can act on. The command line prints them in one line and exits with `exit_code`."""

from __future__ import annotations


class CollapsebenchError(Exception):
    """Base of everything collapsebench raises on purpose."""

    exit_code = 1


class UserError(CollapsebenchError, ValueError):
    """Wrong usage or invalid input: the message says what was given, what is allowed and what to do."""

    exit_code = 2


class TaskError(UserError):
    """A task file that cannot be used."""


class MethodError(UserError):
    """A method that cannot be found or loaded."""


class LossError(UserError):
    """A loss that loads but violates the contract of `collapsebench.Loss`."""


class DataError(UserError):
    """Data that is missing, or not what the task lists."""


class RunError(CollapsebenchError):
    """The work itself failed: a locked or foreign run directory, a full disk, a cell that crashed."""


class Diverged(CollapsebenchError):
    """Training produced NaN or infinity. The run is scored with fidelity 0 from this generation on."""
