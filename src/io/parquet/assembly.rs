//! A column while threads decode its chunks.

use crate::data::{Column, ColumnBuilder, Result};
use arrow::array::ArrayRef;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A column to which chunks (one for every row group) are appended in the order of the file, whichever is decoded
/// first. An array whose turn it is goes into the column at once, so that no chunk need be whole in memory.
pub(super) struct Assembly {
    state: Mutex<State>,
    groups: usize,
}

struct State {
    /// `None` once all rows are there.
    builder: Option<ColumnBuilder>,
    /// Blocks of strings that threads are packing.
    packing: usize,
    column: Option<Column>,
    /// The row group that is appended next.
    group: usize,
    early: BTreeMap<usize, Chunk>,
}

/// What has been decoded of a chunk before its turn.
#[derive(Default)]
struct Chunk {
    arrays: Vec<ArrayRef>,
    whole: bool,
}

impl Assembly {
    /// A column without rows, of so many row groups.
    pub(super) fn new(builder: ColumnBuilder, groups: usize) -> Assembly {
        let state = State { builder: Some(builder), packing: 0, column: None, group: 0, early: BTreeMap::new() };
        Assembly { state: Mutex::new(state), groups }
    }

    /// Adds the next rows of a row group.
    pub(super) fn add(&self, group: usize, array: ArrayRef) -> Result<()> {
        let mut state = self.lock();
        state.early.entry(group).or_default().arrays.push(array);
        state.append()?;
        self.finish(state);
        Ok(())
    }

    /// There are no more rows in a row group. After the last one the column is finished.
    pub(super) fn close(&self, group: usize) -> Result<()> {
        let mut state = self.lock();
        state.early.entry(group).or_default().whole = true;
        state.append()?;
        self.finish(state);
        Ok(())
    }

    /// Does what takes a while without keeping others from adding rows: packs strings, and if all is there, finishes the
    /// column.
    fn finish<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        while let Some(block) = state.builder.as_mut().and_then(ColumnBuilder::next_block) {
            state.packing += 1;
            drop(state);
            let packed = block.pack();
            state = self.lock();
            state.packing -= 1;
            if let Some(builder) = &mut state.builder {
                builder.put_block(packed);
            }
        }
        // Whoever packs the last block sees that it is the last.
        let complete = state.group == self.groups && state.packing == 0;
        if let Some(builder) = state.builder.take_if(|_| complete) {
            drop(state);
            let column = builder.finish();
            self.lock().column = Some(column);
        }
    }

    /// The column, once all of its row groups are closed.
    pub(super) fn into_column(self) -> Option<Column> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.column.or_else(|| Some(state.builder?.finish()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Appends what is there of the next row groups.
    fn append(&mut self) -> Result<()> {
        while let (Some(chunk), Some(builder)) = (self.early.remove(&self.group), &mut self.builder) {
            chunk.arrays.iter().try_for_each(|array| builder.append(array))?;
            if !chunk.whole {
                break;
            }
            self.group += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::LoadOptions;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    #[test]
    fn the_order_of_the_file_counts() {
        let field = Field::new("c", DataType::Int64, false);
        let builder = ColumnBuilder::new(&field, 6, 0, &LoadOptions::COMPACT).unwrap();
        let assembly = Assembly::new(builder, 3);
        let array = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        assembly.add(2, array(5)).unwrap();
        assembly.add(0, array(1)).unwrap();
        assembly.add(1, array(3)).unwrap();
        assembly.close(1).unwrap();
        assembly.add(0, array(2)).unwrap();
        assembly.close(0).unwrap();
        assembly.add(2, array(6)).unwrap();
        assembly.close(2).unwrap();
        let column = assembly.into_column().unwrap();
        assert_eq!((0..5).map(|row| column.int(row).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 5, 6]);
    }
}
