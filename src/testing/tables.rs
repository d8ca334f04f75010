//! Random tables: every type, NULLs, skew, few distinct values, no rows, extreme values.

use super::maker::{Class, Col, Maker, Rel};
use crate::eval::{Datum, EvalTable, EvalTensor, Interval};
use quearn_stage::graph::literal::int_range;
use quearn_stage::graph::{Op, Scalar};

const WORDS: [&str; 9] = ["", "a", "ab", "abc", "special requests", "PROMO BRUSHED", "100%", "é", "x_y"];

/// Every type that Arrow has; those that most operations take come more than once.
const TYPES: [Scalar; 18] = [
    Scalar::Bool,
    Scalar::I8,
    Scalar::U8,
    Scalar::I16,
    Scalar::I32,
    Scalar::I32,
    Scalar::I64,
    Scalar::I64,
    Scalar::F16,
    Scalar::F32,
    Scalar::F32,
    Scalar::F64,
    Scalar::decimal(5, 2),
    Scalar::decimal(15, 2),
    Scalar::decimal(30, 4),
    Scalar::Date,
    Scalar::Timestamp,
    Scalar::String,
];

/// How the values of a column are spread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// Three values.
    Few,
    /// Mostly one value.
    Skewed,
    /// A hundred values.
    Many,
    /// The ends of the type among them.
    Extreme,
}

impl Maker {
    /// A scan of a new random table.
    pub fn table(&mut self) -> Rel {
        let rows = if self.rng.percent(8) { 0 } else { self.rng.below(4 * self.size) + 1 };
        let count = self.rng.below(4) + 3;
        let mut columns = vec![];
        // A narrow key that other tables have too, and a float for the bridges.
        let mut scalars = vec![Scalar::I32, Scalar::F32];
        scalars.extend((2..count).map(|_| if self.rng.percent(4) { Scalar::Interval } else { *self.rng.pick(&TYPES) }));
        for scalar in scalars {
            columns.push((self.name("c"), self.values(scalar, rows)));
        }
        let named = columns.iter().map(|(name, column)| (name.as_str(), column.clone())).collect();
        let table = EvalTable::of(named);
        let name = self.name("t");
        let fields = table.fields().to_vec();
        self.inputs.tables.insert(name.clone(), table);
        let col = |(name, column): &(String, EvalTensor)| Col { name: name.clone(), elem: column.elem(), exact: true };
        let columns = columns.iter().map(col).collect();
        Rel { node: self.add(Op::Scan { table: name, fields }, &[]), columns }
    }

    fn values(&mut self, scalar: Scalar, rows: usize) -> EvalTensor {
        let spread = match self.rng.below(20) {
            0 | 1 => Spread::Extreme,
            2..8 => Spread::Few,
            8..13 => Spread::Skewed,
            _ => Spread::Many,
        };
        let nulls = *self.rng.pick(&[0, 0, 0, 10, 50]);
        let elem = if nulls == 0 { scalar.required() } else { scalar.nullable() };
        let data: Vec<Datum> =
            (0..rows).map(|_| if self.rng.percent(nulls) { Datum::Null } else { self.datum(scalar, spread) }).collect();
        EvalTensor::new(elem, &[rows], data)
    }

    fn datum(&mut self, scalar: Scalar, spread: Spread) -> Datum {
        let small = match spread {
            Spread::Few => self.rng.within(0, 2),
            Spread::Skewed if self.rng.percent(80) => 1,
            _ => self.rng.within(0, 99),
        };
        match Class::of(scalar) {
            Class::Bool => Datum::Bool(small % 2 == 1),
            Class::Str => Datum::str(WORDS[small as usize % WORDS.len()]),
            Class::Float => Datum::Float(((small + 32) % 65 - 32) as f64 / 4.0),
            Class::Interval => Datum::Interval(Interval { months: small as i32, days: 1, micros: small }),
            Class::Date => Datum::Int(self.end(scalar, spread).unwrap_or(9_000 + i128::from(small))),
            Class::Timestamp => {
                let hours = 3_600_000_000 * i128::from(small * 7);
                Datum::Int(self.end(scalar, spread).unwrap_or(hours + 777_600_000_000_000))
            }
            Class::Int | Class::Decimal => Datum::Int(self.end(scalar, spread).unwrap_or(small.into())),
        }
    }

    /// Sometimes, for an extreme spread, the smallest or largest value of the type.
    fn end(&mut self, scalar: Scalar, spread: Spread) -> Option<i128> {
        let (lo, hi) = match scalar {
            Scalar::Decimal { precision, .. } => (1 - 10i128.pow(precision.into()), 10i128.pow(precision.into()) - 1),
            // Years 1 to 9999, as in SQL.
            Scalar::Date => (-719_162, 2_932_896),
            Scalar::Timestamp => (-719_162 * 86_400_000_000, 2_932_896 * 86_400_000_000),
            _ => int_range(scalar)?,
        };
        let at_end = spread == Spread::Extreme && self.rng.percent(20);
        at_end.then(|| *self.rng.pick(&[lo, hi, hi - 1]))
    }
}
