//! Aggregation.
//!
//! NULL arguments are skipped; an empty sum, minimum, maximum or average is NULL.

use super::marker::{Comparable, Dyn, Elementwise, F64, I64, Summable, Table};
use super::row::Row;
use super::stage::Rep;
use crate::graph::{Aggregate, AggregateOp, Op};

/// The groups of a table, see [`Rep::group_by`].
#[derive(Clone, Debug)]
pub struct Groups<'s> {
    table: Rep<'s, Table>,
    keys: Vec<(String, Rep<'s, Dyn>)>,
}

/// A named aggregate: [`sum`], [`min`], [`max`], [`avg`], [`count`], [`count_of`] or
/// [`count_distinct`].
#[derive(Clone, Debug)]
pub struct Agg<'s> {
    aggregate: Aggregate,
    argument: Option<Rep<'s, Dyn>>,
}

fn agg<'s>(name: impl Into<String>, op: AggregateOp, argument: Option<Rep<'s, Dyn>>) -> Agg<'s> {
    Agg { aggregate: Aggregate { name: name.into(), op }, argument }
}

/// Sum of numbers.
pub fn sum<'s, T: Summable>(name: impl Into<String>, value: Rep<'s, T>) -> Agg<'s> {
    agg(name, AggregateOp::Sum, Some(value.dyn_()))
}

/// Smallest value.
pub fn min<'s, T: Elementwise>(name: impl Into<String>, value: Rep<'s, T>) -> Agg<'s> {
    agg(name, AggregateOp::Min, Some(value.dyn_()))
}

/// Largest value.
pub fn max<'s, T: Elementwise>(name: impl Into<String>, value: Rep<'s, T>) -> Agg<'s> {
    agg(name, AggregateOp::Max, Some(value.dyn_()))
}

/// Mean of numbers, an f64.
pub fn avg<'s, T: Summable>(name: impl Into<String>, value: Rep<'s, T>) -> Agg<'s> {
    agg(name, AggregateOp::Avg, Some(value.dyn_()))
}

/// Number of rows.
pub fn count<'s>(name: impl Into<String>) -> Agg<'s> {
    agg(name, AggregateOp::CountRows, None)
}

/// Number of values that are not NULL.
pub fn count_of<'s, T: Elementwise>(name: impl Into<String>, value: Rep<'s, T>) -> Agg<'s> {
    agg(name, AggregateOp::Count, Some(value.dyn_()))
}

/// Number of different values that are not NULL. Several of them in one aggregation must count the same expression.
pub fn count_distinct<'s, T: Comparable>(name: impl Into<String>, value: Rep<'s, T>) -> Agg<'s> {
    agg(name, AggregateOp::CountDistinct, Some(value.dyn_()))
}

impl<'s> Groups<'s> {
    pub(super) fn new(table: Rep<'s, Table>, keys: Vec<(String, Rep<'s, Dyn>)>) -> Groups<'s> {
        Groups { table, keys }
    }

    /// One row for each group: the keys, then these aggregates.
    #[track_caller]
    pub fn agg<A: IntoIterator<Item = Agg<'s>>>(self, aggregates: impl FnOnce(Row<'s>) -> A) -> Rep<'s, Table> {
        let aggregates: Vec<Agg<'s>> = aggregates(self.table.row()).into_iter().collect();
        let (keys, values): (Vec<_>, Vec<_>) = self.keys.into_iter().unzip();
        let mut inputs = vec![self.table.dyn_()];
        inputs.extend(values);
        inputs.extend(aggregates.iter().filter_map(|a| a.argument));
        let aggregates = aggregates.into_iter().map(|a| a.aggregate).collect();
        self.table.stage().make(Op::Aggregate { keys, aggregates }, &inputs)
    }
}

/// Aggregates of a whole table as scalars.
impl<'s> Rep<'s, Table> {
    #[track_caller]
    fn fold<T>(self, op: AggregateOp, argument: Option<Rep<'s, Dyn>>) -> Rep<'s, T> {
        const NAME: &str = "value";
        let folded = self.aggregate(|_| [agg(NAME, op, argument)]);
        let column = folded.row().col(NAME);
        self.stage().make(Op::Single, &[column])
    }

    /// Sum over all rows; NULL if there are none.
    #[track_caller]
    pub fn sum<T: Summable>(self, value: impl FnOnce(Row<'s>) -> Rep<'s, T>) -> Rep<'s, T::Sum> {
        let value = value(self.row());
        self.fold(AggregateOp::Sum, Some(value.dyn_()))
    }

    /// Smallest value of all rows; NULL if there are none.
    #[track_caller]
    pub fn min<T: Elementwise>(self, value: impl FnOnce(Row<'s>) -> Rep<'s, T>) -> Rep<'s, T> {
        let value = value(self.row());
        self.fold(AggregateOp::Min, Some(value.dyn_()))
    }

    /// Largest value of all rows; NULL if there are none.
    #[track_caller]
    pub fn max<T: Elementwise>(self, value: impl FnOnce(Row<'s>) -> Rep<'s, T>) -> Rep<'s, T> {
        let value = value(self.row());
        self.fold(AggregateOp::Max, Some(value.dyn_()))
    }

    /// Mean over all rows; NULL if there are none.
    #[track_caller]
    pub fn avg<T: Summable>(self, value: impl FnOnce(Row<'s>) -> Rep<'s, T>) -> Rep<'s, F64> {
        let value = value(self.row());
        self.fold(AggregateOp::Avg, Some(value.dyn_()))
    }

    /// Number of rows.
    #[track_caller]
    pub fn count(self) -> Rep<'s, I64> {
        self.fold(AggregateOp::CountRows, None)
    }
}
