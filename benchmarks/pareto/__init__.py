"""Ways to communicate with few bytes, each trained to the end and timed on links of several rates."""
