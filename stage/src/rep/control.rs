//! Conditions and loops of the program that is written. (An `if` on a Rust `bool` decides what is written.)

use super::constant::{IntoRep, Natural};
use super::marker::{Bool, Dyn, Elementwise, I64, Marker};
use super::stage::{Rep, Stage};
use crate::graph::{Op, Region, Scalar, Steps, Ty};

/// A condition that waits for its values, see [`when`].
#[derive(Clone, Copy, Debug)]
pub struct When<'s> {
    condition: Rep<'s, Bool>,
}

/// A condition that waits for its second value, see [`when`].
#[derive(Clone, Copy, Debug)]
pub struct If<'s, T> {
    condition: Rep<'s, Bool>,
    then: Rep<'s, T>,
}

/// `when(condition).then(a).otherwise(b)`: `a` where the condition is true, `b` where it is false or NULL. Both may be
/// evaluated; see [`if_`] where that matters.
pub fn when(condition: Rep<'_, Bool>) -> When<'_> {
    When { condition }
}

impl<'s> When<'s> {
    /// The value where the condition is true.
    #[track_caller]
    pub fn then<V: Natural<'s>>(self, value: V) -> If<'s, V::Marker> {
        If { condition: self.condition, then: value.into_rep(self.condition.stage()) }
    }
}

impl<'s, T: Elementwise> If<'s, T> {
    /// The value where the condition is false or NULL.
    #[track_caller]
    pub fn otherwise(self, value: impl IntoRep<'s, T>) -> Rep<'s, T> {
        let stage = self.condition.stage();
        let value = value.into_rep(stage);
        stage.make(Op::Select, &[self.condition.dyn_(), self.then.dyn_(), value.dyn_()])
    }
}

/// The value of the arm that the condition chooses (NULL chooses the second); only that one is evaluated and can fail.
#[track_caller]
pub fn if_<'s, T: Elementwise>(
    condition: Rep<'s, Bool>,
    then: impl FnOnce() -> Rep<'s, T>,
    otherwise: impl FnOnce() -> Rep<'s, T>,
) -> Rep<'s, T> {
    condition.stage().make(Op::If, &[condition.dyn_(), then().dyn_(), otherwise().dyn_()])
}

/// Values that a loop passes from round to round: a `Rep`, or a tuple of up to four.
pub trait Carried<'s>: Sized {
    /// The handles, in order.
    fn handles(&self) -> Vec<Rep<'s, Dyn>>;
    /// Other handles of the same types; `None` if they are too few.
    fn from_handles(handles: impl Iterator<Item = Rep<'s, Dyn>>) -> Option<Self>;
}

impl<'s, T: Marker> Carried<'s> for Rep<'s, T> {
    fn handles(&self) -> Vec<Rep<'s, Dyn>> {
        vec![self.dyn_()]
    }

    fn from_handles(mut handles: impl Iterator<Item = Rep<'s, Dyn>>) -> Option<Self> {
        Some(handles.next()?.retag())
    }
}

macro_rules! carried_tuples {
    ($(($($value:ident),*);)*) => {
        $(
            impl<'s, $($value: Marker),*> Carried<'s> for ($(Rep<'s, $value>,)*) {
                #[allow(non_snake_case, reason = "type parameters name the fields")]
                fn handles(&self) -> Vec<Rep<'s, Dyn>> {
                    let ($($value,)*) = self;
                    vec![$($value.dyn_()),*]
                }

                fn from_handles(mut handles: impl Iterator<Item = Rep<'s, Dyn>>) -> Option<Self> {
                    Some(($(handles.next()?.retag::<$value>(),)*))
                }
            }
        )*
    };
}

carried_tuples! {
    (A, B);
    (A, B, C);
    (A, B, C, D);
}

/// Steps along an axis of tensors, see [`Stage::steps`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Number of steps.
    pub count: u64,
    /// The axis, of what is walked along and of what is collected.
    pub axis: usize,
    /// Is the last slice the first?
    pub back: bool,
}

impl Stage {
    /// `init` passed through `body` for each slice of `wholes` along an axis. The body gets the carried values and the
    /// slices, without that axis, and gives the next carried values, and slices that are collected into new tensors.
    /// Gives the carried values after the last step, and what was collected.
    #[track_caller]
    pub fn steps<'s, C: Carried<'s>, W: Carried<'s>, R: Carried<'s>>(
        &'s self,
        walk: Walk,
        init: C,
        wholes: W,
        body: impl FnOnce(C, W) -> (C, R),
    ) -> (C, R) {
        let (inputs, carried) = ([init.handles(), wholes.handles()].concat(), init.handles().len());
        let region = self.new_region();
        let mut params = vec![];
        for (index, input) in inputs.iter().enumerate() {
            let Some(ty) = input.ty() else {
                params.push(self.poisoned());
                continue;
            };
            let ty = match ty {
                Ty::Tensor { elem, mut shape } if index >= carried && walk.axis < shape.len() => {
                    shape.remove(walk.axis);
                    Ty::Tensor { elem, shape }
                }
                ty => ty,
            };
            params.push(self.make::<Dyn>(Op::Param { region, index: index as u32, ty }, &[]));
        }
        let mut given = params.iter().copied();
        let (init, wholes) =
            (C::from_handles(given.by_ref()).unwrap_or(init), W::from_handles(given).unwrap_or(wholes));
        let (next, kept) = body(init, wholes);
        let results = [next.handles(), kept.handles()].concat();
        if results.iter().any(|result| !std::ptr::eq(self, result.stage())) {
            self.fail::<Dyn>("control.steps", "the body gives a value of another stage");
            return (next, kept);
        }
        let tuple: Rep<'s, Dyn> = match nodes(&params).zip(nodes(&results)) {
            Some((params, results)) => {
                let Walk { count, axis, back } = walk;
                let region = Region { params, results };
                self.make(Op::Steps(Steps { region, count, carried, axis, back }), &inputs)
            }
            None => self.poisoned(),
        };
        let mut items = self.items(tuple, results.len()).into_iter();
        let next = C::from_handles(items.by_ref()).unwrap_or(next);
        (next, R::from_handles(items).unwrap_or(kept))
    }

    /// `init` passed `trips` times through `body`, which also gets the number of the round, from 0. Types and shapes stay
    /// the same from round to round.
    #[track_caller]
    pub fn loop_<'s, C: Carried<'s>>(
        &'s self,
        trips: impl IntoRep<'s, I64>,
        init: C,
        body: impl FnOnce(Rep<'s, I64>, C) -> C,
    ) -> C {
        let init_handles = init.handles();
        let Some(types) = init_handles.iter().map(|handle| handle.ty()).collect::<Option<Vec<Ty>>>() else {
            return init;
        };
        let region = self.new_region();
        let mut params = vec![];
        for ty in std::iter::once(Ty::scalar(Scalar::I64.required())).chain(types) {
            params.push(self.make::<Dyn>(Op::Param { region, index: params.len() as u32, ty }, &[]));
        }
        let Some(carried) = C::from_handles(params[1..].iter().copied()) else { return init };
        let results = body(params[0].retag(), carried).handles();
        let mut inputs = vec![trips.into_rep(self).dyn_()];
        inputs.extend(init_handles);
        if results.iter().any(|result| !std::ptr::eq(self, result.stage())) {
            self.fail::<Dyn>("control.loop", "the body gives a value of another stage");
            return init;
        }
        let Some((params, results)) = nodes(&params).zip(nodes(&results)) else { return init };
        let tuple: Rep<'s, Dyn> = self.make(Op::Loop(Region { params, results }), &inputs);
        C::from_handles(self.items(tuple, inputs.len() - 1).into_iter()).unwrap_or(init)
    }

    /// The values of a loop.
    #[track_caller]
    fn items<'s>(&'s self, tuple: Rep<'s, Dyn>, count: usize) -> Vec<Rep<'s, Dyn>> {
        if count == 1 {
            return vec![tuple];
        }
        let mut items = vec![];
        for index in 0..count {
            items.push(self.make(Op::Item(index), &[tuple]));
        }
        items
    }
}

fn nodes(handles: &[Rep<'_, Dyn>]) -> Option<Vec<crate::graph::Node>> {
    handles.iter().map(|handle| handle.node()).collect()
}
