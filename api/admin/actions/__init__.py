"""What operators can do to a withdrawal, by the code in addresses and in the audit log.

The functions are those of `shared/withdrawals`; nothing here changes a row.
To add one, add an Action to a module.
"""

from api.admin.actions import review, single, two_people
from api.admin.actions.base import Action, ActionContext, ActionInput, load_context

__all__ = ["ACTIONS", "Action", "ActionContext", "ActionInput", "load_context"]

ACTIONS: dict[str, Action] = {
    action.code: action for action in (*review.ACTIONS, *single.ACTIONS, *two_people.ACTIONS)
}
