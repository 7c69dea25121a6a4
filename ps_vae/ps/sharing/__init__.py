"""Arrays that processes of one host read in place, instead of sending each other copies."""
