# busybox init's table (not a script; the ending keeps it among the package's data files).
# Consoles are root shells without a password: who reaches them holds the machine anyway.
ttyS0::respawn:/bin/getty -n -l /etc/haneul/shell -L 115200 ttyS0 vt100
tty1::respawn:/bin/getty -n -l /etc/haneul/shell 38400 tty1
::ctrlaltdel:/bin/reboot
::shutdown:/bin/umount -a -r
