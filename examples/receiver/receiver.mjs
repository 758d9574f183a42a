#!/usr/bin/env node
/**
 * Receives webhooks from Coin Payouts, with Node 20 and no packages.
 *
 *     PAYOUTS_WEBHOOK_SECRETS=whsec_… receiver.mjs [PORT] [FILE]      default: 9000 and withdrawals.jsonl
 *
 * It verifies, stores, answers, and leaves the work for later. Events may arrive twice and out of order, so it keeps
 * the highest `sequence` of each withdrawal and ignores the rest. While the secret changes, set both secrets, separated
 * by a comma.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";

const SECRET = /^whsec_[A-Za-z0-9+/]{32,}=*$/; // at least 24 bytes: everyone knows an empty secret
const TOLERANCE_SECONDS = 300;
const MAX_BODY_BYTES = 64 * 1024;

const [port = "9000", file = "withdrawals.jsonl"] = process.argv.slice(2);
const secrets = (process.env.PAYOUTS_WEBHOOK_SECRETS ?? "").split(",").map((secret) => secret.trim());
if (!secrets.every((secret) => SECRET.test(secret))) {
  console.error("Set PAYOUTS_WEBHOOK_SECRETS: `payouts endpoints add URL` shows the secret, once.");
  process.exit(1);
}
const keys = secrets.map((secret) => Buffer.from(secret.slice("whsec_".length), "base64"));

/** The highest sequence of each withdrawal. Use a table in your app. @type {Map<string, number>} */
const sequences = new Map();
/** @param {{withdrawal_id: string, sequence: number}} data */
const note = ({ withdrawal_id, sequence }) => sequences.set(withdrawal_id, sequence);
if (existsSync(file)) {
  for (const line of readFileSync(file, "utf8").split("\n").filter(Boolean)) note(JSON.parse(line));
}

/** @param {{withdrawal_id: string, sequence: number}} data */
const isNews = ({ withdrawal_id, sequence }) => sequence > (sequences.get(withdrawal_id) ?? 0);

/**
 * True if one of our secrets signed these bytes, within five minutes of now.
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

/** Return the status that answers an event. @param {Buffer} body  @param {import("node:http").IncomingHttpHeaders} headers */
function receive(body, headers) {
  if (!isSigned(body, headers)) return 400;
  const event = JSON.parse(body.toString());
  if (event.type.startsWith("withdrawal.") && isNews(event.data)) {
    appendFileSync(file, `${JSON.stringify(event.data)}\n`);
    note(event.data);
    // Here your app queues its own work, such as a push message.
    console.log(`${event.type} ${event.data.withdrawal_id} ${event.data.sequence}`);
  }
  return 204; // also for duplicates and unknown types
}

/** Return the whole body; null if it is too large. @param {import("node:http").IncomingMessage} request */
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

/** Return the status of the response. @param {import("node:http").IncomingMessage} request */
async function answer(request) {
  if (request.method !== "POST" || request.url !== "/payouts/") return 404;
  const body = await bodyOf(request);
  return body === null ? 413 : receive(body, request.headers);
}

const server = createServer(async (request, response) => {
  // An event that was not stored must not get a 2xx: it is then sent again.
  const status = await answer(request).catch(() => 500);
  response.writeHead(status).end();
});
server.listen(Number(port), "127.0.0.1");
