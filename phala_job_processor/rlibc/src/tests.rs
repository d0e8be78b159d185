//! Every length up to a few words, at every alignment, inside bytes that must stay as they are.

use std::vec::Vec;

use super::{memcmp, memcpy, memmove, memset, WORD};

const ROOM: usize = 6 * WORD;
const LONGEST: usize = 4 * WORD;

fn bytes(first: u8) -> Vec<u8> {
    (first..).take(ROOM).collect()
}

fn for_each_place(mut check: impl FnMut(usize, usize, usize)) {
    for length in 0..=LONGEST {
        for from in 0..=WORD {
            for to in 0..=WORD {
                check(from, to, length);
            }
        }
    }
}

#[test]
fn memcpy_copies_that_many_bytes_and_no_others() {
    for_each_place(|from, to, length| {
        let (source, mut copied) = (bytes(0), bytes(100));
        let mut expected = copied.clone();
        expected[to..to + length].copy_from_slice(&source[from..from + length]);

        let target = copied[to..].as_mut_ptr();
        // SAFETY: both lie inside their vectors.
        let answer = unsafe { memcpy(target, source[from..].as_ptr(), length) };

        assert_eq!(answer, target);
        assert_eq!(copied, expected, "{length} bytes from {from} to {to}");
    });
}

#[test]
fn memmove_copies_what_overlaps() {
    for_each_place(|from, to, length| {
        let mut moved = bytes(0);
        let mut expected = moved.clone();
        expected.copy_within(from..from + length, to);

        let start = moved.as_mut_ptr();
        // SAFETY: both lie inside the vector.
        let answer = unsafe { memmove(start.add(to), start.add(from), length) };

        assert_eq!(answer, moved[to..].as_mut_ptr());
        assert_eq!(moved, expected, "{length} bytes from {from} to {to}");
    });
}

#[test]
fn memset_fills_that_many_bytes_and_no_others() {
    for_each_place(|_, to, length| {
        let mut filled = bytes(0);
        let mut expected = filled.clone();
        expected[to..to + length].fill(0xee);

        // SAFETY: it lies inside the vector.
        unsafe { memset(filled[to..].as_mut_ptr(), 0x1ee, length) };

        assert_eq!(filled, expected);
    });
}

#[test]
fn memcmp_tells_the_first_difference() {
    for length in 0..=LONGEST {
        let left = bytes(0);
        // SAFETY: both lie inside their vectors.
        let compare = |right: &[u8]| unsafe { memcmp(left.as_ptr(), right.as_ptr(), length) };

        assert_eq!(compare(&left), 0);
        for place in 0..LONGEST {
            let mut right = left.clone();
            right[place] += 1;
            right[place + 1] = 0;
            assert_eq!(compare(&right), if place < length { -1 } else { 0 });
            right[place] = 0xff;
            assert_eq!(compare(&right) < 0, place < length);
        }
        let less = std::vec![0; ROOM];
        assert_eq!(compare(&less), i32::from(length > 1));
    }
}
