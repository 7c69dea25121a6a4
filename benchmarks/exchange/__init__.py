"""An exchange between worker and server, and what it is compared with: programs that take turns, and their figures."""
