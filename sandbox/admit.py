"""Lets one operator into a sandbox, its panel and its shell: the one that `payouts sandbox` tells of."""

import os

from shared import db, operator_tokens, operators
from shared.errors import Conflict
from shared.roles import Role

TOKEN_SECONDS = 8 * 3600


def main() -> None:
    """Add the operator of SANDBOX_OPERATOR (`name:password`, or with `:role`), or give them that password: a
    database may be older.

    Whoever has the sandbox's environment has signed in with it: PAYOUTS_OPERATOR_TOKEN, for eight hours.
    """
    name, password, *role = os.environ["SANDBOX_OPERATOR"].split(":")
    with db.transaction() as session:
        try:
            operator = operators.add(
                session, name, role=Role(*role or [Role.ADMIN]), password=password, actor="operator:sandbox"
            )
        except Conflict:
            operator = operators.set_password(session, name, password)
        token = os.environ["PAYOUTS_OPERATOR_TOKEN"]
        operator_tokens.revoke(session, token)  # a stack that starts again brings its own
        operator_tokens.issue(session, operator, seconds=TOKEN_SECONDS, token=token)


if __name__ == "__main__":
    main()
