// SPDX-License-Identifier: Apache-2.0
//
// Prints what the reference implementation writes and reads, for src/gate/wire/golden.json, to which the unit tests of
// src/gate/wire.rs hold the gate. Run it where the packages are installed: npm ci && node golden.mjs. Nonces are random, so every
// run prints other payments.

import {
  decodePaymentRequiredHeader,
  decodePaymentResponseHeader,
  encodePaymentRequiredHeader,
  encodePaymentResponseHeader,
  encodePaymentSignatureHeader,
} from "@x402/core/http";
import { registerExactEvmScheme } from "@x402/evm/exact/client";
import { PAYMENT_IDENTIFIER, declarePaymentIdentifierExtension } from "@x402/extensions/payment-identifier";
import { x402Client, x402HTTPClient } from "@x402/fetch";
import { readFileSync } from "node:fs";
import { privateKeyToAccount } from "viem/accounts";

const account = privateKeyToAccount("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
const client = registerExactEvmScheme(new x402Client(), { signer: account });
const http = new x402HTTPClient(client);

const terms = {
  scheme: "exact",
  network: "eip155:84532",
  amount: "2000",
  asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
  payTo: "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
  maxTimeoutSeconds: 300,
  extra: { name: "USDC", version: "2" },
};
const resource = { url: "https://shop.example/services/chat/v1", description: "chat", mimeType: "application/json" };
const extensions = { [PAYMENT_IDENTIFIER]: declarePaymentIdentifierExtension() };
const required = { x402Version: 2, error: "payment_required", resource, accepts: [terms], extensions };
const { amount, ...shared } = terms;
const required1 = {
  x402Version: 1,
  error: "payment_required",
  accepts: [
    { ...shared, network: "base-sepolia", maxAmountRequired: amount, resource: resource.url, description: "chat", mimeType: "application/json" },
  ],
};

async function payment(required) {
  const payload = await client.createPaymentPayload(required);
  return { fields: http.encodePaymentSignatureHeader(payload), payload };
}

const receipt = {
  success: true,
  payer: account.address,
  transaction: `0x${"12".repeat(32)}`,
  network: "eip155:84532",
};
const header = encodePaymentRequiredHeader(required);
const response = encodePaymentResponseHeader(receipt);
const version = JSON.parse(readFileSync(new URL("node_modules/@x402/core/package.json", import.meta.url))).version;
console.log(
  JSON.stringify(
    {
      writer: `@x402/core ${version}`,
      payer: account.address,
      required: { header, json: decodePaymentRequiredHeader(header) },
      payments: [await payment(required), await payment(required1)],
      receipt: { header: response, json: decodePaymentResponseHeader(response) },
    },
    null,
    2,
  ),
);
