// Sells GET /report with npm x402-express, which speaks version 1. Reads its terms as one line of JSON from standard
// input, writes a line {"url"} when it listens, and ends when standard input does.

import express from "express";
import { createInterface } from "node:readline";
import { paymentMiddleware } from "x402-express";

const lines = createInterface({ input: process.stdin });
lines.on("close", () => process.exit(0));
const terms = JSON.parse(await new Promise((resolve) => lines.once("line", resolve)));

const { facilitatorUrl, network, payTo, price } = terms;
const routes = { "GET /report": { price, network, config: { description: "A report" } } };

let served = 0;
const app = express();
app.get("/served", (_request, response) => response.json(served));
app.use(paymentMiddleware(payTo, routes, { url: facilitatorUrl }));
app.get("/report", (_request, response) => {
  served += 1;
  response.json({ report: "fair and warm" });
});
const listening = app.listen(0, "127.0.0.1", () => {
  process.stdout.write(JSON.stringify({ url: `http://127.0.0.1:${listening.address().port}` }) + "\n");
});
