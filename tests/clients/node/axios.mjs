// SPDX-License-Identifier: Apache-2.0
//
// A buyer with axios: node axios.mjs KEY

import { wrapAxiosWithPayment, x402Client } from "@x402/axios";
import { registerExactEvmScheme } from "@x402/evm/exact/client";
import axios from "axios";
import { privateKeyToAccount } from "viem/accounts";
import { serve } from "./lines.mjs";

const [key] = process.argv.slice(2);
const client = registerExactEvmScheme(new x402Client(), { signer: privateKeyToAccount(key) });
const http = wrapAxiosWithPayment(axios.create({ responseType: "text", transformResponse: (text) => text }), client);

await serve(async ({ url, method, body }) => {
  // Axios throws what is not a success.
  const response = await http.request({ url, method, data: body }).catch((error) => error.response ?? Promise.reject(error));
  return { status: response.status, fields: { ...response.headers }, body: response.data };
});
