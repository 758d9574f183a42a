/**
 * A wish that has no answer yet: what was asked for, and its idempotency key. It is written down before it is
 * sent, and stays until it is answered, also when the page is closed: so it can only ever be sent again as it is.
 */
import { newKey } from "../../js/coin-payouts.mjs";

/** @typedef {{key: string, amount: number, upiId: string}} Wish */

/** @param {string} userId */
const place = (userId) => `coin-payouts.wish.${userId}`;

/** @param {string} userId  @param {number} amount  @param {string} upiId  @returns {Wish} */
export function makeWish(userId, amount, upiId) {
  const wish = { key: newKey(), amount, upiId };
  localStorage.setItem(place(userId), JSON.stringify(wish));
  return wish;
}

/** @param {string} userId  @returns {Wish | null} */
export function keptWish(userId) {
  const kept = localStorage.getItem(place(userId));
  return kept ? JSON.parse(kept) : null;
}

/** @param {string} userId */
export function forgetWish(userId) {
  localStorage.removeItem(place(userId));
}
