"""Runs inside the private mount namespace: binds libvirt's folders and starts its daemons.

Started by ``compute.drivers.libvirt.daemon`` as a script; needs nothing but the
standard library.  Arguments: virtlogd's pid file, libvirtd's, then SOURCE:TARGET pairs.
"""

from __future__ import annotations

import subprocess
import sys


def main(arguments: list[str]) -> None:
    virtlogd_pid, libvirtd_pid, *binds = arguments
    for bind in binds:
        source, _, target = bind.rpartition(":")
        subprocess.run(["mount", "--bind", source, target], check=True)
    for program, pid_file in (("virtlogd", virtlogd_pid), ("libvirtd", libvirtd_pid)):
        subprocess.run([program, "--daemon", "--pid-file", pid_file], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
