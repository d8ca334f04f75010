//! Growth of group tables; see [`GroupTable`] for the part that generated code does itself.

use super::rows::pieces;
use super::run::{Run, RunError};
use crate::abi::{Entry, GroupTable};

/// Slots of the first directory.
const FIRST_SLOTS: usize = 1024;
/// Up to this size directories grow by a factor of 4, so that entries are linked anew less often; then by 2.
const GROW_FAST: usize = 1 << 18;

/// Body of `qn_groups_grow`.
///
/// # Safety
/// `table` is a well-formed [`GroupTable`] that nobody else uses.
pub(super) unsafe fn qn_groups_grow(run: &Run, table: *mut u8, entries: i64, operator: i64) -> Result<(), RunError> {
    // SAFETY: the caller's promise.
    let table = unsafe { &mut *table.cast::<GroupTable>() };
    let wanted = super::memory::size(entries)?.saturating_mul(2).checked_next_power_of_two().unwrap_or(usize::MAX);
    let slots = next_slots(table).max(wanted);
    let dir = run.allocate(slots.saturating_mul(size_of::<*mut Entry>()), operator)?.cast::<*mut Entry>();
    let old = std::mem::replace(&mut table.dir, dir);
    table.mask = slots as i64 - 1;
    // At most half full: a look-up that finds nothing mostly ends at the directory.
    table.limit = slots as i64 / 2;
    // SAFETY: the table is well-formed, and the directory new and empty.
    unsafe { link(table) };
    if old.is_null() {
        return Ok(());
    }
    // SAFETY: all chains start in the new directory now.
    unsafe { run.free(old.cast()) }
}

fn next_slots(table: &GroupTable) -> usize {
    if table.dir.is_null() {
        return FIRST_SLOTS;
    }
    let slots = table.mask as usize + 1;
    if slots < GROW_FAST { slots * 4 } else { slots * 2 }
}

/// Links all entries into the directory.
///
/// # Safety
/// The table's rows are well-formed, and its directory is empty.
unsafe fn link(table: &GroupTable) {
    let width = table.rows.width.max(1) as usize;
    // SAFETY: every row starts with an entry, and `hash & mask` is a slot of the directory.
    unsafe {
        for piece in pieces(&table.rows) {
            for at in (0..piece.bytes).step_by(width) {
                let entry = piece.rows.add(at).cast::<Entry>();
                let slot = table.dir.add(((*entry).hash & table.mask as u64) as usize);
                (*entry).next = slot.replace(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::RunConfig;
    use super::super::symbols::{qn_groups_grow, qn_rows_grow};
    use super::*;
    use crate::abi::ENTRY_KEYS;

    const WIDTH: i64 = 32;

    fn hash(key: u64) -> u64 {
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }

    /// The count of `key`, inserted if it is new, as generated code does it.
    ///
    /// # Safety
    /// A well-formed table of this test.
    unsafe fn find(run: &Run, table: &mut GroupTable, key: u64) -> Result<*mut u64, i32> {
        let hash = hash(key);
        // SAFETY: the caller's promise.
        unsafe {
            if !table.dir.is_null() {
                let mut entry = *table.dir.add((hash & table.mask as u64) as usize);
                while !entry.is_null() {
                    let keys = entry.byte_add(ENTRY_KEYS as usize).cast::<u64>();
                    if (*entry).hash == hash && *keys == key {
                        return Ok(keys.add(1));
                    }
                    entry = (*entry).next;
                }
            }
            if table.count == table.limit && qn_groups_grow(run, (&raw mut *table).cast(), 0, 0) != 0 {
                return Err(-1);
            }
            if table.rows.cur == table.rows.end && qn_rows_grow(run, (&raw mut table.rows).cast(), WIDTH, 0) != 0 {
                return Err(-1);
            }
            let entry = table.rows.cur.cast::<Entry>();
            table.rows.cur = table.rows.cur.add(WIDTH as usize);
            let slot = table.dir.add((hash & table.mask as u64) as usize);
            entry.write(Entry { next: slot.replace(entry), hash });
            table.count += 1;
            let keys = entry.byte_add(ENTRY_KEYS as usize).cast::<u64>();
            keys.write(key);
            keys.add(1).write(0);
            Ok(keys.add(1))
        }
    }

    #[test]
    fn groups_are_found_again_after_growth() {
        let run = Run::new(RunConfig::default());
        // SAFETY: all zero is the empty table.
        let mut table: GroupTable = unsafe { std::mem::zeroed() };
        let keys = 70_000;
        for i in 0..3 * keys {
            // SAFETY: a well-formed table.
            unsafe { *find(&run, &mut table, i % keys).unwrap() += i };
        }
        assert_eq!(table.count, keys as i64);
        assert!(table.count <= table.limit && table.limit * 2 == table.mask + 1);
        for key in 0..keys {
            // SAFETY: a well-formed table.
            assert_eq!(unsafe { *find(&run, &mut table, key).unwrap() }, 3 * key + 3 * keys);
        }
    }

    #[test]
    fn a_table_has_room_for_what_is_expected() {
        let run = Run::new(RunConfig { budget: 1 << 20, ..RunConfig::default() });
        // SAFETY: all zero is the empty table.
        let mut table: GroupTable = unsafe { std::mem::zeroed() };
        for (entries, limit) in [(5_000, 8_192), (0, 32_768)] {
            // SAFETY: a well-formed table.
            assert_eq!(unsafe { qn_groups_grow(&run, (&raw mut table).cast(), entries, 0) }, 0);
            assert_eq!((table.limit, table.mask), (limit, 2 * limit - 1));
        }
        for absurd in [-1, 1 << 40, i64::MAX] {
            // SAFETY: a well-formed table.
            assert_ne!(unsafe { qn_groups_grow(&run, (&raw mut table).cast(), absurd, 0) }, 0);
        }
        assert_eq!(table.limit, 32_768);
    }

    #[test]
    fn growth_keeps_the_budget() {
        let run = Run::new(RunConfig { budget: 40_000, ..RunConfig::default() });
        // SAFETY: all zero is the empty table.
        let mut table: GroupTable = unsafe { std::mem::zeroed() };
        // SAFETY: a well-formed table, also after a failure.
        let full = (0..10_000).find(|&key| unsafe { find(&run, &mut table, key) }.is_err());
        assert_eq!(full, Some(512));
        assert!(matches!(run.take_error(), Some(RunError::OutOfMemory { .. })));
    }
}
