//! Columns as tensors, tensors as columns: no copy is meant, only another view.

use super::marker::{ElementMarker, ScalarMarker, Table, Tensor};
use super::row::Row;
use super::stage::Rep;
use crate::graph::Op;

impl<'s> Rep<'s, Table> {
    /// Columns side by side as a tensor [rows, k], converted to one type. NULLs stay NULL.
    #[track_caller]
    pub fn tensor<T: ScalarMarker>(self, names: &[&str]) -> Rep<'s, Tensor<T>> {
        let mut columns = vec![];
        for name in names {
            columns.push(self.row().col(name).cast::<T>());
        }
        self.stage().make(Op::Stack, &columns)
    }

    /// The value in a column of a table that has one row, such as an aggregate of a whole table.
    #[track_caller]
    pub fn single<T: ElementMarker>(self, name: &str) -> Rep<'s, T> {
        let column: Rep<'s, T> = self.row().get(name);
        self.stage().make(Op::Single, &[column.dyn_()])
    }

    /// The table with one more column, computed by a function of tensors whose first dimension is the rows: applies a
    /// model to every row.
    #[track_caller]
    pub fn map_rows<T: ElementMarker>(
        self,
        name: &str,
        model: impl FnOnce(Row<'s>) -> Rep<'s, Tensor<T>>,
    ) -> Rep<'s, Table> {
        self.with(name, model)
    }
}

impl<'s, T: ElementMarker> Rep<'s, Tensor<T>> {
    /// A tensor of one dimension over the rows of a table as a column (or one of none as a scalar).
    #[track_caller]
    pub fn as_column(self) -> Rep<'s, T> {
        self.checked("as_column", "the tensor")
    }
}

impl<'s, T: ElementMarker> Rep<'s, T> {
    /// A column as a tensor of one dimension (or a scalar as one of none).
    pub fn as_tensor(self) -> Rep<'s, Tensor<T>> {
        self.retag()
    }

    /// Columns or scalars of one type side by side, in a new last dimension.
    #[track_caller]
    pub fn stack(self, others: impl IntoIterator<Item = Rep<'s, T>>) -> Rep<'s, Tensor<T>> {
        let inputs: Vec<_> = std::iter::once(self).chain(others).map(Rep::dyn_).collect();
        self.stage().make(Op::Stack, &inputs)
    }
}
