"""`payouts sandbox` and `payouts demo`: the whole system on a laptop."""

import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

SETTING = "--set"


def _settings(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE` pairs as a dictionary. Raises click.BadParameter."""
    pairs = [pair.partition("=") for pair in given]
    if wrong := [name for name, equals, _ in pairs if not equals or not name]:
        raise click.BadParameter(f"write NAME=VALUE, not {wrong[0]}")
    return {name: value for name, _, value in pairs}


@click.command()
@click.option(
    "--ready-file", type=click.Path(path_type=Path), help="Written, as JSON, when every part answers."
)
@click.option(
    SETTING, "settings", multiple=True, callback=_settings, metavar="NAME=VALUE", help="For every process."
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    help="Written then, for a shell: `. FILE`, and `payouts keys` and the others speak to this sandbox.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 32), help="Queue processes.")
@click.option(
    "--api-workers", default=1, show_default=True, type=click.IntRange(1, 32), help="API processes."
)
@click.option("--provider-url", help="Another RazorpayX; the RAZORPAYX_… settings come from the environment.")
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
                "relaxed    MAKER_CHECKER_INDEPENDENCE_DAYS=0: the first operator may add the second person"
            )
            for words in stack.relaxed():
                click.echo(words, err=True)
            stack.run_until_signal()
    except (PartFailed, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _write_env_file(path: Path, env: Mapping[str, str]) -> None:
    """Every setting of the processes as a line for a shell; for our eyes only, with the secrets in it."""
    from shared.settings import Settings

    fields = [name.upper() for name in Settings.model_fields]
    names = [name for name in (*fields, "PAYOUTS_OPERATOR_TOKEN") if name in env]
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent)  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"export {name}={shlex.quote(env[name])}\n" for name in names)
    Path(temporary).replace(path)


@click.command()
@click.option(
    "--once", is_flag=True, help="Exit after the story; not 0 if anything differed from what it says."
)
@click.option(
    SETTING, "settings", multiple=True, callback=_settings, metavar="NAME=VALUE", help="For every process."
)
def demo(once: bool, settings: dict[str, str]) -> None:
    """Start everything, tell the story of five withdrawals, and stay until Ctrl-C."""
    from sandbox import demo as story

    story.tell(once=once, settings=settings)
