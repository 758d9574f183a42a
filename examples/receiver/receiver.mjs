#!/usr/bin/env node
/**
 * Receives the webhooks of Coin Payouts, with nothing but Node 20.
 *
 *     PAYOUTS_WEBHOOK_SECRETS=whsec_… receiver.mjs [PORT] [FILE]      by default 9000 and withdrawals.jsonl
 *
 * Check, keep, answer; think later. Events come twice and out of order, so it keeps the highest `sequence` of each
 * withdrawal and passes over the rest. While the secret changes, give both, old and new, with a comma between.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";

const SECRET = /^whsec_[A-Za-z0-9+/]{32,}=*$/; // 24 bytes or more: an empty secret is known to everybody
const TOLERANCE_SECONDS = 300;
const MAX_BODY_BYTES = 64 * 1024;

const [port = "9000", file = "withdrawals.jsonl"] = process.argv.slice(2);
const secrets = (process.env.PAYOUTS_WEBHOOK_SECRETS ?? "").split(",").map((secret) => secret.trim());
if (!secrets.every((secret) => SECRET.test(secret))) {
  console.error("Set PAYOUTS_WEBHOOK_SECRETS: `payouts endpoints add URL` shows the secret, once.");
  process.exit(1);
}
const keys = secrets.map((secret) => Buffer.from(secret.slice("whsec_".length), "base64"));

/** The highest sequence of each withdrawal. A real app has a table. @type {Map<string, number>} */
const sequences = new Map();
/** @param {{withdrawal_id: string, sequence: number}} data */
const note = ({ withdrawal_id, sequence }) => sequences.set(withdrawal_id, sequence);
if (existsSync(file)) {
  for (const line of readFileSync(file, "utf8").split("\n").filter(Boolean)) note(JSON.parse(line));
}

/** @param {{withdrawal_id: string, sequence: number}} data */
const isNews = ({ withdrawal_id, sequence }) => sequence > (sequences.get(withdrawal_id) ?? 0);

/**
 * Whether one of our secrets signed these bytes, within five minutes of now.
 * @param {Buffer} body  @param {import("node:http").IncomingHttpHeaders} headers
 */
function isSigned(body, headers) {
  const [id, timestamp, signatures] = ["id", "timestamp", "signature"].map((name) => headers[`webhook-${name}`]);
  if (!id || !timestamp || !signatures) return false;
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= TOLERANCE_SECONDS)) return false;
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  const right = keys.map((key) => createHmac("sha256", key).update(signed).digest());
  const given = String(signatures).split(" ").filter((one) => one.startsWith("v1,"));
  const bytes = given.map((one) => Buffer.from(one.slice("v1,".length), "base64"));
  return bytes.some((one) => right.some((digest) => one.length === digest.length && timingSafeEqual(one, digest)));
}

/** What an event is answered with. @param {Buffer} body  @param {import("node:http").IncomingHttpHeaders} headers */
function receive(body, headers) {
  if (!isSigned(body, headers)) return 400;
  const event = JSON.parse(body.toString());
  if (event.type.startsWith("withdrawal.") && isNews(event.data)) {
    appendFileSync(file, `${JSON.stringify(event.data)}\n`);
    note(event.data);
    // Here an app puts its own work into its queue: a push message, a line in the app.
    console.log(`${event.type} ${event.data.withdrawal_id} ${event.data.sequence}`);
  }
  return 204; // also for repeats and for types that we do not know
}

/** The request's whole body; null when it is too large. @param {import("node:http").IncomingMessage} request */
async function bodyOf(request) {
  const parts = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > MAX_BODY_BYTES) return null;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** The status to answer with. @param {import("node:http").IncomingMessage} request */
async function answer(request) {
  if (request.method !== "POST" || request.url !== "/payouts/") return 404;
  const body = await bodyOf(request);
  return body === null ? 413 : receive(body, request.headers);
}

const server = createServer(async (request, response) => {
  // Not kept, so not a 2xx: it comes again.
  const status = await answer(request).catch(() => 500);
  response.writeHead(status).end();
});
server.listen(Number(port), "127.0.0.1");
