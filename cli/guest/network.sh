#!/bin/sh
# Starts a DHCP client for every network card, also those plugged in later, and names new disks on
# the console. It runs in the background: a guest without a card is ready as soon as the others.
known=/run/nics
mkdir -p $known
while :; do
    for path in /sys/class/net/*; do
        nic=${path##*/}
        [ "$nic" = lo ] && continue
        [ -e $known/"$nic" ] && continue
        touch $known/"$nic"
        echo "GUEST-NIC $nic $(cat "$path"/address)" > /dev/console
        ip link set "$nic" up
        # Option 121 (routes, the metadata service's among them) comes only when it is asked for.
        udhcpc -b -S -i "$nic" -p /run/udhcpc."$nic".pid -t 10 -T 1 -A 3 -s /etc/haneul/lease -O staticroutes -O mtu > /dev/null 2>&1 &
    done
    for path in $known/*; do
        nic=${path##*/}
        [ "$nic" = '*' ] && continue
        [ -e /sys/class/net/"$nic" ] && continue
        rm -f "$path"
        echo "GUEST-NIC-GONE $nic" > /dev/console
    done
    ls /sys/block | grep -vE '^(loop|ram)' > /run/disks.now
    if ! cmp -s /run/disks.now /run/disks.before; then
        echo "GUEST-DISKS $(tr '\n' ' ' < /run/disks.now)" > /dev/console
        cp /run/disks.now /run/disks.before
    fi
    sleep 1
done
