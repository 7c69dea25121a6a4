"""Arrays rotate, but never under a reader's eyes."""

import weakref

import numpy as np

from ps_vae.ps.buffers import Buffers


def test_an_array_that_was_given_back_is_taken_again():
    buffers = Buffers(3)
    array = buffers.take()
    buffers.give(array)

    assert buffers.take() is array
    assert buffers.made == 1


def test_an_array_that_is_out_is_not_handed_out():
    buffers = Buffers(3)

    assert buffers.take() is not buffers.take()
    assert buffers.made == 2


def test_slots_are_taken_first_and_only_they_are_kept():
    slots = [np.full(3, number, np.float32) for number in range(2)]
    buffers = Buffers(3, slots)
    taken = [buffers.take() for _ in range(3)]
    others = [weakref.ref(taken[2])]

    assert taken[0] is slots[0]
    assert taken[1] is slots[1]
    assert [buffers.keeps(array) for array in taken] == [True, True, False]
    buffers.hold(taken[2], lambda: False)
    while taken:
        buffers.give(taken.pop())

    assert [other() for other in others] == [None]
    assert buffers.made == 1
    assert [buffers.take() is slot for slot in slots] == [True, True]


def test_a_held_array_is_not_taken_until_all_its_readers_are_done():
    buffers = Buffers(3)
    first = buffers.take()
    readers = [False, False]
    buffers.hold(first, lambda: readers[0])
    buffers.hold(first, lambda: readers[1])
    buffers.give(first)

    second = buffers.take()
    assert second is not first
    readers[0] = True
    third = buffers.take()
    assert third is not first
    readers[1] = True
    assert buffers.take() is first


def test_a_reader_that_came_before_the_array_was_given_back_counts():
    buffers = Buffers(3)
    array = buffers.take()
    done = []
    buffers.hold(array, lambda: bool(done))
    buffers.give(array)
    assert buffers.take() is not array

    done.append(True)
    assert buffers.take() is array


def test_readers_that_are_done_are_let_go_of_before_the_arrays_next_turn():
    class Reader:
        def __call__(self):
            return self.done

    buffers = Buffers(3)
    arrays = [buffers.take() for _ in range(2)]
    readers = [Reader(), Reader()]
    for array, reader, done in zip(arrays, readers, (True, False), strict=True):
        reader.done = done
        buffers.hold(array, reader)
        buffers.give(array)
    references = [weakref.ref(reader) for reader in readers]
    del reader, readers

    buffers.let_go()
    assert [reference() is None for reference in references] == [True, False]
    assert buffers.take() is arrays[0]
