// SPDX-License-Identifier: Apache-2.0
//
// Requests and answers of a buyer, one line of JSON each, as tests/x402/buyer.mjs has them.

import { createInterface } from "node:readline";

// Carries out each request {url, method?, body?} with "buy", which returns {status, fields, body}.
export async function serve(buy) {
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = await buy(JSON.parse(line)).then(withReceipt).catch((error) => ({ error: String(error) }));
    console.log(JSON.stringify(answer));
  }
}

function withReceipt(answer) {
  const receipt = answer.fields["payment-response"] ?? answer.fields["x-payment-response"];
  return { ...answer, receipt: receipt && JSON.parse(Buffer.from(receipt, "base64")) };
}
