#!/bin/sh
# The shell on the consoles.
cd /root
export HOME=/root TERM=vt100 PS1='\h:\w# '
exec /bin/sh
