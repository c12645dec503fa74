"""Arguments and options of the command line that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from collapsebench.errors import UserError

if TYPE_CHECKING:
    from collapsebench.resources import Resources
    from collapsebench.task import Task


def _task_names() -> list[str]:
    """Task names for shell completion."""
    from collapsebench.task import registered_tasks

    return list(registered_tasks())


TaskArgument = Annotated[
    str,
    typer.Argument(metavar="TASK", help="A registered task, or the path of a task.yaml.", autocompletion=_task_names),
]
OutOption = Annotated[Path, typer.Option("--out", help="Directory of all runs; finished generations are reused.")]
GenerationsOption = Annotated[int | None, typer.Option(help="Last generation; default: the task's horizon.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
BudgetOption = Annotated[
    float,
    typer.Option(help="Share of the task's updates, samples and sampling steps, for a shorter try-out."),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder that already contains the task's data; nothing is downloaded.")
]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Folder with the weights of a pretrained model; nothing is downloaded.")
]
InceptionOption = Annotated[
    str | None, typer.Option(help="File or folder of the Inception network for FID; none: do not measure FID.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Run nothing: say what would be run, what is already there, and how long it takes."),
]
DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A directory of runs (--out of run or compare).")
]


class EngineName(StrEnum):
    """Where cells run."""

    AUTO = "auto"
    INLINE = "inline"
    LOCAL = "local"
    RAY = "ray"


class Against(StrEnum):
    """Where the baselines' curves come from."""

    RUN = "run"
    PUBLISHED = "published"


class What(StrEnum):
    """What can be listed."""

    TASKS = "tasks"
    METHODS = "methods"


class FeaturesName(StrEnum):
    """Additional networks to measure images with."""

    EFFICIENTNET_LITE0 = "efficientnet-lite0"
    INCEPTION = "inception"


class TrackerName(StrEnum):
    """Where the metrics of every generation can be sent."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    TRACKIO = "trackio"


TrackOption = Annotated[
    TrackerName | None, typer.Option(help="Also send the metrics of every generation to this tracker.")
]
FeaturesOption = Annotated[
    FeaturesName | None, typer.Option(help="Also measure images in the features of this network; never scored.")
]


@dataclass(frozen=True)
class Comparing:
    """How a comparison is run and shown."""

    engine: Annotated[
        EngineName, typer.Option(help="Where cells run: this process, local workers, or Ray ($RAY_ADDRESS).")
    ] = EngineName.AUTO
    against: Annotated[
        Against, typer.Option(help="published: take the baselines' curves from the committed submissions.")
    ] = Against.RUN
    as_json: JsonOption = False
    quiet: QuietOption = False
    dry_run: DryRunOption = False


AS_USUAL = Comparing()


def on_task(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a function of a `Task` and its own options into a command that also takes the options of any task."""

    first = next(iter(inspect.signature(command).parameters))

    def with_options(
        task: TaskArgument,
        *,
        budget: BudgetOption = 1.0,
        data: DataOption = None,
        model: ModelOption = None,
        inception: InceptionOption = None,
        features: FeaturesOption = None,
        track: TrackOption = None,
        **own: Any,
    ) -> None:
        own[first] = load(task, budget, resources_of(data, inception, features, model, track))
        command(**own)

    return _merged(with_options, command)


def with_resources(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a function of `Resources` and its own options into a command that also takes the options for resources."""

    def with_options(
        *, data: DataOption = None, model: ModelOption = None, inception: InceptionOption = None, **own: Any
    ) -> None:
        command(resources_of(data, inception, model=model), **own)

    return _merged(with_options, command)


def grouped(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options that are the fields of dataclasses; it receives each dataclass as one argument.

    Args:
        groups: the dataclasses, by the name of the command's argument.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        def one_by_one(**given: Any) -> None:
            for name, group in groups.items():
                given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
            command(**given)

        parameters: list[inspect.Parameter] = []
        hints = _hints(command)
        for name, p in inspect.signature(command).parameters.items():
            if name in groups:
                inside, types = inspect.signature(groups[name]).parameters, _hints(groups[name])
                parameters += [q.replace(annotation=types[n], kind=q.KEYWORD_ONLY) for n, q in inside.items()]
            else:
                parameters.append(p.replace(annotation=hints[name], kind=p.KEYWORD_ONLY))
        return _with_signature(one_by_one, parameters, command)

    return decorated


def _hints(annotated: Any) -> dict[str, Any]:
    late = {"Task": object, "Resources": object}  # imported when a command runs
    return get_type_hints(annotated, localns=late, include_extras=True)


def _with_signature(
    function: Callable[..., None], parameters: list[inspect.Parameter], command: Callable[..., None]
) -> Callable[..., None]:
    """The function with the name and help text of a command and these parameters, as typer will read them."""
    functools.update_wrapper(function, command)
    del function.__wrapped__  # type: ignore[attr-defined]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    return function


def _merged(with_options: Callable[..., None], command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of two functions; the first one makes the second one's first argument."""
    outer, inner = inspect.signature(with_options, eval_str=True), inspect.signature(command)
    hints = _hints(command)
    own = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in list(inner.parameters.values())[1:]]
    common = [p for p in outer.parameters.values() if p.kind != p.VAR_KEYWORD]
    first = [p for p in common if p.kind == p.POSITIONAL_OR_KEYWORD]
    return _with_signature(with_options, [*first, *own, *common[len(first) :]], command)


def resources_of(
    data: Path | None,
    inception: str | None,
    features: FeaturesName | None = None,
    model: Path | None = None,
    track: TrackerName | None = None,
) -> Resources:
    """The resources named on the command line; a folder that does not exist is a `UserError`."""
    from collapsebench.resources import Resources

    folders = {"data": data, "model": model}
    for name, folder in folders.items():
        if folder is not None and not folder.is_dir():
            raise UserError(f"--{name} {folder}: no such folder.")
    given = {name: folder and folder.absolute() for name, folder in folders.items()}
    wanted = () if features is None else (features.value,)
    tracker = track and track.value
    return Resources.model_validate({**given, "inception": inception, "features": wanted, "track": tracker})


def load(task: str, budget: float, resources: Resources) -> Task:
    """Load a task by name or path; imported late, because it reads the settings of every kind of workload."""
    from collapsebench.task import load_task

    return load_task(task, budget, resources)


def integers(text: str) -> list[int]:
    """Parse seeds as typed on the command line: ``0,1,2``."""
    try:
        return [int(piece) for piece in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text!r} is not allowed; give integers separated by commas, such as 0,1,2.") from None
