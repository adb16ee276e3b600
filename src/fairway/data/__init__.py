"""Tables and events: sources, snapshots, views, point-in-time joins, the folded log and its labels."""
