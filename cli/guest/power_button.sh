#!/bin/sh
# acpid runs this when somebody presses the (virtual) power button.
echo "GUEST-POWERBUTTON" > /dev/console
sync
poweroff
