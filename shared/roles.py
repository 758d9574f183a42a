"""What operators may do: four roles, each of which may do what the ones before it may, and one table."""

from enum import StrEnum


class Role(StrEnum):
    """An operator's role, from the one that may least to the one that may most."""

    VIEWER = "viewer"  # looks, and changes nothing
    OPERATOR = "operator"  # acts on withdrawals, switches and exception records
    FINANCE = "finance"  # moves coins by hand as well
    ADMIN = "admin"  # looks after the other operators as well

    def may(self, needed: "Role") -> bool:
        """Whether this role may do what `needed` may do."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(needed)


class Permission(StrEnum):
    """What operators do that changes something; panel and shell ask the same table for the role."""

    WITHDRAWALS = "withdrawals"  # note, cancel, try now, ask now; see a whole UPI id
    RESOLVE = "resolve"  # propose, approve or reject how a withdrawal ends
    REVIEW = "review"  # approve or reject a withdrawal before it is sent
    FREEZE = "freeze"  # freeze a wallet, block a payee; propose, approve or reject the end of that
    SWITCHES = "switches"  # pause and resume
    EXCEPTIONS = "exceptions"  # assign and close exception records
    NOTIFICATIONS = "notifications"  # send mail and webhooks again
    RECONCILE = "reconcile"  # compare with RazorpayX, which opens and closes exception records
    COINS = "coins"  # give coins or take them; approve or reject that
    IMPORT = "import"  # many withdrawals from a file
    KEYS = "keys"  # the keys of apps
    ENDPOINTS = "endpoints"  # where apps are told of changes
    OPERATORS = "operators"  # operators, their roles, passwords and second factors


NEEDS: dict[Permission, Role] = {
    Permission.WITHDRAWALS: Role.OPERATOR,
    Permission.RESOLVE: Role.OPERATOR,
    Permission.REVIEW: Role.OPERATOR,
    Permission.FREEZE: Role.OPERATOR,
    Permission.SWITCHES: Role.OPERATOR,
    Permission.EXCEPTIONS: Role.OPERATOR,
    Permission.NOTIFICATIONS: Role.OPERATOR,
    Permission.RECONCILE: Role.OPERATOR,
    Permission.COINS: Role.FINANCE,
    Permission.IMPORT: Role.FINANCE,
    Permission.KEYS: Role.ADMIN,
    Permission.ENDPOINTS: Role.ADMIN,
    Permission.OPERATORS: Role.ADMIN,
}
