"""What the volume worker carries out: one file per kind of resource."""
