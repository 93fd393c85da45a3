#!/bin/sh
# What udhcpc calls when a lease comes or goes.
case $1 in
deconfig)
    # IPv4's alone: those of IPv6 come from router advertisements
    ip -4 addr flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    # a renewed lease leaves the address, and with it the connections and routes, in peace
    if ! ip -4 -o addr show dev "$interface" | grep -qF " $ip/$mask "; then
        ip -4 addr flush dev "$interface"
        ip addr add "$ip/$mask" dev "$interface"
    fi
    [ -n "$mtu" ] && ip link set dev "$interface" mtu "$mtu"
    # of several cards the first one leads outside: who asks by a floating IP is answered by the same way
    metric=$((100 + $(cat /sys/class/net/"$interface"/ifindex)))
    if [ -n "$staticroutes" ]; then
        set -- $staticroutes
        while [ $# -ge 2 ]; do
            if [ "$2" = 0.0.0.0 ]; then
                ip route replace "$1" dev "$interface" metric $metric
            else
                ip route replace "$1" via "$2" dev "$interface" metric $metric
            fi
            shift 2
        done
    elif [ -n "$router" ]; then
        ip route replace default via "${router%% *}" dev "$interface" metric $metric
    fi
    for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
    echo "$interface $ip/$mask" >> /run/leases
    echo "GUEST-DHCP $interface $ip/$mask" > /dev/console
    ;;
esac
