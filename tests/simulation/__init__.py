"""The shipped state machines under virtual time: one thread, one seed, no sockets.

    python -m tests.simulation --seeds 2000              explore
    python -m tests.simulation --seeds 5000 --followed   only runs whose shards have followers
    python -m tests.simulation --seed 123                one run again, with its transcript
    python -m tests.simulation --workers 10000 --shards 16

agenda        what happens next, in virtual time
network       what happens to messages; partitions
processes     what is around a machine: alive, asleep, its clock, what waits to be read
world         a run: machines, processes and the network between them
programs      what the program around a client's machine does: store, compute, measure
server_programs  what the one around a server's does: join, follow, lead
ledger        which microbatches were counted, told by the gradients themselves
invariants    what must hold after every event
transcript    one line an event
gradients     gradients that show every mistake, and one loop that says what must come out
misfortunes   what a seed does to a run
scale         many workers: what the coordinator has to do for a step
"""
