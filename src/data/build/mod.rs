//! Columns built from Arrow arrays, one array after the other, so that no two copies of a column are ever whole in
//! memory.
//!
//! | file | what it holds |
//! |---|---|
//! | `ints` | integers in the narrowest storage |
//! | `texts` | strings, and their codes |
//! | `packing` | strings that are packed while they arrive |

mod ints;
mod packing;
mod texts;

pub(super) use ints::Ints;
pub(super) use texts::PART_ROWS;

use super::growing::Growing;
use super::import::Layout;
use super::{Column, LoadOptions, PackedBlock, Phys, Result, TextBlock, Validity, Values, stats, zones};
use arrow::array::*;
use arrow::compute::{max, min};
use arrow::datatypes::*;
use quearn_stage::graph::Elem;
use rayon::prelude::*;
use texts::Texts;

/// A column so far.
pub(crate) struct ColumnBuilder {
    name: String,
    nullable: bool,
    layout: Layout,
    rows: usize,
    /// Rows that there will be.
    expected: usize,
    /// Bits of all rows, once one of them is NULL.
    validity: Option<BooleanBufferBuilder>,
    values: Builder,
}

enum Builder {
    /// Integers that are narrowed.
    Ints(Ints),
    /// Values of a fixed width as they are.
    Fixed(Phys, Growing),
    Texts(Texts),
}

impl ColumnBuilder {
    /// A column of arrays of the type of `field` (strings may come with dictionaries), which has `rows` rows in the
    /// end, and if it has strings, about `text_bytes` bytes of them.
    pub(crate) fn new(field: &Field, rows: usize, text_bytes: usize, options: &LoadOptions) -> Result<ColumnBuilder> {
        let layout = Layout::of(field.name(), field.data_type())?;
        let values = builder(&layout, rows, text_bytes, options);
        let (name, nullable) = (field.name().clone(), field.is_nullable());
        Ok(ColumnBuilder { name, nullable, layout, rows: 0, expected: rows, validity: None, values })
    }

    /// Appends the rows of an array.
    pub(crate) fn append(&mut self, array: &ArrayRef) -> Result<()> {
        let leaf = self.layout.leaf(&self.name, array)?;
        match (array.logical_nulls().filter(|nulls| nulls.null_count() > 0), &mut self.validity) {
            (Some(nulls), Some(bits)) => bits.append_buffer(nulls.inner()),
            (None, Some(bits)) => bits.append_n(array.len(), true),
            (Some(nulls), none) => {
                let mut bits = BooleanBufferBuilder::new(self.expected.min(1 << 30));
                bits.append_n(self.rows, true);
                bits.append_buffer(nulls.inner());
                *none = Some(bits);
            }
            (None, None) => {}
        }
        self.values.append(&leaf);
        self.rows += array.len();
        Ok(())
    }

    /// A block of strings to be packed, on any thread; it comes back by [`ColumnBuilder::put_block`].
    pub(crate) fn next_block(&mut self) -> Option<TextBlock> {
        if let Builder::Texts(texts) = &mut self.values { texts.next_block() } else { None }
    }

    /// Takes a packed block.
    pub(crate) fn put_block(&mut self, block: PackedBlock) {
        if let Builder::Texts(texts) = &mut self.values {
            texts.put_block(block);
        }
    }

    /// Packs, on all threads, what is to be packed.
    pub(crate) fn pack(&mut self) {
        loop {
            let blocks: Vec<TextBlock> = std::iter::from_fn(|| self.next_block()).take(256).collect();
            if blocks.is_empty() {
                return;
            }
            let packed: Vec<PackedBlock> = blocks.par_iter().map(TextBlock::pack).collect();
            packed.into_iter().for_each(|block| self.put_block(block));
        }
    }

    /// The column, with statistics and zones.
    pub(crate) fn finish(self) -> Column {
        let bits = |mut bits: BooleanBufferBuilder| Validity { bits: bits.finish().into_inner(), offset: 0 };
        let (values, facts) = match self.values {
            Builder::Ints(ints) => (ints.into_values(), None),
            Builder::Fixed(phys, bytes) => (Values::Fixed { phys, data: bytes.finish() }, None),
            Builder::Texts(texts) => texts.into_values(),
        };
        column(self.name, self.nullable, self.layout, self.rows, values, self.validity.map(bits), facts)
    }
}

/// A column with its statistics and zones. The facts of packed strings are known.
pub(super) fn column(
    name: String,
    nullable: bool,
    layout: Layout,
    rows: usize,
    values: Values,
    validity: Option<Validity>,
    facts: Option<stats::TextFacts>,
) -> Column {
    let inner = !layout.shape.is_empty();
    let stats = stats::gather(&values, validity.as_ref(), rows, inner, facts.as_ref());
    let zones = if inner { None } else { zones::gather(layout.scalar, &values, validity.as_ref(), rows) };
    let elem = Elem { scalar: layout.scalar, nullable: nullable || validity.is_some() };
    Column { name, elem, shape: layout.shape, rows, values, validity, stats, zones }
}

fn builder(layout: &Layout, rows: usize, text_bytes: usize, options: &LoadOptions) -> Builder {
    let values = rows.saturating_mul(layout.inner_len());
    let texts = |limit: usize| Builder::Texts(Texts::new(limit, rows, text_bytes, options.pack_from));
    match (layout.phys(), &layout.leaf) {
        (None, DataType::Dictionary(..)) => texts(u32::MAX as usize),
        (None, _) => texts(dictionary_limit(rows, options)),
        (Some(_), _) if layout.narrows(options) => Builder::Ints(Ints::new(Phys::I8, rows)),
        (Some(phys), _) => Builder::Fixed(phys, Growing::with_capacity(values.saturating_mul(phys.bytes()))),
    }
}

/// The most distinct strings that are stored as codes.
fn dictionary_limit(rows: usize, options: &LoadOptions) -> usize {
    // A small table gains more from codes than its dictionary costs, even if all of its strings are distinct.
    options.dictionary_limit.min((rows / 4).max(256)).min(u32::MAX as usize - 1)
}

impl Builder {
    fn append(&mut self, leaf: &ArrayRef) {
        match self {
            Builder::Texts(texts) => texts.append(leaf),
            Builder::Ints(ints) => match leaf.data_type() {
                DataType::Int16 => append_narrowed::<Int16Type>(ints, leaf),
                DataType::Int32 => append_narrowed::<Int32Type>(ints, leaf),
                DataType::Int64 => append_narrowed::<Int64Type>(ints, leaf),
                DataType::Decimal32(..) => append_narrowed::<Decimal32Type>(ints, leaf),
                DataType::Decimal64(..) => append_narrowed::<Decimal64Type>(ints, leaf),
                DataType::Decimal128(..) => append_narrowed::<Decimal128Type>(ints, leaf),
                DataType::Date32 => append_narrowed::<Date32Type>(ints, leaf),
                _ => append_narrowed::<TimestampMicrosecondType>(ints, leaf),
            },
            Builder::Fixed(_, bytes) => match leaf.data_type() {
                DataType::Boolean => {
                    let flags: Vec<u8> = leaf.as_boolean().values().iter().map(u8::from).collect();
                    bytes.extend_from_slice(&flags);
                }
                DataType::Interval(_) => {
                    bytes.extend(leaf.as_primitive::<IntervalMonthDayNanoType>().values().iter().map(interval));
                }
                // The first buffer of any other type is its values.
                _ => leaf.to_data().buffers().first().into_iter().for_each(|values| bytes.extend_from_slice(values)),
            },
        }
    }
}

fn append_narrowed<T>(ints: &mut Ints, array: &ArrayRef)
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    let array = array.as_primitive::<T>();
    let bound = |value: Option<T::Native>| value.map_or(0, Into::into);
    ints.append(array.values(), array.nulls(), (bound(min(array)), bound(max(array))));
}

/// As it is stored, see [`Phys::I128`].
fn interval(v: &IntervalMonthDayNano) -> i128 {
    let micros = v.nanoseconds / 1_000;
    i128::from(micros) << 64 | i128::from(v.days as u32) << 32 | i128::from(v.months as u32)
}
