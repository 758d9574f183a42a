"""`payouts …` in this process, by an operator who has signed in."""

from typing import Any

import click
from click.testing import CliRunner, Result

from shared import db, operator_tokens, operators
from shared.cli import main
from shared.cli.token_file import VARIABLE
from shared.errors import SettingsError, Unavailable
from shared.models import Operator


def invoke(*words: object, by: str | None = "root", **about: Any) -> Result:
    """Run it as the operator whom `--as` names, or as `by`: an admin, who is made where there is none."""
    told = [str(word) for word in words]
    name = told[told.index("--as") + 1] if "--as" in told else by
    env = {VARIABLE: token_of(name) if name and _is_act(told) else None}
    return CliRunner().invoke(main, told, env=env, **about)


def token_of(name: str, role: str = "admin", **about: Any) -> str:
    """What proves that somebody is this operator; settings or database may be missing."""
    try:
        with db.transaction() as session:
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


def _is_act(words: list[str]) -> bool:
    """Whether this command asks who runs it."""
    command: click.Command | None = main
    for word in words:
        if not isinstance(command, click.Group):
            break
        command = command.commands.get(word, command)
    return command is not None and any("--as" in option.opts for option in command.params)
