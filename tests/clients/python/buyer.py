# SPDX-License-Identifier: Apache-2.0
"""A buyer with the client for httpx or for requests: buyer.py httpx|requests KEY"""

import asyncio
import sys

from eth_account import Account
from x402 import x402Client, x402ClientSync
from x402.http.clients import x402_requests, x402HttpxClient
from x402.mechanisms.evm.exact.register import register_exact_evm_client

from lines import serve

SECONDS = 60


def httpx_buyer(account):
    client = register_exact_evm_client(x402Client(), account)

    async def request(url, method, body):
        async with x402HttpxClient(client, timeout=SECONDS) as http:
            response = await http.request(method, url, content=body)
            return response.status_code, response.headers, response.text

    return lambda *arguments: asyncio.run(request(*arguments))


def requests_buyer(account):
    session = x402_requests(register_exact_evm_client(x402ClientSync(), account))

    def request(url, method, body):
        response = session.request(method, url, data=body, timeout=SECONDS)
        return response.status_code, response.headers, response.text

    return request


library, key = sys.argv[1:]
buyers = {"httpx": httpx_buyer, "requests": requests_buyer}
serve(buyers[library](Account.from_key(key)))
