// SPDX-License-Identifier: Apache-2.0
//
// A buyer with the reference client: node buyer.mjs KEY, then one request per line of standard input as JSON
// {url, method?, body?, patience?, messages?, identifier?}. Answers each with one line: {status, fields, body, receipt?} or {error}.
// For "patience" seconds it sends a request again, with the same payment, while there is no answer or one that asks for that.
// With "identifier" it gives the request that one, by the extension payment-identifier. With "messages" it opens a websocket, sends them and waits for as many; the body is the JSON array of what it received.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { registerExactEvmScheme } from "@x402/evm/exact/client";
import { appendPaymentIdentifierToExtensions } from "@x402/extensions/payment-identifier";
import { decodePaymentResponseHeader, wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { WebSocket } from "ws";

const [key] = process.argv.slice(2);
const signer = privateKeyToAccount(key);

function clientFor(identifier) {
  const client = registerExactEvmScheme(new x402Client(), { signer });
  if (!identifier) return client;
  return client.onBeforePaymentCreation(async ({ paymentRequired }) => {
    appendPaymentIdentifierToExtensions(paymentRequired.extensions, identifier);
  });
}

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

function overWebSocket(messages) {
  return (input, init) =>
    new Promise((resolve, reject) => {
      const request = new Request(input, init);
      const socket = new WebSocket(request.url.replace(/^http/, "ws"), { headers: Object.fromEntries(request.headers) });
      const received = [];
      let headers;
      socket.on("unexpected-response", async (_, response) => {
        const chunks = [];
        for await (const chunk of response) chunks.push(chunk);
        resolve(new Response(Buffer.concat(chunks), { status: response.statusCode, headers: response.headers }));
      });
      socket.on("upgrade", (response) => (headers = response.headers));
      socket.on("open", () => messages.forEach((message) => socket.send(message)));
      socket.on("message", (message) => {
        received.push(String(message));
        if (received.length === messages.length) socket.close();
      });
      socket.on("close", () => resolve(new Response(JSON.stringify(received), { headers })));
      socket.on("error", reject);
    });
}

async function buy({ url, method, body, patience = 0, messages, identifier }) {
  const send = messages ? overWebSocket(messages) : persistent(patience);
  const response = await wrapFetchWithPayment(send, clientFor(identifier))(url, { method, body });
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
