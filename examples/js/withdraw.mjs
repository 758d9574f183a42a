#!/usr/bin/env node
/**
 * Request a withdrawal and follow it to its end.
 *
 *     PAYOUTS_URL=http://localhost:8000 PAYOUTS_KEY=cpk_… withdraw.mjs user123 500 user@okhdfcbank --credit 2000
 *
 * Exit status: 0 paid, 1 not paid (refused, failed, cancelled), 2 no result yet: run it again with --key.
 */
import { parseArgs } from "node:util";

import { CoinPayouts, FINAL, newKey, NoAccess, PayoutsError, Refused } from "./coin-payouts.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    credit: { type: "string" }, // credit the user with COINS first
    key: { type: "string", default: newKey() }, // the idempotency key of a run that got no answer
    seconds: { type: "string", default: "300" }, // how long to follow it, in seconds
  },
});
const [userId, coins, upiId] = positionals;
const { PAYOUTS_URL = "http://localhost:8000", PAYOUTS_KEY } = process.env;
if (!upiId || !PAYOUTS_KEY) {
  console.error("withdraw.mjs USER_ID COINS UPI_ID [--credit COINS] [--key KEY] [--seconds N], with PAYOUTS_KEY set");
  process.exit(2);
}
const payouts = new CoinPayouts(PAYOUTS_URL, PAYOUTS_KEY);
const idempotencyKey = String(values.key);

/** @returns {Promise<number>} the exit status */
async function main() {
  // An app stores the key in its database, in the transaction that stores the user's request.
  console.log(`idempotency key ${idempotencyKey}`);
  if (values.credit) await credit(Number(values.credit));
  const taken = await payouts.withdraw(userId, Number(coins), upiId, { idempotencyKey });
  console.log(`withdrawal ${taken.withdrawal_id}: ${taken.amount} coins, ₹${taken.rupees_amount.toFixed(2)}`);
  let last;
  for await (last of payouts.follow(taken.withdrawal_id, { seconds: Number(values.seconds) })) show(last);
  if (!last || !FINAL.has(last.status)) return 2;
  return last.status === "completed" ? 0 : 1;
}

/** Credit coins if the key has the scope `credit`. @param {number} coins */
async function credit(coins) {
  try {
    const given = await payouts.credit(userId, coins, { reference: `credit-${idempotencyKey}`, reason: "An example" });
    console.log(`${given.coins} coins credited, balance ${given.available_coins}`);
  } catch (error) {
    if (!(error instanceof NoAccess && error.status === 403)) throw error;
    console.log(`no coins credited: ${error.message}`);
  }
}

/** Print the status and the sentence that a user would read. @param {import("./coin-payouts.mjs").Withdrawal} withdrawal */
function show({ status, status_message, failure_reason, utr }) {
  const words = status === "completed" ? `paid, bank reference ${utr}` : (failure_reason ?? status_message);
  console.log(words ? `${status}: ${words}` : status);
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof PayoutsError)) throw error;
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = error instanceof Refused ? 1 : 2;
}
