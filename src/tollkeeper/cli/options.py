"""Options that several verbs share, and the settings they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the ledger and the secrets.")
]
Ledger = Annotated[
    str | None, typer.Option("--ledger", help="Ledger URL, if it is not in the data folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
