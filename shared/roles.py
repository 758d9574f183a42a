"""What people who work in the panel may do: four roles, each of which may do what the ones before it may."""

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
