//! The interpreter's only access to memory outside of itself.
//!
//! Invariant: an address comes from the program, which got it from its frame, from the runtime or from an alloca;
//! whoever calls [`crate::Code::call`] promises that these are what the program's generator declared. What can be
//! checked is: null pages and claimed alignments.

use super::lanes::Cell;
use quearn_stage::low::{Prim, RmwOp};
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};

/// No object lies below this address.
const FIRST_PAGE: u64 = 4096;

/// Is this no address of an object, or not a multiple of the alignment?
pub fn is_bad(addr: u64, align: u64) -> bool {
    addr < FIRST_PAGE || !addr.is_multiple_of(align)
}

/// Reads one element. A `Bool` other than 0 and 1 is for the caller to refuse.
///
/// # Safety
/// The program may read there.
pub unsafe fn read(prim: Prim, addr: u64) -> Cell {
    let at = addr as usize;
    // SAFETY: the caller's promise.
    unsafe {
        match prim.bytes() {
            1 => with_exposed_provenance::<u8>(at).read() as Cell,
            2 => with_exposed_provenance::<u16>(at).read_unaligned() as Cell,
            4 => with_exposed_provenance::<u32>(at).read_unaligned() as Cell,
            8 => with_exposed_provenance::<u64>(at).read_unaligned() as Cell,
            _ => with_exposed_provenance::<u128>(at).read_unaligned(),
        }
    }
}

/// Writes one element.
///
/// # Safety
/// The program may write there.
pub unsafe fn write(prim: Prim, addr: u64, value: Cell) {
    let at = addr as usize;
    // SAFETY: the caller's promise.
    unsafe {
        match prim.bytes() {
            1 => with_exposed_provenance_mut::<u8>(at).write(value as u8),
            2 => with_exposed_provenance_mut::<u16>(at).write_unaligned(value as u16),
            4 => with_exposed_provenance_mut::<u32>(at).write_unaligned(value as u32),
            8 => with_exposed_provenance_mut::<u64>(at).write_unaligned(value as u64),
            _ => with_exposed_provenance_mut::<u128>(at).write_unaligned(value),
        }
    }
}

macro_rules! atomic {
    ($prim:expr, $addr:expr, $atomic:ident => $operation:expr) => {
        match $prim.bytes() {
            1 => {
                let $atomic = AtomicU8::from_ptr(with_exposed_provenance_mut($addr as usize));
                $operation
            }
            2 => {
                let $atomic = AtomicU16::from_ptr(with_exposed_provenance_mut($addr as usize));
                $operation
            }
            4 => {
                let $atomic = AtomicU32::from_ptr(with_exposed_provenance_mut($addr as usize));
                $operation
            }
            _ => {
                let $atomic = AtomicU64::from_ptr(with_exposed_provenance_mut($addr as usize));
                $operation
            }
        }
    };
}

/// Atomic read-modify-write of at most 64 bits; gives the old value.
///
/// # Safety
/// The program may read and write there; the address is naturally aligned.
pub unsafe fn rmw(op: RmwOp, prim: Prim, addr: u64, value: Cell) -> Cell {
    // SAFETY: the caller's promise.
    unsafe {
        match op {
            RmwOp::Xchg => atomic!(prim, addr, place => place.swap(value as _, SeqCst) as Cell),
            RmwOp::Add => atomic!(prim, addr, place => place.fetch_add(value as _, SeqCst) as Cell),
            RmwOp::Or => atomic!(prim, addr, place => place.fetch_or(value as _, SeqCst) as Cell),
        }
    }
}

/// Atomic compare-and-exchange of at most 64 bits; gives the old value.
///
/// # Safety
/// The program may read and write there; the address is naturally aligned.
pub unsafe fn cmpxchg(prim: Prim, addr: u64, expected: Cell, new: Cell) -> Cell {
    // SAFETY: the caller's promise.
    unsafe {
        atomic!(prim, addr, place => {
            let result = place.compare_exchange(expected as _, new as _, SeqCst, SeqCst);
            result.unwrap_or_else(|old| old) as Cell
        })
    }
}

/// Calls a runtime function.
///
/// # Safety
/// The program passes what the function asks for.
pub unsafe fn call(function: unsafe fn(&[u64]) -> u64, args: &[u64]) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { function(args) }
}
