//! Features of models: values of tables and pictures as the numbers that a model wants.
//!
//! Each is written in operations of the graph, and so is computed where it is read: in the loop that gathers the rows of a
//! model, or in its first layer. Values by row keep their shape; what gives several numbers a row gives a list of columns,
//! which [`Rep::stack`] puts side by side.

use super::constant::IntoRep;
use super::group::{avg, max, min};
use super::marker::{
    Arith, Bool, Comparable, Date, DateLike, Dyn, ElementMarker, F64, FloatLike, I64, ScalarMarker, Str, Table, Tensor,
    TextLike,
};
use super::stage::Rep;
use crate::graph::{BinaryOp, Clean, CompareOp, Dim, Literal, Op, Scalar, UnaryOp};

/// Modulus and factor of a Lehmer generator: products of a remainder and the factor fit 64 bits.
const HASH: [i64; 2] = [2_147_483_647, 48_271];

impl<'s, T: FloatLike> Rep<'s, T> {
    /// `(x - mean) / deviation`. Shapes broadcast: numbers for a column, a vector for the last axis of a tensor (the
    /// channels of pictures [n, h, w, c]). NULL where an operand is.
    #[track_caller]
    pub fn standardise(self, mean: impl IntoRep<'s, T>, deviation: impl IntoRep<'s, T>) -> Rep<'s, T> {
        let [mean, deviation] = [mean.into_rep(self.stage()), deviation.into_rep(self.stage())];
        self.binary::<T, T>(BinaryOp::Sub, mean).binary(BinaryOp::Div, deviation)
    }

    /// `(x - least) / (greatest - least)`: from 0 to 1 for what lies between. Shapes as for [`Rep::standardise`]; NULL where
    /// an operand is.
    #[track_caller]
    pub fn min_max(self, least: impl IntoRep<'s, T>, greatest: impl IntoRep<'s, T>) -> Rep<'s, T> {
        let [least, greatest] = [least.into_rep(self.stage()), greatest.into_rep(self.stage())];
        self.standardise(least, greatest.binary::<T, T>(BinaryOp::Sub, least))
    }
}

impl<'s, T: Comparable> Rep<'s, T> {
    /// A number for each of the values: 1 where this is equal to it, else 0. NULL, and what is none of them, is 0 in all.
    #[track_caller]
    pub fn one_hot<U: ScalarMarker, V: IntoRep<'s, T>>(
        self,
        values: impl IntoIterator<Item = V>,
    ) -> Vec<Rep<'s, T::With<U>>> {
        let mut columns = vec![];
        for value in values {
            columns.push(self.is(value).cast::<U>().dyn_().retag());
        }
        columns
    }

    /// The place of this among the values, from 0; their number for NULL and for what is none of them. As an index it
    /// picks rows of a table of embeddings that has one more row than there are values: words of a vocabulary, say.
    #[track_caller]
    pub fn ordinal<V: IntoRep<'s, T>>(self, values: impl IntoIterator<Item = V>) -> Rep<'s, T::With<I64>> {
        let stage = self.stage();
        let mut known = vec![];
        for value in values {
            known.push(self.is(value).dyn_());
        }
        let number = |value: usize| stage.make::<Dyn>(Op::Const(Literal::i64(value as i64)), &[]);
        let mut place = number(known.len());
        for (at, is_it) in known.into_iter().enumerate().rev() {
            place = stage.make(Op::Select, &[is_it, number(at), place]);
        }
        place.retag()
    }

    /// How many of the bounds, in ascending order, are not greater than this: the number of its bin, from 0. NULL for NULL.
    #[track_caller]
    pub fn bin<V: IntoRep<'s, T>>(self, bounds: impl IntoIterator<Item = V>) -> Rep<'s, T::With<I64>> {
        let stage = self.stage();
        let mut number = stage.make::<Dyn>(Op::Const(Literal::i64(0)), &[]);
        for bound in bounds {
            let passed = stage.make::<Dyn>(Op::Compare(CompareOp::Ge), &[self.dyn_(), bound.into_rep(stage).dyn_()]);
            let passed = stage.make::<Dyn>(Op::Cast(Scalar::I64), &[passed]);
            number = number.binary(BinaryOp::Add, passed);
        }
        number.retag()
    }

    /// Is this equal to a value? False for NULL.
    #[track_caller]
    fn is(self, value: impl IntoRep<'s, T>) -> Rep<'s, Dyn> {
        let stage = self.stage();
        let equal = stage.make::<Dyn>(Op::Compare(CompareOp::Eq), &[self.dyn_(), value.into_rep(stage).dyn_()]);
        let nullable = equal.ty().is_some_and(|ty| ty.as_tensor().is_some_and(|(elem, _)| elem.nullable));
        if nullable { equal.binary(BinaryOp::Coalesce, stage.constant(false)) } else { equal }
    }
}

impl<'s, T: Arith> Rep<'s, T> {
    /// A number from 0 up to (and without) `buckets` that depends on an integer, spread evenly over integers that follow
    /// each other. NULL for NULL; not for other types.
    #[track_caller]
    pub fn hashed(self, buckets: u32) -> Rep<'s, T::With<I64>> {
        let stage = self.stage();
        let scalar = self.ty().and_then(|ty| ty.as_tensor().map(|(elem, _)| elem.scalar));
        match scalar {
            Some(scalar) if !scalar.is_int() => {
                return stage.fail("hashed", format!("takes integers, found {scalar}"));
            }
            _ if buckets == 0 => return stage.fail("hashed", "needs a bucket"),
            _ => {}
        }
        let number = |value: i64| stage.make::<Dyn>(Op::Const(Literal::i64(value)), &[]);
        let rest = |x: Rep<'s, Dyn>, of: i64| x.binary::<Dyn, Dyn>(BinaryOp::Rem, number(of));
        let [modulus, factor] = HASH;
        let own = rest(stage.make(Op::Cast(Scalar::I64), &[self.dyn_()]), modulus);
        // The remainder has the sign of the number.
        let own = rest(own.binary(BinaryOp::Add, number(modulus)), modulus);
        let spread =
            rest(own.binary::<Dyn, Dyn>(BinaryOp::Add, number(1)).binary(BinaryOp::Mul, number(factor)), modulus);
        rest(spread, i64::from(buckets)).retag()
    }
}

impl<'s, T: TextLike> Rep<'s, T> {
    /// This text without what is not wanted: see [`Clean`]. It is done once for each entry of a dictionary where a column has
    /// one, else row by row into memory that the run keeps. NULL for NULL.
    ///
    /// ```
    /// use quearn_stage::graph::{Clean, Field, Scalar};
    /// use quearn_stage::rep::Stage;
    ///
    /// let s = Stage::new();
    /// let reviews = s.scan("reviews", [Field::new("text", Scalar::String)]);
    /// let clean = Clean { lower: true, punctuation: true, spaces: true };
    /// s.output("words", reviews.with("text", |r| r.str("text").cleaned(clean)));
    /// # s.finish()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn cleaned(self, how: Clean) -> Rep<'s, T::With<Str>> {
        self.stage().make(Op::Clean(how), &[self.dyn_()])
    }

    /// A number for this text, from 0 to 2^63 - 1: FNV-1a of its bytes in UTF-8, see [`Op::Hash`]. The same on any machine and in
    /// any version. NULL for NULL.
    #[track_caller]
    pub fn hash(self) -> Rep<'s, T::With<I64>> {
        self.stage().make(Op::Hash, &[self.dyn_()])
    }

    /// A number from 0 up to (and without) `buckets` that depends on a text: the remainder of its [`Rep::hash`]. NULL for NULL.
    #[track_caller]
    pub fn bucket(self, buckets: u32) -> Rep<'s, T::With<I64>> {
        let stage = self.stage();
        if buckets == 0 {
            return stage.fail("bucket", "needs a bucket");
        }
        let count = stage.make::<Dyn>(Op::Const(Literal::i64(buckets.into())), &[]);
        self.hash().binary(BinaryOp::Rem, count)
    }
}

impl<'s, T: DateLike> Rep<'s, T> {
    /// The day of the week, 0 for Monday to 6 for Sunday. NULL for NULL.
    #[track_caller]
    pub fn weekday(self) -> Rep<'s, T::With<I64>> {
        let stage = self.stage();
        let number = |value: i64| stage.make::<Dyn>(Op::Const(Literal::i64(value)), &[]);
        let day = stage.make::<Dyn>(Op::Cast(Scalar::Date), &[self.dyn_()]);
        let first: Rep<'s, Date> = super::constant::date("1970-01-01").into_rep(stage);
        let days = day.binary::<Date, Dyn>(BinaryOp::Sub, first);
        let days = stage.make::<Dyn>(Op::Cast(Scalar::I64), &[days]);
        let week = |x: Rep<'s, Dyn>| x.binary::<Dyn, Dyn>(BinaryOp::Rem, number(7));
        // The first day was a Thursday; before it the remainder is negative.
        week(week(days).binary(BinaryOp::Add, number(7 + 3))).retag()
    }

    /// The quarter of the year, from 1 to 4. NULL for NULL.
    #[track_caller]
    pub fn quarter(self) -> Rep<'s, T::With<I64>> {
        let stage = self.stage();
        let number = |value: i64| stage.make::<Dyn>(Op::Const(Literal::i64(value)), &[]);
        let month = self.unary::<Dyn>(UnaryOp::Month).binary::<Dyn, Dyn>(BinaryOp::Add, number(2));
        month.binary::<Dyn, Dyn>(BinaryOp::Div, number(3)).retag()
    }

    /// The day of the year, from 1. NULL for NULL.
    #[track_caller]
    pub fn day_of_year(self) -> Rep<'s, T::With<I64>> {
        let stage = self.stage();
        let number = |value: i64| stage.make::<Dyn>(Op::Const(Literal::i64(value)), &[]);
        let of = |op, x: Rep<'s, Dyn>, value| x.binary::<Dyn, Dyn>(op, number(value));
        let [year, month, day] = [UnaryOp::Year, UnaryOp::Month, UnaryOp::Day].map(|part| self.unary::<Dyn>(part));
        let divides = |value, op| {
            let rest = of(BinaryOp::Rem, year, value);
            stage.make::<Dyn>(Op::Compare(op), &[rest, number(0)])
        };
        let common = divides(4, CompareOp::Eq).binary::<Dyn, Dyn>(BinaryOp::And, divides(100, CompareOp::Ne));
        let leap = common.binary::<Dyn, Dyn>(BinaryOp::Or, divides(400, CompareOp::Eq));
        let missing = stage.make::<Dyn>(Op::Select, &[leap, number(1), number(2)]);
        // 275 m / 9 - 30 days lie before a month in which February has 30 of them; from March on some are missing.
        let before = of(BinaryOp::Div, of(BinaryOp::Mul, month, 275), 9);
        let after_february = of(BinaryOp::Div, of(BinaryOp::Add, month, 9), 12);
        let lost = missing.binary::<Dyn, Dyn>(BinaryOp::Mul, after_february);
        let days = before.binary::<Dyn, Dyn>(BinaryOp::Sub, lost).binary::<Dyn, Dyn>(BinaryOp::Add, day);
        of(BinaryOp::Sub, days, 30).retag()
    }
}

/// Columns of a table by numbers that are computed from all its rows. The columns become f64; other columns stay.
impl<'s> Rep<'s, Table> {
    /// Columns with mean 0 and (population) deviation 1. A column of equal values becomes 0. NULLs count for nothing and
    /// stay NULL.
    #[track_caller]
    pub fn standardised(self, names: &[&str]) -> Rep<'s, Table> {
        let mean = |name: &str| format!("{name}_mean");
        let square = |name: &str| format!("{name}_square");
        let moments = self.aggregate(|_| {
            names.iter().flat_map(|name| {
                let x = self.double(name);
                [avg(mean(name), x), avg(square(name), x * x)]
            })
        });
        names.iter().fold(self, |table, name| {
            let [mean, square] = [mean(name), square(name)].map(|name| moments.single::<F64>(&name).coalesce(0.0));
            let deviation = (square - mean * mean).maximum(0.0).sqrt();
            table.with(name, |_| table.double(name).standardise(mean, nonzero(deviation)))
        })
    }

    /// Columns from 0 for their least value to 1 for their greatest one. A column of equal values becomes 0. NULLs stay NULL.
    #[track_caller]
    pub fn min_max_scaled(self, names: &[&str]) -> Rep<'s, Table> {
        let [least, greatest] = [|name: &str| format!("{name}_least"), |name: &str| format!("{name}_greatest")];
        let ends = self.aggregate(|_| {
            names.iter().flat_map(|name| {
                let x = self.double(name);
                [min(least(name), x), max(greatest(name), x)]
            })
        });
        names.iter().fold(self, |table, name| {
            let [least, greatest] = [least(name), greatest(name)].map(|name| ends.single::<F64>(&name).coalesce(0.0));
            table.with(name, |_| (table.double(name) - least) / nonzero(greatest - least))
        })
    }

    /// Columns whose NULLs are replaced by the mean of the other values, or by 0 if there are none: never NULL. Another value
    /// in the place of NULL is [`Rep::coalesce`].
    #[track_caller]
    pub fn imputed(self, names: &[&str]) -> Rep<'s, Table> {
        let means = self.aggregate(|_| names.iter().map(|name| avg(*name, self.double(name))));
        names.iter().fold(self, |table, name| {
            let mean = means.single::<F64>(name).coalesce(0.0);
            table.with(name, |_| table.double(name).coalesce(mean))
        })
    }

    #[track_caller]
    fn double(self, name: &str) -> Rep<'s, F64> {
        self.row().col(name).cast::<F64>().dyn_().retag()
    }
}

/// A deviation to divide by: 1 in the place of 0.
#[track_caller]
fn nonzero(deviation: Rep<'_, F64>) -> Rep<'_, F64> {
    let stage = deviation.stage();
    let [zero, one] = [0.0, 1.0].map(|number| stage.constant(number));
    let is_zero: Rep<'_, Bool> = deviation.eq(zero);
    stage.make(Op::Select, &[is_zero.dyn_(), one.dyn_(), deviation.dyn_()])
}

/// Pictures [.., h, w], as convolutions want them. Others are permuted first: `x.permute([0, 3, 1, 2])`.
impl<'s, T: ElementMarker> Rep<'s, Tensor<T>> {
    /// The part of pictures that begins `top` rows and `left` columns from their corner. NULLs pass.
    #[track_caller]
    pub fn crop(self, top: u64, left: u64, height: u64, width: u64) -> Rep<'s, Tensor<T>> {
        let Some(axis) = self.picture_axis() else { return self.stage().poisoned() };
        self.slice(axis, top, 1, height).slice(axis + 1, left, 1, width)
    }

    /// The elements along an axis in the opposite order; its extent must be known. NULLs pass.
    #[track_caller]
    pub fn flip(self, axis: usize) -> Rep<'s, Tensor<T>> {
        match self.shape().get(axis).map(Dim::as_const) {
            Some(Some(extent)) => self.slice(axis, extent.saturating_sub(1), -1, extent),
            _ if self.node().is_none() => self,
            _ => self.stage().fail("flip", format!("no axis {axis} of known extent")),
        }
    }

    /// The first of the last two axes.
    #[track_caller]
    fn picture_axis(self) -> Option<usize> {
        let axis = self.shape().len().checked_sub(2);
        if axis.is_none() && self.node().is_some() {
            self.stage().fail::<Dyn>("picture", "needs two dimensions or more, [.., height, width]");
        }
        axis
    }
}

impl<'s, T: ElementMarker + FloatLike> Rep<'s, Tensor<T>>
where
    Tensor<T>: FloatLike,
{
    /// Pictures in another size, each sample that of the pixel in which its centre lies. NULL is not allowed.
    #[track_caller]
    pub fn resize_nearest(self, height: u64, width: u64) -> Rep<'s, Tensor<T>> {
        self.resized([height, width], |from, to| {
            let scale = from as f64 / to as f64;
            let source = (self.positions(to) + self.number(0.5)) * self.number(scale);
            let last = self.number(from as f64 - 1.0);
            let source = source.unary::<Dyn>(UnaryOp::Floor).binary::<_, Dyn>(BinaryOp::Min, last);
            let at = self.positions(from).reshape([from, 1]);
            let equal = self.stage().make::<Dyn>(Op::Compare(CompareOp::Eq), &[at.dyn_(), source]);
            self.stage().make(Op::Cast(self.scalar()), &[equal])
        })
    }

    /// Pictures in another size, each sample interpolated between the centres of its four neighbours, which at the edge
    /// are those of the edge (PyTorch's `bilinear` without `align_corners`). NULL is not allowed.
    #[track_caller]
    pub fn resize_bilinear(self, height: u64, width: u64) -> Rep<'s, Tensor<T>> {
        self.resized([height, width], |from, to| {
            let scale = from as f64 / to as f64;
            let source = (self.positions(to) + self.number(0.5)) * self.number(scale) - self.number(0.5);
            let source = source.relu().dyn_().binary::<_, Dyn>(BinaryOp::Min, self.number(from as f64 - 1.0));
            let at = self.positions(from).reshape([from, 1]);
            let distance = at.binary::<Dyn, Dyn>(BinaryOp::Sub, source).unary::<Dyn>(UnaryOp::Abs);
            self.number(1.0).binary::<Dyn, Dyn>(BinaryOp::Sub, distance).unary(UnaryOp::Relu)
        })
    }

    /// Both axes of pictures multiplied by the matrix [from, to] of the weights that an old place has in a new one.
    #[track_caller]
    fn resized(self, to: [u64; 2], weights: impl Fn(u64, u64) -> Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
        let Some(axis) = self.picture_axis() else { return self.stage().poisoned() };
        let from = [axis, axis + 1].map(|axis| self.shape()[axis].as_const().filter(|extent| *extent > 0));
        let [Some(height), Some(width)] = from else {
            return self.stage().fail("resize", "needs pictures of known size, [.., height, width]");
        };
        if to.contains(&0) {
            return self.stage().fail("resize", format!("to {} x {} leaves nothing", to[0], to[1]));
        }
        weights(height, to[0]).transpose().matmul(self.matmul(weights(width, to[1])))
    }

    /// The numbers from 0 up to `count`, in this type.
    #[track_caller]
    fn positions(self, count: u64) -> Rep<'s, Tensor<T>> {
        self.stage().make(Op::Cast(self.scalar()), &[self.stage().iota(count).dyn_()])
    }

    #[track_caller]
    fn number(self, value: f64) -> Rep<'s, Tensor<T>> {
        let number = self.stage().constant(value).dyn_();
        self.stage().make(Op::Cast(self.scalar()), &[number])
    }

    fn scalar(self) -> Scalar {
        self.ty().and_then(|ty| ty.as_tensor().map(|(elem, _)| elem.scalar)).unwrap_or(Scalar::F32)
    }
}
