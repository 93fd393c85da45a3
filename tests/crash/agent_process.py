"""A compute agent in a process of its own, which kills itself where a test has armed it to.

    python -m tests.crash.agent_process CONFIG.json

CONFIG: {"options": {"group.name": value}, "faults": folder or null,
"network", "image", "volume": URLs of these APIs or absent, "forbidden": modules that must not be imported}.  It writes one line "ready" when
it hears, and "forbidden: [...]" when it ends (SIGTERM).
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    from compute import agent, service
    from compute.drivers import simulated
    from core import config
    from core.messaging import Messaging
    from lifecycle.engine import Engine

    if settings.get("faults"):
        from tests.crash.faults import Faults

        faults = Faults(Path(settings["faults"]))
        agent.ACTIONS = faults.wrap(agent.ACTIONS)
        Engine.probe = staticmethod(faults.probe)  # type: ignore[assignment]
    conf = config.load()
    config.register(conf, [*agent.list_opts(), *simulated.list_opts()])
    Messaging(conf, "local:///").close()  # registers transport_url
    for name, value in settings["options"].items():
        config.override(conf, name, value)
    if settings.get("network"):
        from tests.stack.credentials import credentials

        credentials(conf, settings["network"], settings.get("image"))
    if settings.get("volume"):
        from tests.stack.credentials import volume_endpoint

        volume_endpoint(conf, settings["volume"])
    role = service.make_role(conf)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    role.start()
    print("ready", flush=True)
    stop.wait()
    role.stop()
    print(f"database options: {'database' in conf}", flush=True)
    found = sorted(set(settings.get("forbidden", ())) & {name.partition(".")[0] for name in sys.modules})
    print(f"forbidden: {found}", flush=True)


if __name__ == "__main__":
    main()
