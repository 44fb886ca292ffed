// SPDX-License-Identifier: Apache-2.0
//
// A buyer that knows version 1 of x402 only: node legacy.mjs KEY

import { privateKeyToAccount } from "viem/accounts";
import { wrapFetchWithPayment } from "x402-fetch";
import { serve } from "./lines.mjs";

const [key] = process.argv.slice(2);
const account = privateKeyToAccount(key);

await serve(async ({ url, method, body }) => {
  const response = await wrapFetchWithPayment(fetch, account)(url, { method, body });
  return { status: response.status, fields: Object.fromEntries(response.headers), body: await response.text() };
});
