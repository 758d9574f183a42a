#!/usr/bin/env bash
# Ten checks with curl: does the API answer, and does it follow the contract?
#
#   examples/check.sh [BASE_URL]              default: http://localhost:8000, as in `make demo`
#   API_KEY=… examples/check.sh https://payouts.example.com
#
# It creates a user, credits coins, requests one withdrawal of 100 coins (₹10) and cancels it. It leaves behind the
# wallet of that user, `check-…`, with 300 coins, because nothing can be deleted.
# It prints a line for each check; the exit status is the number of failed checks.
set -u
BASE=${1:-http://localhost:8000}
API=${BASE%/}/api/razorpay
USER_ID=check-$(date +%s)-$$
FAILED=0

# ask METHOD PATH [JSON]: sets STATUS and BODY. Without a connection the status is 000.
ask() {
  local answer
  answer=$(curl --silent --max-time 20 --write-out '\n%{http_code}' --request "$1" "$API$2" \
    --header "Authorization: Bearer ${API_KEY:-none}" --header 'Content-Type: application/json' ${3:+--data "$3"})
  STATUS=${answer##*$'\n'} BODY=${answer%$'\n'*}
}

withdraw() { ask POST /withdraw/ "$1"; }

# expect NUMBER WHAT STATUS TEXT: checks that the last response has this status and its body contains this text.
expect() {
  if [ "$STATUS" = "$3" ] && [[ $BODY == *"$4"* ]]; then
    printf 'ok    %2s  %s\n' "$1" "$2"
  else
    printf 'FAIL  %2s  %s: expected %s with %s, got %s: %.300s\n' "$1" "$2" "$3" "$4" "$STATUS" "$BODY"
    FAILED=$((FAILED + 1))
  fi
}

id_of() { sed -E 's/.*"withdrawal_id": ?"([^"]*)".*/\1/' <<<"$BODY" | tr -d '\n'; }

ask POST /wallet/credit/ "{\"user_id\": \"$USER_ID\", \"coins\": 300, \"reference\": \"check\", \"reason\": \"Check\"}"
if [ "$STATUS" != 201 ]; then
  printf 'Could not credit coins: %s %s\n' "$STATUS" "${BODY:-no answer from $BASE}"
  exit 10
fi

withdraw "{\"user_id\": \"$USER_ID\", \"amount\": 100, \"upi_id\": \"user@okhdfcbank\"}"
expect 1 'request a withdrawal' 201 '"pending"'
FIRST=$(id_of)

withdraw "{\"user_id\": \"$USER_ID\", \"amount\": 5000, \"upi_id\": \"user@okhdfcbank\"}"
expect 2 'more coins than the balance' 400 'Insufficient'

withdraw "{\"user_id\": \"$USER_ID\", \"amount\": 100, \"upi_id\": \"invalid-upi\"}"
expect 3 'an invalid UPI id' 400 'Invalid UPI'

withdraw "{\"user_id\": \"$USER_ID\", \"amount\": 50, \"upi_id\": \"user@okhdfcbank\"}"
expect 4 'below the minimum' 400 'Minimum withdrawal is 100 coins'

ask GET "/withdraw/history/?user_id=$USER_ID"
expect 5 'the history shows it' 200 "$FIRST"

ask GET "/withdraw/status/?withdrawal_id=$FIRST"
expect 6 'its status' 200 "\"user_id\":\"$USER_ID\""

ask POST /withdraw/cancel/ "{\"withdrawal_id\": \"$FIRST\", \"reason\": \"A check\"}"
expect 7 'cancel, coins back' 200 '"remaining_coins":300'

withdraw '{"amount": 100, "upi_id": "user@okhdfcbank"}'
expect 8 'no user' 400 'user_id is required'

# The API validates the fields before the balance, so 5,000 coins test UPI ids without moving coins.
GOOD='' BAD=''
for upi in user@okhdfcbank john@ybl mobile@airtel name_123@ibl contact@upi; do
  withdraw "{\"user_id\": \"$USER_ID\", \"amount\": 5000, \"upi_id\": \"$upi\"}"
  [[ $BODY == *Insufficient* ]] || GOOD+=" $upi"
done
for upi in invalid-upi 'username#bank' @bank user@ a@b; do
  withdraw "{\"user_id\": \"$USER_ID\", \"amount\": 5000, \"upi_id\": \"$upi\"}"
  [[ $BODY == *'Invalid UPI'* ]] || BAD+=" $upi"
done
STATUS="refused:${GOOD:- none}; accepted:${BAD:- none}" BODY=''
expect 9 'five valid UPI ids, five invalid ones' 'refused: none; accepted: none' ''

ask GET "/withdraw/history/?user_id=$USER_ID&status=cancelled"
expect 10 'the history by status' 200 '"count":1'

printf '%s of 10 failed\n' "$FAILED"
exit "$FAILED"
