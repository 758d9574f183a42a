import { useRef, useState } from "react";

import { NoAccess, Refused } from "../../js/coin-payouts.mjs";
import { asCoins, asRupees, coinsOf, faultsOf, faultsOfRefusal, MIN_COINS, worth } from "./rules.js";
import { clearPendingRequest, loadPendingRequest, createPendingRequest } from "./pendingRequest.js";

const NOT_ANSWERED =
  "We have no answer yet. We may have received your withdrawal. If you send it again, you still withdraw only once.";

/**
 * @param {object} props
 * @param {import("../../js/coin-payouts.mjs").CoinPayouts} props.payouts
 * @param {string} props.userId
 * @param {number | null} props.available  the user's coins, if known
 * @param {() => void} props.onTaken
 * @param {(news: string) => void} props.onNews
 */
export function WithdrawForm({ payouts, userId, available, onTaken, onNews }) {
  // A request without an answer, from before the page was closed, comes first.
  const [pendingRequest, setPendingRequest] = useState(() => loadPendingRequest(userId));
  const [amount, setAmount] = useState(pendingRequest ? String(pendingRequest.amount) : "");
  const [upiId, setUpiId] = useState(pendingRequest?.upiId ?? "");
  const [faults, setFaults] = useState(/** @type {import("./rules.js").Faults} */ ({}));
  const [problem, setProblem] = useState(pendingRequest ? NOT_ANSWERED : "");
  const [isSending, setIsSending] = useState(false);
  const inFlight = useRef(false); // for double clicks: it is set at once, unlike a state, which is set at the next render
  const amountField = useRef(/** @type {HTMLInputElement | null} */ (null));
  const upiField = useRef(/** @type {HTMLInputElement | null} */ (null));

  /** @param {import("react").FormEvent} event */
  async function submit(event) {
    event.preventDefault();
    if (inFlight.current) return;
    const found = pendingRequest ? {} : faultsOf(amount, upiId, available);
    show(found);
    if (found.amount || found.upiId) return;
    inFlight.current = true;
    setIsSending(true);
    try {
      await send(pendingRequest ?? createPendingRequest(userId, Number(coinsOf(amount)), upiId.trim()));
    } finally {
      inFlight.current = false;
      setIsSending(false);
    }
  }

  /** @param {import("./pendingRequest.js").PendingRequest} sent */
  async function send(sent) {
    setPendingRequest(sent);
    setProblem("");
    try {
      const taken = await payouts.withdraw(userId, sent.amount, sent.upiId, { idempotencyKey: sent.key });
      answered();
      setAmount("");
      onNews(`Withdrawal requested: ${asCoins(taken.amount)}, ${asRupees(taken.rupees_amount)} to ${taken.upi_id}.`);
      onTaken();
    } catch (error) {
      if (error instanceof Refused) {
        answered();
        const told = faultsOfRefusal(error);
        show(told ?? {});
        if (!told) setProblem(error.details);
      } else if (error instanceof NoAccess) {
        setProblem("Please sign in again, then send it again. You still withdraw only once.");
      } else {
        setProblem(NOT_ANSWERED);
      }
    }
  }

  function answered() {
    clearPendingRequest(userId);
    setPendingRequest(null);
  }

  /** Show the faults and focus the first field. @param {import("./rules.js").Faults} found */
  function show(found) {
    setFaults(found);
    if (found.amount) amountField.current?.focus();
    else if (found.upiId) upiField.current?.focus();
  }

  const coins = coinsOf(amount);
  const label = pendingRequest ? "Send again" : coins ? `Withdraw ${worth(coins)}` : "Withdraw";
  return (
    <form onSubmit={submit} noValidate aria-label="Withdraw" aria-busy={isSending}>
      <Field
        id="amount"
        label="Coins"
        hint={`At least ${asCoins(MIN_COINS)}. ${asCoins(MIN_COINS)} are ${worth(MIN_COINS)}.`}
        fault={faults.amount}
        ref={amountField}
        value={amount}
        onChange={setAmount}
        isLocked={pendingRequest !== null}
        inputMode="numeric"
      />
      <Field
        id="upi"
        label="UPI id"
        hint="Your UPI app shows it, such as user@okhdfcbank."
        fault={faults.upiId}
        ref={upiField}
        value={upiId}
        onChange={setUpiId}
        isLocked={pendingRequest !== null}
        inputMode="email"
      />
      {problem && <p role="alert">{problem}</p>}
      {/* Not disabled while it sends, because a disabled button loses the keyboard focus. */}
      <button type="submit" aria-disabled={isSending}>
        {isSending ? "Sending …" : label}
      </button>
    </form>
  );
}

/**
 * @param {object} props
 * @param {string} props.id
 * @param {string} props.label
 * @param {string} props.hint
 * @param {string | undefined} props.fault
 * @param {import("react").Ref<HTMLInputElement>} props.ref
 * @param {string} props.value
 * @param {(value: string) => void} props.onChange
 * @param {boolean} props.isLocked
 * @param {"numeric" | "email"} props.inputMode
 */
function Field({ id, label, hint, fault, ref, value, onChange, isLocked, inputMode }) {
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        ref={ref}
        value={value}
        onChange={(event) => onChange(event.target.value)}
        readOnly={isLocked}
        inputMode={inputMode}
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        required
        aria-invalid={fault ? true : undefined}
        aria-describedby={fault ? `${id}-fault` : `${id}-hint`}
      />
      {fault ? (
        <p id={`${id}-fault`} className="fault">
          {fault}
        </p>
      ) : (
        <p id={`${id}-hint`} className="hint">
          {hint}
        </p>
      )}
    </div>
  );
}
