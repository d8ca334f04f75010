//! The frame of a program: the block of memory through which generated code sees the world.
//!
//! A frame starts with `abi::FrameHeader`; then come slots. A slot is either *bound* (the session writes a data
//! pointer, a row count, a dimension before the program runs) or *state* (the program writes it for later functions).
//! Generated code contains frame offsets and no address, so that one program serves any data.

use quearn_backends::abi;
use quearn_stage::low::{Builder, Prim, Ty, V};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};

/// A place in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Bytes from the start of the frame.
    pub offset: i64,
    /// What it holds.
    pub ty: Ty,
}

impl Slot {
    /// The slot's value, read once when the function starts: for slots that are written before the function is called.
    pub fn get<'b>(self, b: &'b Builder, frame: V<'b>) -> V<'b> {
        b.load_hoisted(self.ty, frame, self.offset)
    }

    /// The slot's value now: for slots that this function (or one that it calls) writes.
    pub fn read<'b>(self, b: &'b Builder, frame: V<'b>) -> V<'b> {
        b.load(self.ty, frame, self.offset)
    }

    /// Writes the slot.
    pub fn set<'b>(self, b: &'b Builder, frame: V<'b>, value: V<'b>) {
        b.store(frame, self.offset, value);
    }
}

/// Which buffer of a column a slot points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    /// Fixed-width values or dictionary codes.
    Values,
    /// Validity bitmap, least significant bit first; null when the column has no NULL.
    Validity,
    /// Bit offset of the first row in the validity bitmap (an `i64`, not a pointer).
    ValidityOffset,
    /// Offsets of plain text.
    Offsets,
    /// Bytes of plain text.
    Bytes,
    /// Offsets (`i32`) of the dictionary.
    DictOffsets,
    /// Bytes of the dictionary.
    DictBytes,
    /// Number of entries of the dictionary (an `i64`).
    DictLen,
    /// Least and greatest value of each block of rows, two `i64`.
    Zones,
}

/// What the session writes into a bound slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Bind {
    /// A buffer of a column.
    Column {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// Buffer.
        part: Part,
    },
    /// Row count of a table (`i64`).
    Rows {
        /// Table.
        table: String,
    },
    /// Data of an input tensor or weight.
    Tensor {
        /// Name.
        name: String,
    },
    /// Numbers that are part of the program.
    Table {
        /// The numbers.
        words: Vec<u64>,
    },
    /// The value of an input tensor or weight that is a scalar.
    Scalar {
        /// Name.
        name: String,
        /// Its type.
        prim: Prim,
    },
    /// A function of another library.
    Function {
        /// Name.
        name: String,
    },
    /// Size of a named dimension (`i64`).
    Dim {
        /// Name.
        name: String,
    },
    /// A parameter's literal, scaled up by some decimal digits and brought into a range (`i64`).
    Parameter {
        /// Position in the program's parameters.
        index: usize,
        /// Digits.
        digits: u8,
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Memory for an output tensor, row-major.
    Output {
        /// Position in the graph's outputs.
        index: usize,
    },
    /// Memory for a column of an output.
    OutputColumn {
        /// Position in the graph's outputs.
        index: usize,
        /// Position of the column.
        column: usize,
    },
}

/// Lays out a frame while a program is lowered.
#[derive(Debug)]
pub struct Frame {
    size: Cell<i64>,
    bound: RefCell<Vec<(Bind, Slot)>>,
}

impl Default for Frame {
    fn default() -> Self {
        Frame { size: Cell::new(abi::FRAME_SLOTS), bound: RefCell::default() }
    }
}

impl Frame {
    /// A new state slot, zero when a run starts.
    pub fn slot(&self, ty: Ty) -> Slot {
        let bytes = ty.bytes() as i64;
        Slot { offset: self.block(bytes, bytes.min(64)), ty }
    }

    /// A new block of state, zero when a run starts; its offset.
    pub fn block(&self, bytes: i64, align: i64) -> i64 {
        let offset = round_up(self.size.get(), align.max(1));
        self.size.set(offset + bytes);
        offset
    }

    /// The slot that the session fills with `bind`.
    pub fn bind(&self, bind: Bind) -> Slot {
        if let Some((_, slot)) = self.bound.borrow().iter().find(|(b, _)| *b == bind) {
            return *slot;
        }
        let ty = match &bind {
            Bind::Rows { .. } | Bind::Dim { .. } | Bind::Parameter { .. } => Ty::I64,
            Bind::Column { part: Part::ValidityOffset | Part::DictLen, .. } => Ty::I64,
            Bind::Scalar { prim, .. } => Ty::scalar(*prim),
            _ => Ty::PTR,
        };
        let slot = self.slot(ty);
        self.bound.borrow_mut().push((bind, slot));
        slot
    }

    /// Size in bytes, a multiple of 64.
    pub fn bytes(&self) -> i64 {
        round_up(self.size.get(), 64)
    }

    /// What the session has to fill in.
    pub fn bindings(&self) -> Vec<(Bind, Slot)> {
        self.bound.borrow().clone()
    }
}

/// The smallest multiple of `to` that is not below `bytes`.
pub fn round_up(bytes: i64, to: i64) -> i64 {
    (bytes + to - 1) / to * to
}

/// Handle of the run, the first argument of every runtime call.
pub fn run_handle<'b>(b: &'b Builder, frame: V<'b>) -> V<'b> {
    b.load_hoisted(Ty::PTR, frame, abi::FRAME_RUN)
}

/// Number of workers.
pub fn workers<'b>(b: &'b Builder, frame: V<'b>) -> V<'b> {
    b.load_hoisted(Ty::I64, frame, abi::FRAME_WORKERS)
}
