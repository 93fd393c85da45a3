"""The role of a cell: the intent journal in SQL, dispatch to agents, the sweeper, heartbeats."""
