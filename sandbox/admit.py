"""Lets one operator into the panel of a sandbox: the one that `payouts sandbox` tells of."""

import os

from shared import db, operators
from shared.errors import Conflict
from shared.roles import Role


def main() -> None:
    """Add the operator that SANDBOX_OPERATOR names, or give them its password: a database may be older."""
    name, _, password = os.environ["SANDBOX_OPERATOR"].partition(":")
    with db.transaction() as session:
        try:
            operators.add(session, name, role=Role.ADMIN, password=password, actor="operator:sandbox")
        except Conflict:
            operators.set_password(session, name, password)


if __name__ == "__main__":
    main()
