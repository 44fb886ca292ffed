// SPDX-License-Identifier: Apache-2.0
//
// A buyer with the reference client: node buyer.mjs KEY, then one request per line of standard input as JSON
// {url, method?, body?, patience?}. Answers each with one line: {status, fields, body, receipt?} or {error}.
// For "patience" seconds it sends a request again, with the same payment, while there is no answer or one that asks for that.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { registerExactEvmScheme } from "@x402/evm/exact/client";
import { decodePaymentResponseHeader, wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";

const [key] = process.argv.slice(2);
const client = registerExactEvmScheme(new x402Client(), { signer: privateKeyToAccount(key) });

function persistent(patience) {
  const end = Date.now() + patience * 1000;
  const isFinal = (response) => response.status < 500 && !response.headers.has("retry-after");
  return async (input, init) => {
    const request = new Request(input, init);
    for (;;) {
      const isLast = Date.now() >= end;
      try {
        const response = await fetch(request.clone());
        if (isLast || isFinal(response)) return response;
      } catch (error) {
        if (isLast) throw error;
      }
      await sleep(200);
    }
  };
}

async function buy({ url, method, body, patience = 0 }) {
  const response = await wrapFetchWithPayment(persistent(patience), client)(url, { method, body });
  const receipt = response.headers.get("payment-response");
  return {
    status: response.status,
    fields: Object.fromEntries(response.headers),
    body: await response.text(),
    receipt: receipt ? decodePaymentResponseHeader(receipt) : undefined,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await buy(JSON.parse(line)).catch((error) => ({ error: String(error) }));
  console.log(JSON.stringify(answer));
}
