"""The metadata service: what guests read at 169.254.169.254, behind the proxies on their hosts."""
