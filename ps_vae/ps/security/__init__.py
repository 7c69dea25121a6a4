"""Who may speak with a server, and who may say what: keys, a doorkeeper, sessions that belong to keys."""
