//! The memory functions that the compiler calls.
//!
//! ink! 5 links a crate of this name into every contract. It copies byte by byte, and a chain that
//! runs contracts by wasmi charges each step: copying a payload of 4 KiB costs more than checking a
//! signature does. This one copies eight bytes at a time; WebAssembly reads and writes at any
//! address. Comparing and filling go byte by byte: contracts do little of it.
//!
//! After the crate `rlibc` 1.0.0, of which this is a modified copy: copying is new. Its notice:
//!
//! Copyright 2014 The Rust Project Developers. See the COPYRIGHT file at the top-level directory of
//! that distribution and at <http://rust-lang.org/COPYRIGHT>. Licensed under the Apache License,
//! Version 2.0 or the MIT license, at your option.
#![no_std]
// Else the compiler would turn these loops into calls of themselves.
#![no_builtins]

#[cfg(test)]
extern crate std;
#[cfg(test)]
mod tests;

/// Eight bytes at any address.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Word(u64);

const WORD: usize = size_of::<Word>();

/// Copies `length` bytes.
///
/// # Safety
///
/// As in C: they are readable at `from`, writable at `to`, and don't overlap.
#[cfg_attr(target_arch = "wasm32", no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    let mut done: usize = 0;
    while length.wrapping_sub(done) >= WORD {
        *to.add(done).cast::<Word>() = *from.add(done).cast::<Word>();
        done = done.wrapping_add(WORD);
    }
    while done < length {
        *to.add(done) = *from.add(done);
        done = done.wrapping_add(1);
    }
    to
}

/// Copies `length` bytes that may overlap.
///
/// # Safety
///
/// As in C: they are readable at `from` and writable at `to`.
#[cfg_attr(target_arch = "wasm32", no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if to.cast_const() <= from {
        let mut done: usize = 0;
        while done < length {
            *to.add(done) = *from.add(done);
            done = done.wrapping_add(1);
        }
    } else {
        let mut left = length;
        while left > 0 {
            left = left.wrapping_sub(1);
            *to.add(left) = *from.add(left);
        }
    }
    to
}

/// Fills `length` bytes with the lowest byte of `value`.
///
/// # Safety
///
/// As in C: they are writable at `to`.
#[cfg_attr(target_arch = "wasm32", no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    let [byte, ..] = value.to_le_bytes();
    let mut done: usize = 0;
    while done < length {
        *to.add(done) = byte;
        done = done.wrapping_add(1);
    }
    to
}

/// Compares `length` bytes: negative, zero or positive as `left` is less, equal or greater.
///
/// # Safety
///
/// As in C: they are readable at both.
#[cfg_attr(target_arch = "wasm32", no_mangle)]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    let mut done: usize = 0;
    while done < length {
        let (a, b) = (*left.add(done), *right.add(done));
        if a != b {
            return i32::from(a).wrapping_sub(i32::from(b));
        }
        done = done.wrapping_add(1);
    }
    0
}
