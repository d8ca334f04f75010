//! Where a program moves data: what it reads of its inputs, what it writes out between pipelines, and what it copies
//! between a query and a model.
//!
//! A place is known when the program is lowered, its bytes when a run is over: from the sizes of what was bound, from what
//! an operator took from the runtime, or from a number that the program keeps at the end of a tile. Nothing is counted row
//! by row.

use super::context::PipelineNote;
use super::frame::{Bind, Part, Slot};
use super::interface::Function;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What happens to bytes at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MoveKind {
    /// Columns that are scanned and tensors: whole, although filters may skip parts of a column.
    Read,
    /// Columns of which only rows that are looked up by their position are read: whole, so at most that much.
    LookedUp,
    /// Written out and read again by the same half of the program: build sides, groups, sorted rows, tensors.
    Written,
    /// Rows and scalars that a query has computed, written out for a tensor program that needs all of them at once.
    Border,
    /// Gathered in a worker's tile, which stays in its caches: operands, kept columns, tensors of the tile.
    Tile,
    /// Results.
    Result,
}

impl MoveKind {
    /// Every kind.
    pub const ALL: [MoveKind; 6] = {
        use MoveKind::*;
        [Read, LookedUp, Written, Border, Tile, Result]
    };
}

impl fmt::Display for MoveKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MoveKind::Read => "read",
            MoveKind::LookedUp => "looked up",
            MoveKind::Written => "written",
            MoveKind::Border => "border",
            MoveKind::Tile => "tile",
            MoveKind::Result => "result",
        })
    }
}

/// A place where a program moves data.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// The operator and what it handles.
    pub place: String,
    /// What happens to the bytes.
    pub kind: MoveKind,
    /// How many there are.
    pub count: Count,
}

/// How the bytes of a place are known after a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Count {
    /// The sizes of what was bound, by positions in `Interface::bindings`.
    Bound(Vec<usize>),
    /// What an operator, by its position in `Interface::operators`, took from the runtime.
    Operator(usize),
    /// The memory of a result that the session has made, by its position in `Interface::outputs`.
    Output(usize),
    /// A slot holds the number.
    Slot(Slot),
    /// A slot holds the address of the first worker's memory, in which there is a number of rows.
    Workers {
        /// Slot with the address.
        memory: Slot,
        /// Bytes from one worker's memory to the next.
        stride: Stride,
        /// Bytes before the number.
        offset: i64,
        /// Bytes of each row.
        bytes: u64,
    },
}

/// How far apart the memories of the workers are.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Stride {
    /// That many bytes.
    Known(i64),
    /// As many bytes as a slot holds.
    Slot(Slot),
}

impl Count {
    /// The slots that it looks at.
    pub fn slots(&self) -> Vec<Slot> {
        match self {
            Count::Slot(slot) => vec![*slot],
            Count::Workers { memory, stride: Stride::Slot(stride), .. } => vec![*memory, *stride],
            Count::Workers { memory, .. } => vec![*memory],
            Count::Bound(_) | Count::Operator(_) | Count::Output(_) => vec![],
        }
    }
}

/// What the functions of a program read: columns, table by table, and tensors.
pub fn reads(functions: &[Function], pipelines: &[PipelineNote], bindings: &[(Bind, Slot)]) -> Vec<Move> {
    let mut found = vec![];
    for function in functions.iter().filter(|function| !function.once) {
        let note = function.note.map(|note| &pipelines[note]);
        let mut tables: BTreeMap<&str, (Vec<&str>, Vec<usize>)> = BTreeMap::new();
        for &at in &function.reads {
            let Bind::Column { table, column, part } = &bindings[at].0 else { continue };
            if matches!(part, Part::Values | Part::Offsets | Part::Bytes | Part::Validity) {
                let (columns, parts) = tables.entry(table).or_default();
                if !columns.contains(&column.as_str()) {
                    columns.push(column);
                }
                parts.push(at);
            }
        }
        for (table, (columns, parts)) in tables {
            let is_scanned = note.is_some_and(|note| note.scans.as_deref() == Some(table));
            let kind = if is_scanned { MoveKind::Read } else { MoveKind::LookedUp };
            let name = note.map_or(function.name.as_str(), |note| note.name.as_str());
            let place = format!("{name}: {} of \"{table}\"", columns.join(", "));
            found.push(Move { place, kind, count: Count::Bound(parts) });
        }
    }
    for (at, (bind, _)) in bindings.iter().enumerate() {
        if let Bind::Tensor { name } = bind {
            let place = format!("tensor \"{name}\"");
            found.push(Move { place, kind: MoveKind::Read, count: Count::Bound(vec![at]) });
        }
    }
    found
}
