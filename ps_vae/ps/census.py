"""Which connections of a bound socket are open, by what ZeroMQ's monitor says."""

from typing import Any

import zmq
import zmq.utils.monitor

__all__ = ["Census"]


class Census:
    """Made before the socket is bound; ends with the socket's context.

    events  to be read from with `note`, on one thread
    open    descriptors of the connections, whether they have come in or are still at the door
    """

    def __init__(self, context: zmq.Context[Any], socket: zmq.Socket[bytes]) -> None:
        socket.monitor("inproc://census", zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.events = context.socket(zmq.PAIR)
        # A queue that is full would hold up the thread that all messages go through.
        self.events.setsockopt(zmq.RCVHWM, 0)
        self.events.connect("inproc://census")
        self.open: set[int] = set()

    def note(self) -> None:
        """Take one event, which there has to be."""
        event = zmq.utils.monitor.recv_monitor_message(self.events)
        if event["event"] == zmq.EVENT_ACCEPTED:
            self.open.add(event["value"])
        else:
            self.open.discard(event["value"])

    def note_all(self) -> None:
        """Take the events that there are."""
        while self.events.poll(0):
            self.note()

    def close(self) -> None:
        """Not before the socket is closed, and nobody reads any more: ZeroMQ's own thread would wait for somebody."""
        self.events.close(linger=0)
