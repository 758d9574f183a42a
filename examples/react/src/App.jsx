import { useCallback, useState } from "react";

import { History } from "./History.jsx";
import { asCoins, worth } from "./rules.js";
import { useWithdrawals } from "./useWithdrawals.js";
import { WithdrawForm } from "./WithdrawForm.jsx";

/** @typedef {import("../../js/coin-payouts.mjs").Withdrawal} Withdrawal */

/** The text that a screen reader announces when a status changes. @param {Withdrawal} withdrawal */
const announcement = ({ amount, upi_id, status, failure_reason }) =>
  [`${asCoins(amount)} to ${upi_id}: ${status}.`, failure_reason].filter(Boolean).join(" ");

/** @param {{payouts: import("../../js/coin-payouts.mjs").CoinPayouts, userId: string}} props */
export function App({ payouts, userId }) {
  const [news, setNews] = useState("");
  const onMoved = useCallback((/** @type {Withdrawal[]} */ moved) => setNews(moved.map(announcement).join(" ")), []);
  const { list, coins, isStale, refresh, showOlder } = useWithdrawals(payouts, userId, onMoved);

  return (
    <main>
      <header>
        <h1>Withdraw your coins</h1>
        <p className="balance" data-testid="balance">
          {coins === null ? "…" : `You have ${asCoins(coins)} (${worth(coins)})`}
        </p>
      </header>
      <WithdrawForm payouts={payouts} userId={userId} available={coins} onTaken={refresh} onNews={setNews} />
      <p role="status" aria-live="polite" className="news">
        {news}
      </p>
      {isStale && <p className="stale">This may be out of date: we cannot reach our server now. We keep trying.</p>}
      <History payouts={payouts} list={list} showOlder={showOlder} onCancelled={refresh} />
    </main>
  );
}
