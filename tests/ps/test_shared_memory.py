"""Arrays that two processes read in place: who may see them, when they may be written to, what a crash leaves."""

import contextlib
import fcntl
import gc
import mmap
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_vae.errors import PeerError, UsageError
from ps_vae.ps.buffers import Buffers
from ps_vae.ps.sharing import meeting
from ps_vae.ps.sharing.ledger import Ledger
from ps_vae.ps.sharing.meeting import Invitation, Meeting, come
from ps_vae.ps.sharing.segment import Segment, is_possible
from ps_vae.ps.sharing.sharing import Sharing
from ps_vae.ps.transport import open_segment

pytestmark = pytest.mark.skipif(not is_possible(), reason="shared memory needs Linux")

SLOTS, SIZE = 3, 1500
PATIENCE = 30.0


def handed_over(segment):
    """The same memory as another process would map it."""
    with segment.readable() as descriptor:
        return Segment.open(descriptor, segment.slots, segment.size)


def pair(mine=None, theirs=None):
    """Both sides of a sharing, server's first."""
    page = Ledger.create()
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = Sharing(7, 0, left, mine, handed_over(theirs) if theirs else None, Ledger(page))
    client = Sharing(7, 1, right, theirs, handed_over(mine) if mine else None, Ledger(page))
    os.close(page)
    return server, client


def memfds():
    """Anonymous files of ours that this process maps."""
    with open("/proc/self/maps") as maps:
        return sum("memfd:ps-vae" in line for line in maps)


def test_a_segment_is_private_to_the_user_and_stands_in_no_folder():
    before = set(os.listdir("/dev/shm"))
    segment = Segment.create(SLOTS, SIZE)

    with segment.readable() as descriptor:
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
        assert os.fstat(descriptor).st_nlink == 0
    assert set(os.listdir("/dev/shm")) == before


def test_a_segment_cannot_be_cut_off_under_its_reader():
    segment = Segment.create(SLOTS, SIZE)

    with pytest.raises(PermissionError):
        os.ftruncate(segment._descriptor, 4096)


def test_who_is_handed_a_segment_reads_what_the_owner_writes_and_cannot_write_to_it():
    segment = Segment.create(SLOTS, SIZE)
    theirs = handed_over(segment)

    segment.array(2)[:] = np.arange(SIZE)
    np.testing.assert_array_equal(theirs.array(2), np.arange(SIZE))
    segment.array(2)[5] = -1
    assert theirs.array(2)[5] == -1

    theirs.array(1)[:] = 9
    np.testing.assert_array_equal(segment.array(1), np.zeros(SIZE))
    with segment.readable() as descriptor, pytest.raises(PermissionError):
        mmap.mmap(descriptor, 4096)


def test_what_is_handed_over_cannot_be_opened_for_writing_either():
    segment = Segment.create(SLOTS, SIZE)
    with segment.readable() as descriptor:
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.pwrite(again, b"spoilt", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(again, 4096)
    finally:
        os.close(again)

    segment.array(0)[:] = 3
    np.testing.assert_array_equal(handed_over(segment).array(0), np.full(SIZE, 3))


def test_a_segment_that_nobody_holds_any_more_leaves_no_descriptor():
    def held():
        """Descriptors of memory; what other tests have left, threads of theirs close when they get to it."""
        gc.collect()
        files = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return sum(os.readlink(file).startswith("/memfd:") for file in files if os.path.lexists(file))

    before = held()
    segments = [Segment.create(SLOTS, SIZE) for _ in range(5)]
    assert held() > before
    del segments
    for _ in range(5):
        segment = Segment.create(SLOTS, SIZE)
        segment.array(0)[:] = 1
        del segment

    assert held() == before


@pytest.mark.parametrize(("seals", "length"), [(0, 1 << 20), (fcntl.F_SEAL_SHRINK, 4096)])
def test_memory_that_could_end_under_the_reader_is_refused(seals, length):
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, length)
        if seals:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        with pytest.raises(PeerError, match="cut off" if not seals else "4096 bytes"):
            Segment.open(descriptor, SLOTS, SIZE)
    finally:
        os.close(descriptor)


def test_a_file_is_no_segment(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(PeerError, match="cut off"):
            Segment.open(descriptor, 1, 16)
    finally:
        os.close(descriptor)


def test_slots_start_on_pages_and_do_not_overlap():
    segment = Segment.create(SLOTS, SIZE)
    for slot in range(SLOTS):
        segment.array(slot)[:] = slot
        assert segment.array(slot).ctypes.data % 4096 == 0
    assert [set(segment.array(slot)) for slot in range(SLOTS)] == [{0}, {1}, {2}]


def test_when_the_slots_are_used_up_arrays_are_private_and_are_not_lent():
    mine = Segment.create(SLOTS, SIZE)
    server, _ = pair(mine=mine)
    pool = Buffers(SIZE, mine.arrays())

    arrays = [pool.take() for _ in range(SLOTS + 2)]

    places = [server.lend(array) for array in arrays]
    assert places == [(7, 0, 0, SIZE), (7, 1, 0, SIZE), (7, 2, 0, SIZE), None, None]


def test_what_is_lent_is_read_in_place_and_is_back_when_the_last_view_of_it_is_gone():
    theirs = Segment.create(SLOTS, SIZE)
    server, client = pair(theirs=theirs)
    pool = Buffers(SIZE, theirs.arrays())
    gradient = pool.take()
    gradient[:] = np.arange(SIZE)

    place = client.lend(gradient[100:200])
    pool.hold(gradient, client.reader(place))
    pool.give(gradient)
    borrowed = server.borrow(place)
    np.testing.assert_array_equal(borrowed, np.arange(100, 200))

    view = borrowed[10:20]
    del borrowed
    assert pool.take().ctypes.data != gradient.ctypes.data
    np.testing.assert_array_equal(view, np.arange(110, 120))
    del view
    assert pool.take().ctypes.data == gradient.ctypes.data


def test_a_slot_that_is_lent_twice_is_back_after_two_returns():
    mine = Segment.create(SLOTS, SIZE)
    server, client = pair(mine=mine)
    places = [server.lend(mine.array(1)) for _ in range(2)]
    is_back = server.reader(places[0])
    first, second = (client.borrow(place) for place in places)

    assert not is_back()
    del second
    assert not is_back()
    del first
    assert is_back()


def test_a_message_that_was_not_sent_lends_nothing():
    mine = Segment.create(SLOTS, SIZE)
    server, client = pair(mine=mine)
    for _ in range(10_000):
        place = server.lend(mine.array(0))
        is_back = server.reader(place)
        assert not is_back()
        before = server._lent[0]
        server.send(bytes(1000), [place])
        if server._lent[0] < before:
            break
    assert server._lent[0] == before - 1, "the stream never fills up"
    assert not server.is_over
    assert client.receive(2000) == bytes(1000)


@pytest.mark.parametrize("writes", [True, False])
def test_last_words_are_heard_of_a_process_that_has_not_read_everything(writes):
    server, client = pair()
    client.send(b"one")
    client.send(b"two")
    # Whoever ends with something unread resets the stream.
    server.send(b"unread")
    del client
    if writes:
        assert not server.send(b"more")

    assert [server.receive(64) for _ in range(3)] == [b"one", b"two", b""]


def test_what_a_process_held_that_has_ended_is_back():
    mine = Segment.create(SLOTS, SIZE)
    server, client = pair(mine=mine)
    is_back = server.reader(server.lend(mine.array(0)))
    assert not is_back()

    del client

    assert is_back()
    assert server.is_over


def test_a_sharing_lasts_as_long_as_what_was_borrowed_through_it():
    mine = Segment.create(SLOTS, SIZE)
    server, client = pair(mine=mine)
    borrowed = client.borrow(server.lend(mine.array(0)))
    del client
    assert not server.is_over
    del borrowed
    assert server.is_over


@given(st.tuples(st.integers(6, 8), *[st.integers(0, 2**63 - 1) | st.integers(0, 2000)] * 3))
@settings(max_examples=300)
def test_no_place_leads_out_of_the_segment(place):
    server, _ = PAIR
    number, slot, start, size = place
    if number == 7 and slot < SLOTS and start + size <= SIZE:
        assert server.borrow(place).size == size
    else:
        with pytest.raises(PeerError) as refusal:
            server.borrow(place)
        assert refusal.value.code == "not-shared"


PAIR = pair(theirs=Segment.create(SLOTS, SIZE)) if is_possible() else None


class Host:
    """A server's side of meetings, attended on a thread."""

    def __init__(self):
        self.segment = Segment.create(SLOTS, SIZE)
        self.meeting = Meeting(self.segment, 1 << 16)
        self.sharings = {}
        self.gone = []
        self.heard = []
        self._stop = threading.Event()
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self._attend, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        self.meeting.close()

    def invite(self, sender):
        with self.lock:
            return self.meeting.invite(sender)

    def dismiss(self, sender):
        with self.lock:
            self.meeting.dismiss(sender)

    def _attend(self):
        while not self._stop.is_set():
            with self.lock:
                for sender, sharing, frame in self.meeting.attend():
                    if frame is None:
                        del self.sharings[sender]
                        self.gone.append(sender)
                    elif frame:
                        self.heard.append((sender, frame))
                    else:
                        self.sharings[sender] = sharing
                    del sharing
            time.sleep(0.001)

    def wait(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            time.sleep(0.001)


@pytest.fixture
def host():
    with Host() as host:
        yield host


def test_an_invited_client_and_the_server_read_each_others_arrays(host):
    gradients = Segment.create(2, 40)
    gradients.array(1)[:] = 3
    host.segment.array(2)[:] = 4

    client = come(host.invite("w"), b"c" * 16, gradients)
    host.wait(lambda: "w" in host.sharings)
    server = host.sharings["w"]

    np.testing.assert_array_equal(server.borrow(client.lend(gradients.array(1)[10:20])), np.full(10, 3))
    np.testing.assert_array_equal(client.borrow(server.lend(host.segment.array(2))), np.full(SIZE, 4))


def test_messages_pass_both_ways_and_an_oversized_one_is_cut_off(host):
    client = come(host.invite("w"), b"c" * 16, None)
    host.wait(lambda: "w" in host.sharings)

    assert client.send(b"question")
    host.wait(lambda: host.heard)
    assert host.sharings["w"].send(b"answer")
    assert client.send(bytes(100_000))
    host.wait(lambda: len(host.heard) == 2)

    assert client.receive(64) == b"answer"
    assert client.receive(64) is None
    assert host.heard == [("w", b"question"), ("w", bytes(1 << 16))]
    assert not client.is_over


def test_who_says_another_word_gets_nothing(host):
    invitation = host.invite("w")

    assert come(Invitation(invitation.name, bytes(16)), b"c" * 16, None) is None
    assert host.sharings == {}
    assert come(invitation, b"c" * 16, None) is not None
    assert come(invitation, b"c" * 16, None) is None, "a word holds once"


def test_a_name_that_does_not_exist_here_is_another_host():
    assert come(Invitation(b"\0nobody-is-here", bytes(16)), b"c" * 16, None) is None


def test_a_name_cannot_be_guessed():
    names = {Meeting(Segment.create(1, 16), 1 << 16).invite("w").name for _ in range(20)}

    assert len(names) == 20
    assert min(len(name) for name in names) >= 32


def sealed_memory(length, flags=0):
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING | flags)
    os.ftruncate(descriptor, length)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor


@pytest.mark.parametrize(
    ("length", "slots", "size"),
    [(0, 1, 0), (0, 0, 16), (6, 1, 0), (1 << 20, 65, 16), (4096, 2, 16), (8192, 1, 1 << 60)],
)
def test_a_segment_that_holds_nothing_or_too_little_is_refused_and_harms_nobody(host, length, slots, size):
    invitation = host.invite("w")
    descriptor = sealed_memory(length)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(invitation.name)
            hello = struct.pack("<16s16sIQ", invitation.word, bytes(16), slots, size)
            socket.send_fds(stranger, [hello], [descriptor])
            stranger.settimeout(PATIENCE)
            assert stranger.recv(64) == b""
    finally:
        os.close(descriptor)

    assert come(host.invite("w"), b"c" * 16, None) is not None


@pytest.mark.skipif(not os.path.isdir("/sys/kernel/mm/hugepages"), reason="this kernel has no huge pages")
def test_huge_pages_which_may_be_missing_when_they_are_read_are_refused():
    descriptor = sealed_memory(2 << 20, os.MFD_HUGETLB)
    try:
        with pytest.raises(PeerError, match="pages of"):
            Segment.open(descriptor, 1, 16)
    finally:
        os.close(descriptor)


def test_a_server_that_is_there_and_does_not_answer_is_not_another_host(monkeypatch):
    monkeypatch.setattr(meeting, "_ANSWER_SECONDS", 0.01)
    name = b"\0ps-vae-test-" + os.urandom(8).hex().encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(name)
        door.listen()
        with pytest.raises(TimeoutError):
            come(Invitation(name, bytes(16)), b"c" * 16, None)


def test_what_was_said_before_a_dismissal_is_handed_over(host):
    gradients = Segment.create(2, 40)
    gradients.array(1)[:] = 3
    client = come(host.invite("w"), b"c" * 16, gradients)
    host.wait(lambda: "w" in host.sharings)
    with host.lock:
        client.send(b"one")
        client.send(b"two")
        lent = client.lend(gradients.array(1))

        left = host.meeting.dismiss("w")

    assert [frame for _, frame in left] == [b"one", b"two"]
    np.testing.assert_array_equal(left[0][0].borrow(lent), np.full(40, 3))
    assert host.meeting.dismiss("w") == []


def test_who_is_dismissed_hears_of_it_and_reads_what_was_lent_to_it_to_the_end(host):
    client = come(host.invite("w"), b"c" * 16, None)
    host.wait(lambda: "w" in host.sharings)
    server = host.sharings["w"]
    place = server.lend(host.segment.array(1))
    is_back = server.reader(place)
    weights = client.borrow(place)

    host.dismiss("w")

    assert client.receive(64) == b""
    assert server.lend(host.segment.array(1)) is None
    assert not server.send(b"more")
    assert not is_back()
    del weights
    assert is_back()


@pytest.mark.parametrize("hello", [b"", b"x", bytes(44), bytes(60)])
def test_nonsense_at_the_door_harms_nobody(host, hello):
    invitation = host.invite("w")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(invitation.name)
        stranger.send(hello)
        stranger.settimeout(PATIENCE)
        assert stranger.recv(64) == b""

    assert come(invitation, b"c" * 16, None) is not None


def test_who_is_silent_at_the_door_keeps_nobody_out(host):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stranger = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            stranger.connect(host.invite("silent").name)

        assert come(host.invite("w"), b"c" * 16, None) is not None


def test_a_later_sharing_of_a_client_ends_its_earlier_one_without_calling_it_gone(host):
    first = come(host.invite("before"), b"c" * 16, None)
    second = come(host.invite("after"), b"c" * 16, None)
    host.wait(lambda: "after" in host.sharings)
    del host.sharings["before"]

    host.wait(lambda: first.is_over)
    assert not second.is_over
    assert host.gone == []


CHILD = """
import sys, time
from ps_vae.ps.sharing.meeting import Invitation, come
from ps_vae.ps.sharing.segment import Segment
mine = Segment.create(2, 1500)
mine.array(0)[:] = 5
sharing = come(Invitation(bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])), b"c" * 16, mine)
place = sharing.lend(mine.array(0))
held = sharing.borrow((place[0], 1, 0, 1500))
print(*place, held[0], flush=True)
sys.stdin.read()
"""


def test_a_killed_process_is_noticed_gives_everything_back_and_leaves_no_memory_behind(host):
    before, files = memfds(), set(os.listdir("/dev/shm"))
    host.segment.array(1)[:] = 6
    invitation = host.invite("child")
    words = [sys.executable, "-c", CHILD, invitation.name.hex(), invitation.word.hex()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        number, slot, start, size, held = child.stdout.readline().split()
        assert float(held) == 6.0
        sharing = host.sharings["child"]
        is_back = sharing.reader(sharing.lend(host.segment.array(1)))
        borrowed = sharing.borrow((int(number), int(slot), int(start), int(size)))
        assert not is_back()

        child.send_signal(signal.SIGKILL)
        host.wait(lambda: host.gone == ["child"])

    assert is_back()
    # What was read is not torn away.
    np.testing.assert_array_equal(borrowed, np.full(SIZE, 5))
    del borrowed, sharing, is_back
    assert memfds() == before
    assert set(os.listdir("/dev/shm")) == files


def test_tcp_means_no_segment_and_another_word_is_refused():
    assert open_segment(2, 16, "tcp") is None
    assert open_segment(2, 16, "auto") is not None
    with pytest.raises(UsageError, match="--transport udp: there are auto, shm, tcp"):
        open_segment(2, 16, "udp")


def test_a_system_without_shared_memory_goes_on_by_socket_unless_it_is_insisted_on(monkeypatch):
    def refuse(slots, size):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Segment, "create", refuse)
    assert open_segment(2, 16, "auto") is None
    with pytest.raises(UsageError, match="Cannot allocate memory"):
        open_segment(2, 16, "shm")
