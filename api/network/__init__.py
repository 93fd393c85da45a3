"""Network API v2.0: networks, subnets, ports, security groups, routers, floating IPs."""
