/**
 * A client for Coin Payouts in one file without dependencies, for Node 20 and browsers. Copy it into your app.
 *
 *     const payouts = new CoinPayouts("http://localhost:8000", () => myBackend.token());
 *     const taken = await payouts.withdraw("user123", 500, "user@okhdfcbank", { idempotencyKey });
 *     for await (const withdrawal of payouts.follow(taken.withdrawal_id)) console.log(withdrawal.status);
 *
 * If a request gets no answer, the client retries it with the same idempotency key, so it runs once. Each error
 * says what the caller must do:
 *
 *     PayoutsError
 *     ├── Refused     tell the user, or correct the request; nothing was done
 *     ├── NoAccess    correct the key or the token, then retry with the same idempotency key
 *     └── TryLater    it may have run or not: retry later with the same idempotency key
 *
 * An app's key belongs on a server. In a browser use a user's token (docs/integration.md).
 */

/** @typedef {"pending" | "processing" | "completed" | "failed" | "cancelled"} Status */

/**
 * A withdrawal that was requested: the coins are taken, the rupees will follow.
 * @typedef {object} Taken
 * @property {string} withdrawal_id
 * @property {number} amount  in coins
 * @property {number} rupees_amount
 * @property {string} upi_id
 * @property {Status} status
 * @property {number} remaining_coins
 * @property {string} created_at
 */

/**
 * The current state of a withdrawal. Show the user `status_message`, `expected_by`, `failure_reason`.
 * @typedef {object} Withdrawal
 * @property {string} id
 * @property {number} amount  in coins
 * @property {number} rupees_amount
 * @property {string} upi_id
 * @property {Status} status
 * @property {string | null} status_reason
 * @property {string | null} status_message
 * @property {string | null} expected_by
 * @property {string} created_at
 * @property {string | null} completed_at
 * @property {string | null} failure_reason
 * @property {string | null} utr  the bank's reference of the payment
 * @property {string | null} admin_notes
 * @property {string} [user_id]
 */

/** @typedef {{withdrawal_id: string, status: Status, refunded_coins: number, remaining_coins: number}} Cancelled */
/** @typedef {{user_id: string, available_coins: number, lifetime_coins: number}} Wallet */
/**
 * @typedef {{user_id: string, coins: number, reference: string, transaction_id: number, available_coins: number,
 *   lifetime_coins: number}} Credited
 */

/** A response's JSON: `success`, and the fields of its kind. @typedef {Record<string, any>} Told */

/** @type {ReadonlySet<string>} */
export const FINAL = new Set(["completed", "failed", "cancelled"]);

const TIMEOUT_MS = 15_000; // the API itself waits up to 6 s for its database
const MAX_TRIES = 6;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8_000; // all waits of six attempts together take at most 15 s
const PATIENCE_MS = 10_000; // if the server asks for a longer wait, the caller retries later
const FOLLOW_MS = 500;
const FOLLOW_MAX_MS = 30_000;
const NOT_YET = new Set(["idempotency_key_running", "limit_moved"]); // refusals that may pass on a retry

/**
 * An error that the caller must act on. `code` is for programs, `error` and `details` are sentences, `extra` has
 * the response's other fields (`available_coins`, `min_amount`, …). `status` is 0 if there was no response.
 */
export class PayoutsError extends Error {
  /** @param {number} status  @param {Told} told  @param {ErrorOptions} [options] */
  constructor(status, told, options) {
    const { success: _, error = "", details = "", code = "", request_id = null, ...extra } = told;
    super(details ? `${error}: ${details}` : error, options);
    this.name = this.constructor.name;
    this.status = status;
    /** @type {string} */ this.error = error;
    /** @type {string} */ this.details = details;
    /** @type {string} */ this.code = code;
    /** @type {string | null} */ this.requestId = request_id;
    this.extra = extra;
  }
}

/** Tell the user, or correct the request. Nothing was done, and the same request would be refused again. */
export class Refused extends PayoutsError {}

/** Correct the key or the token (401), or its scopes (403); then retry with the same idempotency key. */
export class NoAccess extends PayoutsError {}

/** Retry later with the same idempotency key: it may have run, and it does not run twice. */
export class TryLater extends PayoutsError {
  /** How long the server asked for, in milliseconds. @type {number | null} */
  retryAfterMs = null;
}

/**
 * Return a new idempotency key. Store it with the user's request before the first call.
 * (`crypto.randomUUID` does not exist in pages served over plain HTTP.)
 * @returns {string}
 */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The API, with an app's key or a user's token. Every method throws Refused, NoAccess and TryLater. */
export class CoinPayouts {
  #url;
  #token;
  #maxTries;

  /**
   * @param {string} url  the API's URL
   * @param {string | ((isRefused: boolean) => string | Promise<string>)} token  an app's key, or a function that
   *   returns a user's token. It is called before each request, with `true` if the last token was refused: then
   *   return a new one
   * @param {{maxTries?: number}} [options]
   */
  constructor(url, token, { maxTries = MAX_TRIES } = {}) {
    this.#url = `${url.replace(/\/+$/, "")}/api/razorpay/`;
    this.#token = typeof token === "string" ? () => token : token;
    this.#maxTries = maxTries;
  }

  /**
   * Request a withdrawal to a UPI id. A repeated key returns the same withdrawal, not a second one.
   * @param {string} userId  @param {number} amount  in coins  @param {string} upiId
   * @param {{idempotencyKey: string}} options
   * @returns {Promise<Taken>}
   */
  async withdraw(userId, amount, upiId, { idempotencyKey }) {
    if (!idempotencyKey) throw new TypeError("withdraw needs an idempotencyKey: create it with newKey() and store it");
    const body = { user_id: userId, amount, upi_id: upiId };
    return (await this.#post("withdraw/", body, idempotencyKey)).data;
  }

  /**
   * Cancel a pending withdrawal; the coins come back.
   * @param {string} withdrawalId  @param {string} [reason]
   * @returns {Promise<Cancelled>}
   */
  async cancel(withdrawalId, reason) {
    return (await this.#post("withdraw/cancel/", { withdrawal_id: withdrawalId, reason }, newKey())).data;
  }

  /**
   * Return one withdrawal.
   * @param {string} withdrawalId
   * @returns {Promise<Withdrawal>}
   */
  async status(withdrawalId) {
    return (await this.#get("withdraw/status/", { withdrawal_id: withdrawalId })).data;
  }

  /**
   * Yield all withdrawals of a user, newest first, page by page.
   * @param {string} userId  @param {{status?: Status, pageSize?: number}} [options]
   * @returns {AsyncGenerator<Withdrawal, void>}
   */
  async *history(userId, { status, pageSize = 100 } = {}) {
    let cursor;
    do {
      const page = await this.historyPage(userId, { status, limit: pageSize, cursor });
      yield* page.withdrawals;
      cursor = page.next;
    } while (cursor);
  }

  /**
   * Return one page of a user's withdrawals, newest first; `next` is the cursor of the next page.
   * @param {string} userId  @param {{status?: Status, limit?: number, cursor?: string}} [options]
   * @returns {Promise<{withdrawals: Withdrawal[], next: string | undefined}>}
   */
  async historyPage(userId, { status, limit, cursor } = {}) {
    const page = await this.#get("withdraw/history/", { user_id: userId, status, limit, cursor });
    return { withdrawals: page.data, next: page.next_cursor ?? undefined };
  }

  /**
   * Yield the withdrawal now and after each change, until it ends or `seconds` have passed.
   * For scripts. On a server use webhooks, because a bank may take days.
   * @param {string} withdrawalId  @param {{seconds?: number}} [options]
   * @returns {AsyncGenerator<Withdrawal, void>}
   */
  async *follow(withdrawalId, { seconds = 300 } = {}) {
    const until = Date.now() + seconds * 1000;
    let [wait, last] = [FOLLOW_MS, ""];
    while (true) {
      const now = await this.status(withdrawalId);
      const state = `${now.status} ${now.status_reason}`;
      if (state !== last) {
        yield now;
        [wait, last] = [FOLLOW_MS, state];
      }
      if (FINAL.has(now.status) || Date.now() + wait > until) return;
      await sleep(wait);
      wait = Math.min(wait * 1.5, FOLLOW_MAX_MS);
    }
  }

  /**
   * Credit coins, once per reference, which says what they are for, such as `quiz-42`. Needs an app's key.
   * @param {string} userId  @param {number} coins  @param {{reference: string, reason?: string}} options
   * @returns {Promise<Credited>}
   */
  async credit(userId, coins, { reference, reason }) {
    return (await this.#post("wallet/credit/", { user_id: userId, coins, reference, reason })).data;
  }

  /**
   * Return a user's wallet.
   * @param {string} userId
   * @returns {Promise<Wallet>}
   */
  async wallet(userId) {
    return (await this.#get("wallet/", { user_id: userId })).data;
  }

  // --- HTTP

  /** @param {string} path  @param {Record<string, string | number | undefined>} query */
  #get(path, query) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined);
    return this.#ask(`${path}?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`, {});
  }

  /** @param {string} path  @param {object} body  @param {string} [key] */
  #post(path, body, key) {
    /** @type {Record<string, string>} */
    const headers = { "Content-Type": "application/json" };
    if (key) headers["Idempotency-Key"] = key;
    return this.#ask(path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  /**
   * Send the request; without an answer, retry it unchanged, with the same idempotency key.
   * @param {string} path  @param {RequestInit} request
   * @returns {Promise<Told>}
   */
  async #ask(path, request) {
    let isRefused = false;
    for (let tries = 1; ; tries++) {
      try {
        return await this.#once(path, request, isRefused);
      } catch (error) {
        if (error instanceof NoAccess && error.status === 401 && !isRefused) {
          isRefused = true; // the token may just have expired: retry once with a new one
          continue;
        }
        if (!(error instanceof TryLater) || tries >= this.#maxTries) throw error;
        const wait = waitMs(tries, error.retryAfterMs);
        if (wait > PATIENCE_MS) throw error;
        await sleep(wait);
      }
    }
  }

  /** @param {string} path  @param {RequestInit} request  @param {boolean} isRefused */
  async #once(path, request, isRefused) {
    const headers = { ...request.headers, Authorization: `Bearer ${await this.#token(isRefused)}` };
    // A TypeError here (a key with a line break, a URL without `https://`) is a mistake, not a lost response.
    const asked = new Request(this.#url + path, { ...request, headers, redirect: "error" });
    let answer, text;
    try {
      answer = await fetch(asked, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      text = await answer.text();
    } catch (error) {
      const words = { error: "No answer", details: String(error), code: "no_answer" };
      throw new TryLater(0, words, { cause: error });
    }
    const told = parsed(text);
    if (answer.ok && told.success === true) return told;
    throw failure(answer, told);
  }
}

/** @param {Response} answer  @param {Told} told */
function failure(answer, told) {
  const { status } = answer;
  if (told.success !== false || !("code" in told)) {
    // It is not from the API: a proxy answered, or a network's sign-in page.
    return new TryLater(status, { error: "Not a response from the API", details: `HTTP ${status}`, code: "not_ours" });
  }
  if (status === 401 || status === 403) return new NoAccess(status, told);
  if (status !== 429 && status < 500 && !NOT_YET.has(told.code)) return new Refused(status, told);
  const error = new TryLater(status, told);
  const seconds = answer.headers.get("Retry-After");
  if (seconds && /^\d+$/.test(seconds)) error.retryAfterMs = Number(seconds) * 1000;
  return error;
}

/** Return the wait: doubled each time, with jitter so that clients do not all return at once. */
/** @param {number} tries  @param {number | null} retryAfterMs */
function waitMs(tries, retryAfterMs) {
  const longest = Math.min(FIRST_WAIT_MS * 2 ** (tries - 1), LONGEST_WAIT_MS);
  const chance = (longest * (1 + Math.random())) / 2;
  return retryAfterMs === null ? chance : retryAfterMs + chance / 4;
}

/** @param {string} text  @returns {Told} */
function parsed(text) {
  try {
    const told = JSON.parse(text);
    return typeof told === "object" && told !== null ? told : {};
  } catch {
    return {};
  }
}

/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
