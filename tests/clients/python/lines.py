# SPDX-License-Identifier: Apache-2.0
"""Requests and answers of a buyer, one line of JSON each, as tests/x402/buyer.mjs has them."""

import base64
import json
import sys


def serve(buy):
    """Carries out each request with `buy(url, method, body)`, which returns status, fields and text."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(*buy(request["url"], request.get("method", "GET"), request.get("body")))
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


def _answer(status, fields, body):
    fields = {name.lower(): value for name, value in fields.items()}
    receipt = fields.get("payment-response") or fields.get("x-payment-response")
    answer = {"status": status, "fields": fields, "body": body}
    if receipt:
        answer["receipt"] = json.loads(base64.b64decode(receipt))
    return answer
