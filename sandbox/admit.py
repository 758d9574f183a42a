"""Create the sandbox's operator, for its panel and its shell."""

import os

from shared.db.transactions import transaction
from shared.errors import Conflict
from shared.people import operator_tokens, operators
from shared.roles import Role

TOKEN_SECONDS = 8 * 3600


def main() -> None:
    """Add the operator of SANDBOX_OPERATOR (`name:password` or `name:password:role`), or set their password
    if an older database has them already.

    PAYOUTS_OPERATOR_TOKEN in the sandbox's environment is signed in as this operator for eight hours.
    """
    name, password, *role = os.environ["SANDBOX_OPERATOR"].split(":")
    with transaction() as session:
        try:
            operator = operators.add(
                session, name, role=Role(*role or [Role.ADMIN]), password=password, actor="operator:sandbox"
            )
        except Conflict:
            operator = operators.set_password(session, name, password)
        token = os.environ["PAYOUTS_OPERATOR_TOKEN"]
        operator_tokens.revoke(session, token)  # a restarted stack has a new one
        operator_tokens.issue(session, operator, seconds=TOKEN_SECONDS, token=token)


if __name__ == "__main__":
    main()
