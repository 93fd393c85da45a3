"""Data planes: how a host is made to look like what its agent was told."""
