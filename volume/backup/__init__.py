"""Backups of volumes: what is stored (``chunks``), and where (``targets``)."""
