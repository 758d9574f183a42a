/**
 * The user's session, from our own backend. The browser never has the app's key: it has a token that works only for
 * this user, and only for minutes.
 */
import { CoinPayouts, TryLater } from "../../js/coin-payouts.mjs";

const EARLY_MS = 30_000; // a token that expires on its way is refused

/** @returns {Promise<{payouts: CoinPayouts, userId: string}>} */
export async function openSession() {
  let session = await fetchSession();
  let usableUntil = Date.now() + session.expires_in * 1000 - EARLY_MS;

  /** @param {boolean} isRefused */
  async function token(isRefused) {
    if (isRefused || Date.now() > usableUntil) {
      session = await fetchSession();
      usableUntil = Date.now() + session.expires_in * 1000 - EARLY_MS;
    }
    return session.token;
  }

  return { payouts: new CoinPayouts(session.api, token), userId: session.user_id };
}

/** @returns {Promise<{api: string, user_id: string, token: string, expires_in: number}>} */
async function fetchSession() {
  try {
    const answer = await fetch("/session", { method: "POST" });
    if (answer.ok) return await answer.json();
    throw new Error(`HTTP ${answer.status}`);
  } catch (error) {
    throw new TryLater(0, { error: "No token", details: String(error), code: "no_token" }, { cause: error });
  }
}
