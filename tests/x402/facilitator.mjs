// SPDX-License-Identifier: Apache-2.0
//
// The reference facilitator on one chain: node facilitator.mjs HOST PORT RPC CHAIN_ID KEY
// Prints "ready" when it serves. Each request is one line of JSON on standard output.

import { createServer } from "node:http";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { createWalletClient, defineChain, http, publicActions } from "viem";
import { nonceManager, privateKeyToAccount } from "viem/accounts";

const [host, port, rpc, chainId, key] = process.argv.slice(2);
const chain = defineChain({
  id: Number(chainId),
  name: "test",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [rpc] } },
});
// Without a nonce manager all but one of several settlements at once fail.
const account = privateKeyToAccount(key, { nonceManager });
const client = createWalletClient({ account, chain, transport: http(rpc), pollingInterval: 50 }).extend(publicActions);
const signer = toFacilitatorEvmSigner(
  {
    address: account.address,
    getCode: (request) => client.getCode(request),
    readContract: (request) => client.readContract(request),
    verifyTypedData: (request) => client.verifyTypedData(request),
    writeContract: (request) => client.writeContract(request),
    sendTransaction: (request) => client.sendTransaction(request),
    waitForTransactionReceipt: (request) => client.waitForTransactionReceipt(request),
  },
  { confirmationTimeoutMs: 20000 },
);
const facilitator = registerExactEvmScheme(new x402Facilitator(), { signer, networks: `eip155:${chainId}` });

async function answer(path, body) {
  switch (path) {
    case "/supported":
      return facilitator.getSupported();
    case "/verify":
      return facilitator.verify(body.paymentPayload, body.paymentRequirements);
    case "/settle":
      return facilitator.settle(body.paymentPayload, body.paymentRequirements);
    default:
      return undefined;
  }
}

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  let status = 200;
  let body, result;
  try {
    body = text ? JSON.parse(text) : undefined;
    result = await answer(request.url, body);
    if (result === undefined) [status, result] = [404, {}];
  } catch (error) {
    [status, result] = [500, { error: String(error) }];
  }
  console.log(JSON.stringify({ path: request.url, status, result, payment: body?.paymentPayload }));
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(result));
}).listen(Number(port), host, () => console.log("ready"));
