"""`python -m sandbox.razorpayx`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from pathlib import Path

from aiohttp import web

from . import app, config, faults

# Connections that are still open at shutdown are held or idle, so no client waits for a response.
SHUTDOWN_SECONDS = 0.2
log = logging.getLogger("sandbox.razorpayx")


def _write_ready_file(path: Path, url: str) -> None:
    """Write the file atomically, because a reader polls for it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    partial.replace(path)


async def serve(settings: config.Config) -> None:
    """Listen, write the ready file, and wait for a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    application = app.build(settings)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        await site.start()
        host, port = runner.addresses[0][:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if settings.ready_file:
            _write_ready_file(Path(settings.ready_file), url)
        log.info("simulator_listening %s", url)
        await stop.wait()
    finally:
        application[faults.STOPPING].set()
        await runner.cleanup()


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve(config.load()))


if __name__ == "__main__":
    main()
