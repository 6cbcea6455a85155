"""The restoring commands, one for each task of :mod:`restormer_cli.tasks`."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import typer
from typer.core import TyperCommand

from restormer_cli.cli.options import common_parameters, option, take_common, with_signature
from restormer_cli.errors import UsageError
from restormer_cli.system.limits import check_torch_can_load
from restormer_cli.tasks import Task, find_variant, tasks

#: The option that takes several words.
INPUT = "--input-dir"
#: Default sub-folders of the views of an image, by their options.
SIDES = {"left": "inputL", "right": "inputR"}


def add_commands(app: typer.Typer) -> None:
    """Add a command for each task."""
    for task in tasks():
        app.command(
            task.name,
            help=task.help,
            cls=_RestoringCommand,
            context_settings={"allow_extra_args": True},
        )(_command(task))


class _RestoringCommand(TyperCommand):
    """All words behind ``--input-dir`` are inputs, as shells make many of ``*.jpg``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        left = super().parse_args(ctx, list(_named_each(args)))
        if left and not ctx.resilient_parsing:  # as when a shell completes a word
            raise UsageError(f"{left[0]}: belongs to no option; name inputs right behind {INPUT}")
        return left


def _named_each(words: Iterable[str]) -> Iterator[str]:
    """Put the name of the option before each word behind it that is no option."""
    state: Literal["", "value", "more"] = ""
    for word in words:
        if state == "value":
            state = "more"
        elif word == INPUT:
            state = "value"
        elif word.startswith(f"{INPUT}="):
            state = "more"
        elif word.startswith("-") and word != "-":
            state = ""
        elif state == "more":
            yield INPUT
        yield word


def _command(task: Task) -> Callable[..., None]:
    def command(**values: Any) -> None:
        check_torch_can_load()
        from restormer_cli.cli.run import restore

        common = take_common(values)
        kind = values.get("kind")
        variant = find_variant(task.name, kind and kind.value, values.get("sigma"))
        sides = tuple(values[side] for side in SIDES if side in values)
        summary = restore(variant, common, sides)
        if summary.failed or summary.left:
            raise typer.Exit(1)

    return with_signature(command, [*_parameters(task), *common_parameters()])


def _parameters(task: Task) -> list[inspect.Parameter]:
    """Make parameters for the options of one task."""
    parameters = []
    if task.kinds:
        kinds = enum.Enum("Kind", {kind: kind for kind in task.kinds}, type=str)  # type: ignore[misc]  # the names are data
        text = "; ".join(f"{kind}: {text}" for kind, text in task.kinds.items())
        parameters.append(option("kind", kinds, next(iter(kinds)), help=f"{text}."))
    if task.sigmas:
        *most, last = map(str, task.sigmas)
        text = f"Known strength of Gaussian noise: {', '.join(most)} or {last}."
        parameters.append(option("sigma", int | None, None, help=text))
    if task.views > 1:
        parameters += [
            option(side, str, folder, help=f"Sub-folder with the {side} views.")
            for side, folder in SIDES.items()
        ]
    return parameters
