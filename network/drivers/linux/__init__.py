"""The Linux data plane: bridges, VXLAN, nftables, dnsmasq and namespaces, spoken to over netlink."""
