// Buys one URL with npm x402-fetch, which speaks version 1. Reads {"url", "key", "network"} as JSON from standard input;
// writes what came back.

import { readFileSync } from "node:fs";
import { createSigner, decodeXPaymentResponse, wrapFetchWithPayment } from "x402-fetch";

const { url, key, network } = JSON.parse(readFileSync(0, "utf8"));
const answer = await wrapFetchWithPayment(fetch, await createSigner(network, key))(url);
const header = answer.headers.get("x-payment-response");
const settled = header === null ? null : decodeXPaymentResponse(header);
const body = await answer.text();
process.stdout.write(JSON.stringify({ status: answer.status, settled, body }) + "\n");
