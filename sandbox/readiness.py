"""Checks whether a part of the stack is ready."""

import http.client
from urllib.parse import urlsplit

import psutil
import redis

from sandbox.processes import Part

CHECK_SECONDS = 2.0  # timeout of one check; a slower part is not ready


def status(url: str) -> int:
    """The HTTP status of a GET. Raises OSError if there is no response."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=CHECK_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer from {url}") from error
    finally:
        connection.close()


def is_consuming(worker: Part, broker_url: str) -> bool:
    """True if one of the worker's own connections waits for messages (BRPOP) at the broker.

    The log's "ready" depends on the log level, and a control ping is a broadcast that other workers answer.
    """
    try:
        ports = {connection.laddr.port for connection in psutil.Process(worker.pid).net_connections("tcp")}
        with redis.Redis.from_url(broker_url, socket_timeout=CHECK_SECONDS) as client:
            peers = [(peer["addr"], peer["cmd"]) for peer in client.client_list()]
    except (redis.RedisError, psutil.Error):
        return False
    return any(cmd == "brpop" and int(address.rpartition(":")[2]) in ports for address, cmd in peers)
