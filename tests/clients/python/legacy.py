# SPDX-License-Identifier: Apache-2.0
"""A buyer that knows version 1 of x402 only: legacy.py KEY"""

import asyncio
import sys

from eth_account import Account
from x402.clients.httpx import x402HttpxClient

from lines import serve

account = Account.from_key(sys.argv[1])


async def request(url, method, body):
    # The client pays once in its life.
    async with x402HttpxClient(account, timeout=60) as http:
        response = await http.request(method, url, content=body)
        return response.status_code, response.headers, response.text


serve(lambda *arguments: asyncio.run(request(*arguments)))
