/**
 * A minimal backend for the page: it serves the built page and gives its user a token.
 *
 *     USER_TOKEN_SECRET=… USER_TOKEN_AUDIENCE=… USER_TOKEN_ISSUER=… PAYOUTS_URL=http://localhost:8000 node serve.mjs
 *
 * Everyone who opens the page is DEMO_USER. A real backend takes the user from its own session; nothing else differs.
 * It listens only on this machine.
 */
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const TOKEN_SECONDS = 300; // short, because a token cannot be revoked
const FILES = {
  "/": ["public/index.html", "text/html; charset=utf-8"],
  "/main.js": ["dist/main.js", "text/javascript; charset=utf-8"],
  "/style.css": ["dist/style.css", "text/css; charset=utf-8"],
};

const { PAYOUTS_URL = "http://localhost:8000", PORT = "5173", DEMO_USER = "user123" } = process.env;
const [secret, audience, issuer] = ["SECRET", "AUDIENCE", "ISSUER"].map((name) => needed(`USER_TOKEN_${name}`));

/** @param {string} name  @returns {string} */
function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is missing: set it to the API's value`);
  return value;
}

/** Return a token (RFC 7519, HS256) that lets its bearer act for this user only. @param {string} userId */
function tokenFor(userId) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: userId, aud: audience, iss: issuer, iat: now, exp: now + TOKEN_SECONDS };
  const parts = [{ alg: "HS256", typ: "JWT" }, claims].map((part) => base64url(JSON.stringify(part)));
  const signature = createHmac("sha256", secret).update(parts.join(".")).digest("base64url");
  return [...parts, signature].join(".");
}

/** @param {string} text */
const base64url = (text) => Buffer.from(text).toString("base64url");

const SAFE = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "Content-Security-Policy":
    `default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ${PAYOUTS_URL}; ` +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};

/** @param {import("node:http").IncomingMessage} request  @returns {Promise<[number, string, string | Buffer]>} */
async function answer({ method, url }) {
  if (method === "POST" && url === "/session") {
    const session = { api: PAYOUTS_URL, user_id: DEMO_USER, token: tokenFor(DEMO_USER), expires_in: TOKEN_SECONDS };
    return [200, "application/json", JSON.stringify(session)];
  }
  const found = method === "GET" && Object.entries(FILES).find(([path]) => path === url);
  if (!found) return [404, "text/plain", "Not found.\n"];
  const [, [name, type]] = found;
  return [200, type, await readFile(new URL(name, import.meta.url))];
}

const server = createServer(async (request, response) => {
  const failed = /** @type {[number, string, string]} */ ([500, "text/plain", "Build the page first: npm run build\n"]);
  const [status, type, body] = await answer(request).catch(() => failed);
  response.writeHead(status, { ...SAFE, "Content-Type": type }).end(body);
});
server.listen(Number(PORT), "localhost", () => console.log(`http://localhost:${PORT}`));
