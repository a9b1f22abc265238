// Sells GET /report with npm @x402/hono. Reads its terms as one line of JSON from standard input, writes a line
// {"url"} when it listens, and ends when standard input does.

import { serve } from "@hono/node-server";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/hono";
import { Hono } from "hono";
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

const app = new Hono();
app.use(paymentMiddleware(routes, server));
app.get("/report", (context) => context.json({ report: "fair and warm" }));
serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => {
  process.stdout.write(JSON.stringify({ url: `http://127.0.0.1:${port}` }) + "\n");
});
