/** The API's validation rules, so that a user sees a mistake before anything is sent. */

export const MIN_COINS = 100;
export const MAX_COINS = 100_000;
const RUPEES_PER_COIN = 0.1;
const UPI_ID = /^(?![.])(?!.*[.]{2})(?!.*[.]@)[A-Za-z0-9._-]+@[A-Za-z0-9]+$/;
const [MIN_UPI, MAX_UPI] = [5, 100];

const rupeeFormat = new Intl.NumberFormat("en-IN", { style: "currency", currency: "INR" });
const coinFormat = new Intl.NumberFormat("en-IN");

/** @param {number} rupees */
export const asRupees = (rupees) => rupeeFormat.format(rupees);
/** @param {number} coins */
export const asCoins = (coins) => `${coinFormat.format(coins)} ${coins === 1 ? "coin" : "coins"}`;
/** @param {number} coins */
export const worth = (coins) => asRupees(coins * RUPEES_PER_COIN);

/** Return the whole number of coins that was typed, or null. @param {string} text */
export function coinsOf(text) {
  return /^\d{1,12}$/.test(text.trim()) ? Number(text.trim()) : null;
}

/** @typedef {{amount?: string, upiId?: string}} Faults */

/**
 * Return what is wrong with the input; empty if nothing is.
 * @param {string} amount  @param {string} upiId  @param {number | null} available
 * @returns {Faults}
 */
export function faultsOf(amount, upiId, available) {
  /** @type {Faults} */
  const faults = {};
  const coins = coinsOf(amount);
  if (coins === null) faults.amount = "Enter a whole number of coins.";
  else if (coins < MIN_COINS) faults.amount = `Minimum withdrawal is ${asCoins(MIN_COINS)}.`;
  else if (available !== null && coins > available) faults.amount = `You have ${asCoins(available)}.`;
  else if (coins > MAX_COINS) faults.amount = `Maximum withdrawal is ${asCoins(MAX_COINS)}.`;
  const upi = upiId.trim();
  if (!UPI_ID.test(upi) || upi.length < MIN_UPI || upi.length > MAX_UPI) {
    faults.upiId = "Enter a UPI id such as user@okhdfcbank.";
  }
  return faults;
}

/**
 * Return the field that the API's refusal is about. The API's rules count: they may differ from ours.
 * @param {import("../../js/coin-payouts.mjs").Refused} refusal
 * @returns {Faults | null}  null if it is about no field
 */
export function faultsOfRefusal({ code, error, details }) {
  if (code === "invalid_upi") return { upiId: details };
  if (code === "insufficient_coins") return { amount: error };
  if (["amount_too_low", "amount_too_high", "invalid_amount"].includes(code)) return { amount: details };
  return null;
}
