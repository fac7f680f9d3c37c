"""Requests over HTTP to a page of this machine, as a browser or an intruder sends them."""

from __future__ import annotations

import contextlib
import http.client


def request(
    port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for key, value in headers.items():
        connection.putheader(key, value)
    if body is not None and "Content-Length" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    # a request may be refused before all of it was sent; its answer is there nevertheless
    with contextlib.suppress(BrokenPipeError):
        connection.endheaders(body)
    response = connection.getresponse()
    text = response.read().decode("utf-8", "replace")
    connection.close()
    return response.status, text
