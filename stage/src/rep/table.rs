//! Relational operators.

use super::group::{Agg, Groups};
use super::marker::{Bool, Dyn, Elementwise, Table};
use super::row::Row;
use super::stage::Rep;
use crate::graph::{Field, JoinKind, Op, SortKey};

/// One key of a sort: [`asc`] or [`desc`].
#[derive(Clone, Debug)]
pub struct Order {
    column: String,
    key: SortKey,
}

/// Smallest first, NULLs last.
pub fn asc(column: impl Into<String>) -> Order {
    Order { column: column.into(), key: SortKey { descending: false, nulls_first: false } }
}

/// Largest first, NULLs last.
pub fn desc(column: impl Into<String>) -> Order {
    Order { column: column.into(), key: SortKey { descending: true, nulls_first: false } }
}

impl Order {
    /// NULLs before everything else.
    pub fn nulls_first(mut self) -> Order {
        self.key.nulls_first = true;
        self
    }
}

impl<'s> Rep<'s, Table> {
    /// The columns; empty after a mistake.
    pub fn fields(self) -> Vec<Field> {
        let ty = self.ty();
        ty.and_then(|ty| ty.as_table().map(|(fields, _)| fields.to_vec())).unwrap_or_default()
    }

    /// Any row of the table, for expressions over all of its rows.
    pub fn row(self) -> Row<'s> {
        Row::new(self)
    }

    /// The rows for which the condition is true (not false, not NULL).
    #[track_caller]
    pub fn filter(self, condition: impl FnOnce(Row<'s>) -> Rep<'s, Bool>) -> Rep<'s, Table> {
        let condition = condition(self.row());
        self.stage().make(Op::Filter, &[self.dyn_(), condition.dyn_()])
    }

    /// As `filter`, with a condition whose type is known only when the program is built.
    #[track_caller]
    pub fn filter_dyn(self, condition: impl FnOnce(Row<'s>) -> Rep<'s, Dyn>) -> Rep<'s, Table> {
        self.filter(|r| condition(r).typed())
    }

    /// A table of these columns over the same rows.
    #[track_caller]
    pub fn project<N: Into<String>, C>(self, columns: impl FnOnce(Row<'s>) -> C) -> Rep<'s, Table>
    where
        C: IntoIterator<Item = (N, Rep<'s, Dyn>)>,
    {
        self.columns(columns(self.row()).into_iter().map(|(name, value)| (name.into(), value)))
    }

    #[track_caller]
    fn columns(self, columns: impl Iterator<Item = (String, Rep<'s, Dyn>)>) -> Rep<'s, Table> {
        let mut names = vec![];
        let mut inputs = vec![self.dyn_()];
        for (name, value) in columns {
            names.push(name);
            inputs.push(value);
        }
        self.stage().make(Op::Project { names }, &inputs)
    }

    /// Some of the columns.
    #[track_caller]
    pub fn select<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Rep<'s, Table> {
        let columns: Vec<_> = names.into_iter().map(|name| (name.to_owned(), self.row().col(name))).collect();
        self.columns(columns.into_iter())
    }

    /// The table with one more column, or another in the place of the one with that name.
    #[track_caller]
    pub fn with<T: Elementwise>(self, name: &str, value: impl FnOnce(Row<'s>) -> Rep<'s, T>) -> Rep<'s, Table> {
        let value = value(self.row()).dyn_();
        let mut columns = self.named_columns();
        match columns.iter_mut().find(|(other, _)| other == name) {
            Some(column) => column.1 = value,
            None => columns.push((name.to_owned(), value)),
        }
        self.columns(columns.into_iter())
    }

    /// The table with a column under another name.
    #[track_caller]
    pub fn rename(self, from: &str, to: &str) -> Rep<'s, Table> {
        // Asked for by name, so that a missing column is an error.
        let renamed = self.row().col(from);
        let mut columns = self.named_columns();
        match columns.iter_mut().find(|(name, _)| name == from) {
            Some(column) => *column = (to.to_owned(), renamed),
            None => return self.stage().poisoned(),
        }
        self.columns(columns.into_iter())
    }

    #[track_caller]
    fn named_columns(self) -> Vec<(String, Rep<'s, Dyn>)> {
        let mut columns = vec![];
        for field in self.fields() {
            let value = self.row().col(&field.name);
            columns.push((field.name, value));
        }
        columns
    }

    /// Every pair of rows. A column name on both sides is an error.
    #[track_caller]
    pub fn product(self, other: Rep<'s, Table>) -> Rep<'s, Table> {
        self.stage().make(Op::Product, &[self.dyn_(), other.dyn_()])
    }

    /// The rows of this table and of others (UNION ALL), in any order. They have the same columns, in any order; a column may be
    /// NULL where it may be in one of them.
    ///
    /// ```
    /// use quearn_stage::graph::{Field, Scalar};
    /// use quearn_stage::rep::Stage;
    ///
    /// let s = Stage::new();
    /// let [this, last] = ["this_year", "last_year"].map(|year| s.scan(year, [Field::new("price", Scalar::F64)]));
    /// s.output("prices", this.union([last]));
    /// assert!(s.finish()?.to_string().contains(r#"rel.union v0, v1 of ["price"]"#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn union(self, others: impl IntoIterator<Item = Rep<'s, Table>>) -> Rep<'s, Table> {
        let tables: Vec<Rep<'s, Table>> = std::iter::once(self).chain(others).collect();
        let names: Vec<String> = self.fields().into_iter().map(|field| field.name).collect();
        let more = |table: &Rep<'s, Table>| table.fields().into_iter().find(|field| !names.contains(&field.name));
        // Columns that one table has alone: asked for by name in the first, so that they are an error.
        if let Some(field) = tables.iter().find_map(more) {
            self.row().col(&field.name);
            return self.stage().poisoned();
        }
        let inputs: Vec<_> = tables.iter().map(|table| table.dyn_()).collect();
        self.stage().make(Op::Union { names }, &inputs)
    }

    /// Pairs of rows with equal keys, given as pairs of column names. NULL equals nothing. A right key column with the
    /// name of its left partner is left out of the result; another name on both sides is an error.
    #[track_caller]
    pub fn join<'n>(
        self,
        other: Rep<'s, Table>,
        kind: JoinKind,
        keys: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Rep<'s, Table> {
        let keys = self.named_keys(other, keys);
        self.join_by(other, kind, |_, _| keys)
    }

    /// As `join`, with a further condition on the pair. The names of both sides must differ.
    #[track_caller]
    pub fn join_if<'n>(
        self,
        other: Rep<'s, Table>,
        kind: JoinKind,
        keys: impl IntoIterator<Item = (&'n str, &'n str)>,
        condition: impl FnOnce(Row<'s>) -> Rep<'s, Bool>,
    ) -> Rep<'s, Table> {
        let keys = self.named_keys(other, keys);
        let condition = condition(self.product(other).row());
        self.join_with(other, kind, keys, Some(condition))
    }

    /// Pairs of rows with equal keys, given as expressions of the left and the right row.
    #[track_caller]
    pub fn join_by<K>(
        self,
        other: Rep<'s, Table>,
        kind: JoinKind,
        keys: impl FnOnce(Row<'s>, Row<'s>) -> K,
    ) -> Rep<'s, Table>
    where
        K: IntoIterator<Item = (Rep<'s, Dyn>, Rep<'s, Dyn>)>,
    {
        let keys = keys(self.row(), other.row()).into_iter().collect();
        self.join_with(other, kind, keys, None)
    }

    #[track_caller]
    fn named_keys<'n>(
        self,
        other: Rep<'s, Table>,
        keys: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Vec<(Rep<'s, Dyn>, Rep<'s, Dyn>)> {
        let mut columns = vec![];
        for (left, right) in keys {
            columns.push((self.row().col(left), other.row().col(right)));
        }
        columns
    }

    #[track_caller]
    fn join_with(
        self,
        other: Rep<'s, Table>,
        kind: JoinKind,
        keys: Vec<(Rep<'s, Dyn>, Rep<'s, Dyn>)>,
        residual: Option<Rep<'s, Bool>>,
    ) -> Rep<'s, Table> {
        let mut inputs = vec![self.dyn_(), other.dyn_()];
        inputs.extend(keys.iter().map(|(left, _)| *left));
        inputs.extend(keys.iter().map(|(_, right)| *right));
        inputs.extend(residual.map(Rep::dyn_));
        self.stage().make(Op::Join { kind, keys: keys.len() }, &inputs)
    }

    /// Pairs of rows with equal keys.
    #[track_caller]
    pub fn join_inner<'n>(
        self,
        other: Rep<'s, Table>,
        keys: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Rep<'s, Table> {
        self.join(other, JoinKind::Inner, keys)
    }

    /// Pairs of rows with equal keys, and left rows without a partner with NULLs on the right.
    #[track_caller]
    pub fn join_left<'n>(
        self,
        other: Rep<'s, Table>,
        keys: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Rep<'s, Table> {
        self.join(other, JoinKind::Left, keys)
    }

    /// Rows that have a partner, once each.
    #[track_caller]
    pub fn join_semi<'n>(
        self,
        other: Rep<'s, Table>,
        keys: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Rep<'s, Table> {
        self.join(other, JoinKind::Semi, keys)
    }

    /// Rows that have no partner.
    #[track_caller]
    pub fn join_anti<'n>(
        self,
        other: Rep<'s, Table>,
        keys: impl IntoIterator<Item = (&'n str, &'n str)>,
    ) -> Rep<'s, Table> {
        self.join(other, JoinKind::Anti, keys)
    }

    /// All rows, once each, with a bool column `mark` more: is there a partner? For EXISTS under OR or NOT, or as a value;
    /// a filter by nothing but the mark is a semi- or anti-join. The mark is never NULL, and a NULL key has no partner. An
    /// `x IN (…)` that has to be NULL sometimes is made from it: where there is no partner it is NULL if `x` is, or if
    /// one of the values is, unless there are no values.
    ///
    /// ```
    /// use quearn_stage::graph::{Field, Scalar};
    /// use quearn_stage::rep::Stage;
    ///
    /// let s = Stage::new();
    /// let people = s.scan("people", [Field::new("id", Scalar::I64), Field::new("age", Scalar::I32)]);
    /// let members = s.scan("members", [Field::new("person", Scalar::I64)]);
    /// let marked = people.join_mark(members, [("id", "person")], "member");
    /// s.output("guests", marked.filter(|r| r.bool("member") | r.i32("age").lt(6)).select(["id"]));
    /// assert!(s.finish()?.to_string().contains(r#"rel.join_mark v0, v1, v2, v3 keys 1 as "member""#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn join_mark<'n>(
        self,
        other: Rep<'s, Table>,
        keys: impl IntoIterator<Item = (&'n str, &'n str)>,
        mark: &str,
    ) -> Rep<'s, Table> {
        self.join(other, JoinKind::Mark(mark.to_owned()), keys)
    }

    /// Groups of rows with equal values in these columns (NULL is a value of its own); see [`Groups::agg`].
    #[track_caller]
    pub fn group_by<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Groups<'s> {
        let keys = names.into_iter().map(|name| (name.to_owned(), self.row().col(name))).collect();
        Groups::new(self, keys)
    }

    /// Groups of rows with equal values of these expressions, which become columns of the result.
    #[track_caller]
    pub fn group_by_exprs<N: Into<String>, C>(self, keys: impl FnOnce(Row<'s>) -> C) -> Groups<'s>
    where
        C: IntoIterator<Item = (N, Rep<'s, Dyn>)>,
    {
        let keys = keys(self.row()).into_iter().map(|(name, key)| (name.into(), key)).collect();
        Groups::new(self, keys)
    }

    /// One row with aggregates of the whole table.
    #[track_caller]
    pub fn aggregate<A: IntoIterator<Item = Agg<'s>>>(self, aggregates: impl FnOnce(Row<'s>) -> A) -> Rep<'s, Table> {
        Groups::new(self, vec![]).agg(aggregates)
    }

    /// The rows in an order; ties in any order.
    #[track_caller]
    pub fn sort(self, orders: impl IntoIterator<Item = Order>) -> Rep<'s, Table> {
        let mut keys = vec![];
        let mut inputs = vec![self.dyn_()];
        for order in orders {
            keys.push(order.key);
            inputs.push(self.row().col(&order.column));
        }
        self.stage().make(Op::Sort(keys), &inputs)
    }

    /// The first `count` rows, in the order of a sort below.
    #[track_caller]
    pub fn limit(self, count: u64) -> Rep<'s, Table> {
        self.slice(0, count)
    }

    /// All but the first `offset` rows, in the order of a sort below.
    #[track_caller]
    pub fn offset(self, offset: u64) -> Rep<'s, Table> {
        self.slice(offset, u64::MAX)
    }

    /// `count` rows after the first `offset`, in the order of a sort below.
    #[track_caller]
    pub fn slice(self, offset: u64, count: u64) -> Rep<'s, Table> {
        self.stage().make(Op::Limit { offset, count }, &[self.dyn_()])
    }
}
