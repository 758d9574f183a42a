import { useState } from "react";

import { FINAL, Refused } from "../../js/coin-payouts.mjs";
import { asCoins, asRupees } from "./rules.js";

/** @typedef {import("../../js/coin-payouts.mjs").Withdrawal} Withdrawal */
/** @typedef {import("../../js/coin-payouts.mjs").CoinPayouts} CoinPayouts */

const moment = new Intl.DateTimeFormat("en-IN", { dateStyle: "medium", timeStyle: "short" });
/** @param {string} time */
const at = (time) => moment.format(new Date(time));

const WORDS = {
  pending: "Pending",
  processing: "On its way",
  completed: "Paid",
  failed: "Failed",
  cancelled: "Cancelled",
};

/**
 * @param {object} props
 * @param {CoinPayouts} props.payouts
 * @param {Withdrawal[] | null} props.list
 * @param {(() => void) | null} props.showOlder
 * @param {() => void} props.onCancelled
 */
export function History({ payouts, list, showOlder, onCancelled }) {
  return (
    <section aria-labelledby="history">
      <h2 id="history">Your withdrawals</h2>
      {list === null && <p className="hint">Loading …</p>}
      {list?.length === 0 && <p className="hint">None yet.</p>}
      <ul className="history">
        {list?.map((withdrawal) => (
          <Item key={withdrawal.id} payouts={payouts} withdrawal={withdrawal} onCancelled={onCancelled} />
        ))}
      </ul>
      {showOlder && (
        <button type="button" className="quiet" onClick={showOlder}>
          Show older ones
        </button>
      )}
    </section>
  );
}

/** @param {{payouts: CoinPayouts, withdrawal: Withdrawal, onCancelled: () => void}} props */
function Item({ payouts, withdrawal, onCancelled }) {
  const { id, amount, rupees_amount, upi_id, status, created_at } = withdrawal;
  return (
    <li data-testid="withdrawal" data-status={status} data-id={id}>
      <p className="line">
        <strong>
          {asCoins(amount)} · {asRupees(rupees_amount)}
        </strong>
        <span className={`badge ${status}`}>{WORDS[status] ?? status}</span>
      </p>
      <p className="hint">
        to {upi_id}, {at(created_at)}
      </p>
      <Story withdrawal={withdrawal} />
      {status === "pending" && <Cancel payouts={payouts} withdrawal={withdrawal} onCancelled={onCancelled} />}
    </li>
  );
}

/** Why it waits and until when, how it was paid, or why it failed. @param {{withdrawal: Withdrawal}} props */
function Story({ withdrawal: { status, status_message, expected_by, failure_reason, utr } }) {
  if (status === "completed") return <p className="story">Paid. Your bank's reference (UTR) is {utr ?? "on its way"}.</p>;
  if (status === "failed") return <p className="story">{failure_reason} Your coins are back.</p>;
  if (FINAL.has(status)) return <p className="story">Your coins are back.</p>;
  return (
    <p className="story">
      {status_message} {expected_by && `Expected by ${at(expected_by)}.`}
    </p>
  );
}

/** The reason why it was not cancelled. @param {unknown} error */
function whyNot(error) {
  if (!(error instanceof Refused)) return "No answer yet. Please try again.";
  if (error.code !== "cannot_cancel") return `${error.error}.`;
  if (error.extra.current_status === "cancelled") return "It is already cancelled.";
  if (error.extra.current_status === "failed") return "It has already failed.";
  return "Too late: the payment has started.";
}

/** @param {{payouts: CoinPayouts, withdrawal: Withdrawal, onCancelled: () => void}} props */
function Cancel({ payouts, withdrawal: { id, amount, upi_id }, onCancelled }) {
  const [problem, setProblem] = useState("");
  const [isCancelling, setIsCancelling] = useState(false);

  async function cancel() {
    if (isCancelling) return;
    setIsCancelling(true);
    setProblem("");
    try {
      await payouts.cancel(id);
    } catch (error) {
      setProblem(whyNot(error)); // the next poll shows its current state
    }
    setIsCancelling(false);
    onCancelled();
  }

  return (
    <>
      <button
        type="button"
        className="quiet"
        onClick={cancel}
        aria-disabled={isCancelling}
        aria-label={`Cancel ${asCoins(amount)} to ${upi_id}`}
      >
        {isCancelling ? "Cancelling …" : "Cancel"}
      </button>
      {problem && <p role="alert">{problem}</p>}
    </>
  );
}
