"""The operations, described: what each takes, answers and refuses."""

from api import schemas, shapes
from api.openapi import answers, refusals
from api.openapi.described import Operation, Parameter, answer

USER_ID = Parameter("user_id", shapes.USER_ID, "Whose", "user123", required=True)
LIMIT = Parameter("limit", shapes.LIMIT, "How many; more than 100 is taken as 100", 50)


def _cursor(of: str, example: str) -> Parameter:
    # Opaque, so no pattern: the format only says which cursor goes where.
    schema = {"type": "string", "format": f"{of}-cursor"}
    return Parameter("cursor", schema, "`next_cursor` of the answer before, as it was", example)


def _link(operation_id: str, about: str, **given: object) -> dict[str, object]:
    return {"operationId": operation_id, "description": about, **given}


THE_USER = "$response.body#/data/user_id"
NEW_ID, THE_ID = "$response.body#/data/withdrawal_id", "$response.body#/data/id"

WITHDRAW = Operation(
    title="Ask for a withdrawal",
    body=schemas.WithdrawIn,
    once=True,
    answers=(answer(201, answers.Requested, "The coins are taken; the rupees follow"),),
    refusals=refusals.of_withdraw,
    links={
        "status": _link("status", "How far it is", parameters={"withdrawal_id": NEW_ID}),
        "cancel": _link("cancel", "While it is pending", requestBody={"withdrawal_id": NEW_ID}),
    },
)
BATCH = Operation(
    title="Ask for many withdrawals",
    body=schemas.BatchIn,
    parameters=(
        Parameter(
            "Idempotency-Key",
            shapes.IDEMPOTENCY_KEY,
            "Of the whole batch; each item's place in the list is part of its own",
            "payday-2026-11",
            place="header",
            required=True,
        ),
    ),
    answers=(answer(200, answers.Batch, "Each item was taken or refused for itself"),),
    refusals=refusals.of_batch,
)
HISTORY = Operation(
    title="A user's withdrawals",
    parameters=(
        USER_ID,
        Parameter("status", shapes.STATUS, "Only those with this status", "completed"),
        LIMIT,
        _cursor("history", answers.CURSOR),
    ),
    answers=(answer(200, answers.History, "Newest first; an unknown user has none"),),
    refusals=refusals.of_history,
    links={
        "next": _link(
            "history",
            "The next page",
            parameters={"user_id": "$request.query.user_id", "cursor": "$response.body#/next_cursor"},
        )
    },
)
STATUS = Operation(
    title="One withdrawal",
    parameters=(
        Parameter("withdrawal_id", shapes.WITHDRAWAL_ID, "Which", str(answers.WITHDRAWAL), required=True),
    ),
    answers=(answer(200, answers.Found, "As it stands now"),),
    refusals=refusals.of_status,
    links={"cancel": _link("cancel", "While it is pending", requestBody={"withdrawal_id": THE_ID})},
)
CANCEL = Operation(
    title="Take a withdrawal back",
    body=schemas.CancelIn,
    once=True,
    answers=(answer(200, answers.Cancelled, "It will not be paid; the coins are back"),),
    refusals=refusals.of_cancel,
    links={"status": _link("status", "As it stands now", parameters={"withdrawal_id": NEW_ID})},
)
CREDIT = Operation(
    title="Give coins",
    body=schemas.CreditIn,
    once=True,
    answers=(
        answer(201, answers.Credited, "The coins are given"),
        answer(
            200, answers.Credited, "They were given before", message="Already credited with this reference"
        ),
    ),
    refusals=refusals.of_credit,
    links={
        "withdraw": _link("request_withdrawal", "Turn them into rupees", requestBody={"user_id": THE_USER}),
        "wallet": _link("read", "The user's coins", parameters={"user_id": THE_USER}),
        "journal": _link("transactions", "Why they are there", parameters={"user_id": THE_USER}),
        "history": _link("history", "The user's withdrawals", parameters={"user_id": THE_USER}),
    },
)
WALLET = Operation(
    title="A user's coins",
    parameters=(USER_ID,),
    answers=(answer(200, answers.Wallet, "The user's coins"),),
    refusals=refusals.of_wallet,
)
TRANSACTIONS = Operation(
    title="A user's journal",
    parameters=(USER_ID, LIMIT, _cursor("transactions", "NDI=")),
    answers=(answer(200, answers.Lines, "Newest first"),),
    refusals=refusals.of_transactions,
    links={
        "next": _link(
            "transactions",
            "The next page",
            parameters={"user_id": "$request.query.user_id", "cursor": "$response.body#/next_cursor"},
        )
    },
)
WEBHOOK = Operation(
    title="What RazorpayX sends",
    about="RazorpayX calls this when something happened to a payout. Apps have no use for it.",
    parameters=(
        Parameter(
            "X-Razorpay-Signature",
            {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "Hex HMAC-SHA256 of the body under the webhook's secret",
            "0f" * 32,
            place="header",
            required=True,
        ),
        Parameter("X-Razorpay-Event-Id", {"type": "string"}, "Kept once", "evt_Q3bVZ", place="header"),
    ),
    answers=(answer(200, answers.Received, "Kept; a worker applies it"),),
    any_body={"schema": {"type": "object"}, "example": {"entity": "event", "event": "payout.processed"}},
    refusals=refusals.of_webhook,
)
ALIVE = Operation(title="Is it alive", answers=(answer(200, answers.Alive, "The process answers"),))
READY = Operation(
    title="Can it serve",
    answers=(
        answer(200, answers.Readiness, "Withdrawals can be taken"),
        answer(
            503, answers.Readiness, "Without the database they cannot",
            success=False, status="unavailable", database="unavailable",
        ),
    )
)  # fmt: skip
