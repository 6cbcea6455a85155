"""``restormer devices``: the devices of this machine, and the choice among them."""

from __future__ import annotations

from typing import Annotated

import typer

from restormer_cli.cli.options import Precision
from restormer_cli.system.limits import check_torch_can_load


def devices(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Numbers to compute with.")] = Precision.auto,
) -> None:
    """Say what this machine has, what would be used, and why."""
    check_torch_can_load()
    from restormer_cli.network.devices import describe

    for line in describe(device, precision.value):
        print(line)
