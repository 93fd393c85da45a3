"""Tables, sessions and cells, and the queries by subject. SQL is written nowhere else."""
