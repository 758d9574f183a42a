"""Links of the OpenAPI document: which response fields are inputs of which operations."""

Links = dict[str, dict[str, object]]

_USER_ID = "$response.body#/data/user_id"
_NEW_ID = "$response.body#/data/withdrawal_id"
_FOUND_ID = "$response.body#/data/id"
_USER_AND_CURSOR = {"user_id": "$request.query.user_id", "cursor": "$response.body#/next_cursor"}


def _link(operation_id: str, description: str, **inputs: object) -> dict[str, object]:
    return {"operationId": operation_id, "description": description, **inputs}


REQUESTED: Links = {
    "status": _link("status", "Its current state", parameters={"withdrawal_id": _NEW_ID}),
    "cancel": _link("cancel", "While it is pending", requestBody={"withdrawal_id": _NEW_ID}),
}
STATUS: Links = {"cancel": _link("cancel", "While it is pending", requestBody={"withdrawal_id": _FOUND_ID})}
CANCELLED: Links = {"status": _link("status", "Its current state", parameters={"withdrawal_id": _NEW_ID})}
CREDITED: Links = {
    "withdraw": _link("request_withdrawal", "Turn them into rupees", requestBody={"user_id": _USER_ID}),
    "wallet": _link("read", "The user's wallet", parameters={"user_id": _USER_ID}),
    "journal": _link("transactions", "The wallet's journal", parameters={"user_id": _USER_ID}),
    "history": _link("history", "The user's withdrawals", parameters={"user_id": _USER_ID}),
}
HISTORY: Links = {"next": _link("history", "The next page", parameters=_USER_AND_CURSOR)}
TRANSACTIONS: Links = {"next": _link("transactions", "The next page", parameters=_USER_AND_CURSOR)}
