#!/bin/sh
# First process of the tiny guest: file systems, drivers, then background work, then busybox init.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
echo "GUEST-INIT $(cut -d' ' -f1 /proc/uptime) $(uname -r)" > /dev/console
while read -r module; do modprobe "$module" 2> /dev/null; done < /etc/modules
ip link set lo up
hostname tiny
# What should outlive a reboot (ssh host keys, the count of boots) lies on the second partition.
device=$(findfs LABEL=haneul-data 2> /dev/null)
if [ -n "$device" ] && mount "$device" /data; then
    boots=$(($(cat /data/boots 2> /dev/null || echo 0) + 1))
    echo "$boots" > /data/boots
    sync
    echo "GUEST-BOOTS $boots" > /dev/console
fi
mkdir -p /data/dropbear
ln -sfn /data/dropbear /etc/dropbear
acpid -c /etc/acpi 2> /dev/null
/etc/haneul/network &
/etc/haneul/metadata &
# Keys only: there is no password to guess.
dropbear -R -s 2> /run/dropbear.log
exec init
