//! Columns of integers, decimals, dates and codes while they are built.

use crate::data::growing::Growing;
use crate::data::{Phys, Values};
use arrow::buffer::{Buffer, NullBuffer};

/// Integers in the narrowest storage that holds all of them so far.
pub(in crate::data) struct Ints {
    phys: Phys,
    bytes: Growing,
    /// Rows that are expected.
    rows: usize,
}

/// Does something for the Rust type of a storage of integers.
macro_rules! with_native {
    ($phys:expr, $t:ident => $body:expr) => {
        match $phys {
            Phys::I8 => {
                type $t = i8;
                $body
            }
            Phys::I16 => {
                type $t = i16;
                $body
            }
            Phys::I32 => {
                type $t = i32;
                $body
            }
            Phys::I64 => {
                type $t = i64;
                $body
            }
            _ => {
                type $t = i128;
                $body
            }
        }
    };
}

impl Ints {
    /// No integers yet, of which there will be about `rows`; they begin in the storage `phys`.
    pub(in crate::data) fn new(phys: Phys, rows: usize) -> Ints {
        Ints { phys, bytes: Growing::with_capacity(rows.saturating_mul(phys.bytes())), rows }
    }

    /// Appends integers that lie in `range`; rows that are NULL, whose values may not, become 0.
    pub(in crate::data) fn append<T>(&mut self, values: &[T], nulls: Option<&NullBuffer>, range: (i128, i128))
    where
        T: Copy + Into<i128>,
    {
        self.widen(Phys::holding(range.0, range.1));
        let values = values.iter().map(|v| -> i128 { (*v).into() });
        with_native!(self.phys, N => match nulls {
            None => self.bytes.extend(values.map(|v| v as N)),
            Some(nulls) => {
                self.bytes.extend(values.zip(nulls.iter()).map(|(v, valid)| if valid { v as N } else { 0 }));
            }
        });
    }

    /// Goes over to `phys` where that is wider.
    fn widen(&mut self, phys: Phys) {
        if phys <= self.phys {
            return;
        }
        let mut wider = Ints::new(phys, self.rows);
        with_native!(self.phys, N => {
            let values = self.bytes.as_slice::<N>().iter();
            with_native!(phys, W => wider.bytes.extend(values.map(|v| *v as W)))
        });
        *self = wider;
    }

    /// Every integer, as a position.
    pub(in crate::data) fn positions(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        with_native!(self.phys, N => Box::new(self.bytes.as_slice::<N>().iter().map(|v| *v as usize)))
    }

    /// The integers of `table` at these positions, all of which the storage `phys` holds.
    pub(in crate::data) fn mapped(&self, phys: Phys, table: &[u32]) -> Buffer {
        let mut mapped = Growing::with_capacity(self.rows.saturating_mul(phys.bytes()));
        with_native!(self.phys, N => {
            let values = self.bytes.as_slice::<N>().iter().map(|v| table[*v as usize]);
            with_native!(phys, W => mapped.extend(values.map(|v| v as W)))
        });
        mapped.finish()
    }

    /// As values of a column.
    pub(super) fn into_values(self) -> Values {
        Values::Fixed { phys: self.phys, data: self.bytes.finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_widens_as_values_come() {
        let mut ints = Ints::new(Phys::I8, 10);
        let steps = [(5, Phys::I8), (-300, Phys::I16), (7, Phys::I16), (1 << 40, Phys::I64), (-1 << 90, Phys::I128)];
        for (value, phys) in steps {
            ints.append(&[value], None, (value, value));
            assert_eq!(ints.phys, phys);
        }
        let nulls = NullBuffer::from(vec![false, true]);
        ints.append(&[i128::MAX, 3], Some(&nulls), (3, 3));
        assert_eq!(ints.positions().take(1).collect::<Vec<_>>(), [5]);
        let Values::Fixed { data, .. } = ints.into_values() else { panic!() };
        assert_eq!(data.typed_data::<i128>(), [5, -300, 7, 1 << 40, -1 << 90, 0, 3]);
    }
}
