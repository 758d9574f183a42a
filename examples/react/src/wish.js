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
  stored(() => localStorage.setItem(place(userId), JSON.stringify(wish)));
  return wish;
}

/** @param {string} userId  @returns {Wish | null} */
export const keptWish = (userId) => stored(() => JSON.parse(localStorage.getItem(place(userId)) ?? "null")) ?? null;

/** @param {string} userId */
export const forgetWish = (userId) => stored(() => localStorage.removeItem(place(userId)));

/**
 * A browser may refuse to store anything: then the wish is kept as long as the page.
 * @template Result  @param {() => Result} action
 */
function stored(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}
