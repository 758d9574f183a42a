"""What operators may do: four roles, each with all rights of the previous one, and the permissions."""

from enum import StrEnum


class Role(StrEnum):
    """An operator's role, from the fewest rights to the most."""

    VIEWER = "viewer"  # reads only
    OPERATOR = "operator"  # acts on withdrawals, pauses and exception records
    FINANCE = "finance"  # also credits and adjusts coins
    ADMIN = "admin"  # also manages operators, apps and endpoints

    def may(self, needed: "Role") -> bool:
        """True if this role has all rights of `needed`."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(needed)


class Permission(StrEnum):
    """The actions that change something. The panel and the shell use the same table of roles."""

    WITHDRAWALS = "withdrawals"  # note, cancel, retry now, query now; see a whole UPI id
    RESOLVE = "resolve"  # propose, approve or reject how a withdrawal ends
    REVIEW = "review"  # approve or reject a withdrawal before it is sent
    FREEZE = "freeze"  # freeze a wallet or block a payee; propose, approve or reject lifting that
    SWITCHES = "switches"  # pause and resume payouts
    EXCEPTIONS = "exceptions"  # assign and close exception records
    NOTIFICATIONS = "notifications"  # resend mails and webhooks
    RECONCILE = "reconcile"  # reconcile with the provider, which opens and closes exception records
    COINS = "coins"  # credit or adjust coins; approve or reject that
    IMPORT = "import"  # import withdrawals from a file
    KEYS = "keys"  # API keys
    ENDPOINTS = "endpoints"  # webhook endpoints of apps
    OPERATORS = "operators"  # operators, their roles, passwords and second factors


REQUIRED_ROLE: dict[Permission, Role] = {
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
