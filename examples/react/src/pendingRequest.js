/**
 * A request that has no answer yet, with its idempotency key. It is stored before it is sent and kept until it is
 * answered, even if the page is closed, so a retry always sends the same request with the same key.
 */
import { newKey } from "../../js/coin-payouts.mjs";

/** @typedef {{key: string, amount: number, upiId: string}} PendingRequest */

/** @param {string} userId */
const storageKey = (userId) => `coin-payouts.pending-request.${userId}`;

/** @param {string} userId  @param {number} amount  @param {string} upiId  @returns {PendingRequest} */
export function createPendingRequest(userId, amount, upiId) {
  const pendingRequest = { key: newKey(), amount, upiId };
  stored(() => localStorage.setItem(storageKey(userId), JSON.stringify(pendingRequest)));
  return pendingRequest;
}

/** @param {string} userId  @returns {PendingRequest | null} */
export const loadPendingRequest = (userId) => stored(() => JSON.parse(localStorage.getItem(storageKey(userId)) ?? "null")) ?? null;

/** @param {string} userId */
export const clearPendingRequest = (userId) => stored(() => localStorage.removeItem(storageKey(userId)));

/**
 * A browser may refuse to store anything; the request is then kept as long as the page is open.
 * @template Result  @param {() => Result} action
 */
function stored(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}
