// Buys one URL with npm @x402/fetch. Reads {"url", "key"} as a line of JSON from standard input; writes what came back.

import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { privateKeyToAccount } from "viem/accounts";
import { readFileSync } from "node:fs";

const { url, key } = JSON.parse(readFileSync(0, "utf8"));
const pay = wrapFetchWithPaymentFromConfig(fetch, {
  schemes: [{ network: "eip155:*", client: new ExactEvmScheme(privateKeyToAccount(key)) }],
  // Its own limits know the tokens of public networks only.
  spendControls: false,
});
const answer = await pay(url);
const settled = answer.headers.get("payment-response") ?? "";
process.stdout.write(JSON.stringify({ status: answer.status, settled, body: await answer.text() }) + "\n");
