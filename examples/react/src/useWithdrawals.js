/** The user's coins and withdrawals, kept up to date while one of them is open. */
import { useCallback, useEffect, useRef, useState } from "react";

import { FINAL } from "../../js/coin-payouts.mjs";

/** @typedef {import("../../js/coin-payouts.mjs").Withdrawal} Withdrawal */
/** @typedef {import("../../js/coin-payouts.mjs").CoinPayouts} CoinPayouts */

const PAGE = 20;
const FIRST_LOOK_MS = 1000;
const LONGEST_LOOK_MS = 30_000; // a bank may take days, so no one needs the result to the second

/** @param {Map<string, Withdrawal>} known */
const newestFirst = (known) =>
  [...known.values()].sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at) || (a.id < b.id ? 1 : -1));

/** Return a text that changes whenever the withdrawal changes. @param {Withdrawal | undefined} one */
const state = (one) => one && [one.status, one.status_reason, one.expected_by].join();

/**
 * @param {CoinPayouts} payouts  @param {string} userId
 * @param {(moved: Withdrawal[]) => void} onMoved  called with withdrawals that were shown before and have a new status
 */
export function useWithdrawals(payouts, userId, onMoved) {
  const known = useRef(/** @type {Map<string, Withdrawal>} */ (new Map()));
  const [list, setList] = useState(/** @type {Withdrawal[] | null} */ (null));
  const [next, setNext] = useState(/** @type {string | undefined} */ (undefined));
  const [coins, setCoins] = useState(/** @type {number | null} */ (null));
  const [isStale, setIsStale] = useState(false);

  /** Store what was read; true if anything is new. */
  const keep = useCallback(
    (/** @type {Withdrawal[]} */ read) => {
      const changed = read.filter((one) => state(known.current.get(one.id)) !== state(one));
      const moved = changed.filter(({ id, status }) => (known.current.get(id)?.status ?? status) !== status);
      if (moved.length) onMoved(moved);
      for (const one of changed) known.current.set(one.id, one);
      if (changed.length || !known.current.size) setList(newestFirst(known.current));
      return changed.length > 0;
    },
    [onMoved],
  );

  /** Read what may have changed; true if anything did. */
  const refresh = useCallback(async () => {
    const wasEmpty = known.current.size === 0;
    try {
      const page = await payouts.historyPage(userId, { limit: PAGE });
      const shown = new Set(page.withdrawals.map(({ id }) => id));
      const older = [...known.current.values()].filter(({ id, status }) => !FINAL.has(status) && !shown.has(id));
      const read = await Promise.all(older.map(({ id }) => payouts.status(id)));
      const isNew = keep([...page.withdrawals, ...read]);
      if (wasEmpty) setNext(page.next);
      if (isNew || wasEmpty) setCoins((await payouts.wallet(userId)).available_coins);
      setIsStale(false);
      return isNew;
    } catch {
      setIsStale(true); // the page shows the last known state; the next poll follows by itself
      return false;
    }
  }, [payouts, userId, keep]);

  const showOlder = useCallback(async () => {
    try {
      const page = await payouts.historyPage(userId, { limit: PAGE, cursor: next });
      keep(page.withdrawals);
      setNext(page.next);
    } catch {
      setIsStale(true);
    }
  }, [payouts, userId, next, keep]);

  const isOpen = isStale || (list ?? []).some(({ status }) => !FINAL.has(status));
  useEffect(() => {
    refresh();
    /** @type {number | undefined} */
    let timer;
    let wait = FIRST_LOOK_MS;
    const lookLater = () => (timer = isOpen ? window.setTimeout(look, wait) : undefined);
    const look = async () => {
      const looking = timer;
      if (!document.hidden) wait = (await refresh()) ? FIRST_LOOK_MS : Math.min(wait * 1.5, LONGEST_LOOK_MS);
      if (timer === looking) lookLater(); // unless the effect has ended in the meantime
    };
    lookLater();
    // A user who returns to the page sees the current state, including money that a bank returned after days.
    const onReturn = () => document.hidden || refresh();
    document.addEventListener("visibilitychange", onReturn);
    return () => {
      window.clearTimeout(timer);
      timer = undefined;
      document.removeEventListener("visibilitychange", onReturn);
    };
  }, [refresh, isOpen]);

  return { list, coins, isStale, refresh, showOlder: next ? showOlder : null };
}
