// Sells GET /report with npm @x402/express. Reads its terms as one line of JSON from standard input, writes a line
// {"url"} when it listens, and ends when standard input does.

import express from "express";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin });
lines.on("close", () => process.exit(0));
const terms = JSON.parse(await new Promise((resolve) => lines.once("line", resolve)));

const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: terms.facilitatorUrl })).register(
  terms.network,
  new ExactEvmScheme(),
);
const { scheme, network, payTo, price } = terms;
const routes = { "GET /report": { accepts: { scheme, network, payTo, price }, description: "A report" } };

const app = express();
app.use(paymentMiddleware(routes, server));
app.get("/report", (_request, response) => response.json({ report: "fair and warm" }));
const listening = app.listen(0, "127.0.0.1", () => {
  process.stdout.write(JSON.stringify({ url: `http://127.0.0.1:${listening.address().port}` }) + "\n");
});
