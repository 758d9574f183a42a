/** Calls one method of the JavaScript client and prints the result as JSON, for tests/examples/clients.py. */
import { CoinPayouts } from "../../examples/js/coin-payouts.mjs";

const { url, key, maxTries, method, args } = JSON.parse(process.argv[2]);
try {
  const client = new CoinPayouts(url, key, { maxTries });
  let result = client[method](...args);
  if (result[Symbol.asyncIterator]) {
    const all = [];
    for await (const item of result) all.push(item);
    result = all;
  }
  console.log(JSON.stringify({ result: await result }));
} catch (error) {
  const { name, message, code, status, extra, retryAfterMs } = error;
  console.log(JSON.stringify({ error: { name, message, code, status, extra, retryAfterMs } }));
}
