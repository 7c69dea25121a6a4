"""Node aggregation: several processes of one machine are one worker to the servers.

    servers  <- one session ->  the node's process  <- small messages ->  members, which compute
                                        shared memory: weights, and sums of blocks

`program` speaks with the servers and has the blocks that it is given computed by `members`, processes that it starts,
watches and ends; `member` is what runs in them. `division` and `work` say who computes what, `summation` adds it up in
the order of the step's tree: the bits are those of a single process. What leaves the node is one push for all its
microbatches, and what comes is one pull, however many members there are.
"""
