"""`payouts sandbox` and `payouts demo`: the whole system on one machine."""

import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

SETTING = "--set"


def _settings(
    _context: click.Context, _parameter: click.Parameter, options: tuple[str, ...]
) -> dict[str, str]:
    """`NAME=VALUE` pairs as a dictionary. Raises click.BadParameter."""
    pairs = [option.partition("=") for option in options]
    if invalid := [name for name, equals, _ in pairs if not equals or not name]:
        raise click.BadParameter(f"write NAME=VALUE, not {invalid[0]}")
    return {name: value for name, _, value in pairs}


@click.command()
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    help="Write URLs and credentials to this file, as JSON, when every part is ready.",
)
@click.option(
    SETTING,
    "settings",
    multiple=True,
    callback=_settings,
    metavar="NAME=VALUE",
    help="A setting for every process.",
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    help="Write a file for a shell: after `. FILE`, `payouts` commands use this sandbox.",
)
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 32), help="Number of worker processes."
)
@click.option(
    "--api-workers", default=1, show_default=True, type=click.IntRange(1, 32), help="Number of API processes."
)
@click.option(
    "--provider-url",
    help="Use this RazorpayX instead of the simulator; RAZORPAYX_… settings come from the environment.",
)
def sandbox(
    ready_file: Path | None,
    env_file: Path | None,
    settings: dict[str, str],
    workers: int,
    api_workers: int,
    provider_url: str | None,
) -> None:
    """Start everything on free ports and run until SIGTERM or Ctrl-C."""
    from sandbox.processes import PartFailed
    from sandbox.stack import Stack

    stack = Stack(settings, workers=workers, api_workers=api_workers, provider_url=provider_url)
    try:
        with stack:
            if env_file:
                _write_env_file(env_file, stack.env)
            if ready_file:
                stack.write_ready_file(ready_file)
            for name, value in stack.info().items():
                if name in ("api", "flower", "simulator"):
                    click.echo(f"{name:10} {value}")
            click.echo(f"{'logs':10} {stack.directory}")
            click.echo(
                "relaxed    MAKER_CHECKER_INDEPENDENCE_DAYS=0: the first operator can add the second person"
            )
            for warning in stack.relaxed_rules():
                click.echo(warning, err=True)
            stack.run_until_signal()
    except (PartFailed, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _write_env_file(path: Path, env: Mapping[str, str]) -> None:
    """Write every setting of the processes as a shell line. It contains secrets, so only its owner can read
    it.
    """
    from shared.settings import Settings

    fields = [name.upper() for name in Settings.model_fields]
    names = [name for name in (*fields, "PAYOUTS_OPERATOR_TOKEN") if name in env]
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent)  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"export {name}={shlex.quote(env[name])}\n" for name in names)
    Path(temporary).replace(path)


@click.command()
@click.option("--once", is_flag=True, help="Exit when the demo is done, with status 1 if a result differs.")
@click.option(
    SETTING,
    "settings",
    multiple=True,
    callback=_settings,
    metavar="NAME=VALUE",
    help="A setting for every process.",
)
def demo(once: bool, settings: dict[str, str]) -> None:
    """Start everything, make five withdrawals with different results, and run until Ctrl-C."""
    from sandbox import demo as demonstration

    demonstration.run(once=once, settings=settings)
