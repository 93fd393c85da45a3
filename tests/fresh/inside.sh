#!/bin/bash
# Runs "make up" twice in a root folder: $1. Called in a new mount and pid namespace (see test_make_up.py).
set -euo pipefail
root=$1
mount --make-rprivate /
# a mount point of its own: libvirt's daemon gets a mount namespace, which "/" has to be one for
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"

inside() { chroot "$root" /bin/bash -c "cd /haneul && $1"; }
list='eval $(.venv/bin/haneul env) && .venv/bin/openstack server list -f value -c Name -c Status | tr " " "|" | sed "s/|/ | /"'

inside 'make up'
inside "$list"
inside 'make down'
echo '=== again'
inside 'make up'
inside "$list"
inside 'make status; make down'
