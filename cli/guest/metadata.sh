#!/bin/sh
# Configures the guest from its config drive or, without one, from the metadata service: host name,
# ssh keys, and a user data script. Says GUEST-READY on the console at the end, in any case.
folder=/run/metadata
source=none
mkdir -p $folder
device=$(findfs LABEL=config-2 2> /dev/null || findfs LABEL=CONFIG-2 2> /dev/null)
if [ -n "$device" ] && mount -o ro "$device" /mnt; then
    cp -r /mnt/openstack/latest/* $folder/
    umount /mnt
    source=config-drive
fi
attempt=0
while [ $source = none ] && [ -n "$(ls /sys/class/net | grep -v '^lo$')" ] && [ $attempt -lt 8 ]; do
    attempt=$((attempt + 1))
    base=http://169.254.169.254/openstack/latest
    # This busybox's wget has no time limit of its own.
    if [ -s /run/leases ] && timeout 3 wget -q -O $folder/meta_data.json $base/meta_data.json; then
        source=http
        timeout 3 wget -q -O $folder/user_data $base/user_data || rm -f $folder/user_data
    else
        sleep 1
    fi
done
id=$(tr -d '\n' < $folder/meta_data.json 2> /dev/null | sed -n 's/.*"uuid": *"\([^"]*\)".*/\1/p')
# not the whole: there may be passwords in it, and the console is shown to whoever may read it
echo "GUEST-META source=$source uuid=$id" > /dev/console
if [ -s $folder/meta_data.json ]; then
    name=$(sed -n 's/.*"hostname": *"\([^"]*\)".*/\1/p' $folder/meta_data.json | head -n 1)
    [ -n "$name" ] && hostname "$name"
    tr -d '\n' < $folder/meta_data.json | sed -n 's/.*"public_keys": *{\([^}]*\)}.*/\1/p' |
        grep -oE '(ssh-[a-z0-9]+|ecdsa-[a-z0-9-]+) [A-Za-z0-9+/=]+' > /root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
fi
if [ "$(head -c 2 $folder/user_data 2> /dev/null)" = '#!' ]; then
    chmod +x $folder/user_data
    $folder/user_data > /run/user_data.log 2>&1
    echo "GUEST-USERDATA exit=$?" > /dev/console
fi
echo "GUEST-READY $(cut -d' ' -f1 /proc/uptime)" > /dev/console
