"""Run `payouts …` in this process as a signed-in operator."""

from typing import Any

import click
from click.testing import CliRunner, Result

from cli import main
from cli.token_file import ENVIRONMENT_VARIABLE
from shared.db.transactions import transaction
from shared.errors import SettingsError, Unavailable
from shared.models import Operator
from shared.people import operator_tokens, operators


def invoke(*arguments: object, by: str | None = "root", **about: Any) -> Result:
    """Run a command as the operator whom `--as` names, or as `by`. A missing operator is created as an admin."""
    words = [str(argument) for argument in arguments]
    name = words[words.index("--as") + 1] if "--as" in words else by
    env = {ENVIRONMENT_VARIABLE: token_of(name) if name and _needs_operator(words) else None}
    return CliRunner().invoke(main, words, env=env, **about)


def token_of(name: str, role: str = "admin", **about: Any) -> str:
    """Return a token of this operator, or "none" without settings or database."""
    try:
        with transaction() as session:
            operator = operators.find(session, name)
            if operator is None:
                operator = Operator(
                    name=name, role=role, password_hash="none", created_by="shell:test", generation=1
                )
                session.add(operator)
                session.flush()
            return operator_tokens.issue(session, operator, **about)
    except (SettingsError, Unavailable):
        return "none"


def _needs_operator(words: list[str]) -> bool:
    """True if this command needs to know its operator."""
    command: click.Command | None = main
    for word in words:
        if not isinstance(command, click.Group):
            break
        command = command.commands.get(word, command)
    return command is not None and any("--as" in option.opts for option in command.params)
