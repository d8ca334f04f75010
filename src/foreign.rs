//! Functions of other libraries in a program: unmodified Rust functions over slices, called on tiles of rows.
//!
//! A [`Function`] is registered in a session under a name; a program names it, with its [`Signature`], and is compiled
//! only where a function of that name and signature is there. What it gives for a tile goes on through the pipeline as
//! any other column or tensor does.

use crate::data::{Element, Tensor};
use quearn_backends::abi::Slice;
use quearn_backends::runtime::{Foreign, Form};
use quearn_stage::graph::foreign::Part;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

pub use quearn_stage::graph::foreign::Signature;

/// What a function may return instead of writing its result only.
pub trait Returns {
    /// An error, in words.
    fn outcome(self) -> Result<(), String>;
}

impl Returns for () {
    fn outcome(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> Returns for Result<(), E> {
    fn outcome(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// A function with its signature.
#[derive(Clone)]
pub struct Function {
    signature: Signature,
    code: Arc<Foreign>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.signature)
    }
}

/// The functions of a session, by name.
pub type Functions = BTreeMap<String, Function>;

/// The operands of a call.
pub struct Operands<'a>(&'a [Slice], &'a [Part]);

impl Operands<'_> {
    /// The elements of an operand: those of the tile's rows, row by row, or all.
    ///
    /// # Errors
    /// There is no such operand, or it has other elements.
    pub fn slice<T: Element>(&self, operand: usize) -> Result<&[T], String> {
        if self.1.get(operand).is_none_or(|part| part.scalar != T::SCALAR) {
            return Err(format!("there is no operand {operand} of {}", T::SCALAR));
        }
        // SAFETY: the slice has elements of this type, which live as long as the call.
        Ok(unsafe { shared(self.0[operand]) })
    }
}

/// # Safety
/// The slice has elements of the type for as long as they are borrowed, and nobody writes them.
unsafe fn shared<'a, T>(slice: Slice) -> &'a [T] {
    // SAFETY: the caller's promise.
    if slice.len <= 0 { &[] } else { unsafe { std::slice::from_raw_parts(slice.first.cast(), slice.len as usize) } }
}

/// # Safety
/// The slice has elements of the type for as long as they are borrowed, and nobody else sees them.
unsafe fn exclusive<'a, T>(slice: Slice) -> &'a mut [T] {
    if slice.len <= 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(slice.first.cast(), slice.len as usize) }
}

/// The code of a function as a value of its own, which others may have, too.
fn own(code: Arc<Foreign>) -> Foreign {
    Arc::try_unwrap(code).unwrap_or_else(|code| {
        let (name, forms) = (code.name.clone(), code.forms.clone());
        let (called, merged) = (Arc::clone(&code), Arc::clone(&code));
        let merge = move |all: Slice, part: Slice| merged.merge.iter().for_each(|merge| merge(all, part));
        let merge = code.merge.is_some().then(|| Box::new(merge) as _);
        Foreign { name, forms, call: Box::new(move |operands, result| (called.call)(operands, result)), merge }
    })
}

/// Are the functions that a program calls there, with the signatures that it expects?
pub(crate) fn check(called: &[(String, Signature)], functions: &Functions) -> Result<(), crate::Error> {
    for (name, signature) in called {
        let wrong = |message: String| Err(crate::Error::Function { name: name.clone(), message });
        match functions.get(name) {
            None => return wrong(format!("not registered; expected {signature}")),
            Some(known) if known.signature != *signature => {
                return wrong(format!("expected {signature}, found {}", known.signature));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

impl Function {
    /// A function of a signature that writes elements of type `R`: one for each row, or (see [`Function::merged_by`]) those
    /// of the tile.
    ///
    /// # Errors
    /// A signature that no function can have, or with results of another type.
    pub fn new<R: Element, O: Returns>(
        signature: Signature,
        f: impl Fn(&Operands<'_>, &mut [R]) -> O + Send + Sync + 'static,
    ) -> Result<Function, crate::Error> {
        let wrong = |message: String| crate::Error::Setting(format!("a foreign function {signature}: {message}"));
        if let Some(fault) = signature.fault() {
            return Err(wrong(fault));
        }
        if signature.result.scalar != R::SCALAR {
            return Err(wrong(format!("it writes {}", R::SCALAR)));
        }
        let parts = signature.operands.clone();
        Ok(Function::of(signature, move |operands, result| {
            // SAFETY: the result has elements of this type, and nobody else sees them.
            f(&Operands(operands, &parts), unsafe { exclusive(result) }).outcome()
        }))
    }

    /// How the results of two tiles are merged: the second into the first. It must be associative.
    #[must_use]
    pub fn merged_by<R: Element>(mut self, merge: impl Fn(&mut [R], &[R]) + Send + Sync + 'static) -> Function {
        let Foreign { name, forms, call, .. } = own(self.code);
        // SAFETY: two results of this type, in different memory.
        let merge = move |all: Slice, part: Slice| merge(unsafe { exclusive(all) }, unsafe { shared(part) });
        self.code = Arc::new(Foreign { name, forms, call, merge: Some(Box::new(merge)) });
        self
    }

    /// `f(x, y)`: writes `y[i]` for each `x[i]`.
    pub fn map1<A: Element, R: Element, O: Returns>(
        f: impl Fn(&[A], &mut [R]) -> O + Send + Sync + 'static,
    ) -> Function {
        let signature = Signature::giving_rows(R::SCALAR, []).rows(A::SCALAR, []);
        // SAFETY: operands and result have these types.
        Function::of(signature, move |x, y| unsafe { f(shared(x[0]), exclusive(y)) }.outcome())
    }

    /// `f(a, b, y)`: writes `y[i]` for each `a[i]` and `b[i]`.
    pub fn map2<A: Element, B: Element, R: Element, O: Returns>(
        f: impl Fn(&[A], &[B], &mut [R]) -> O + Send + Sync + 'static,
    ) -> Function {
        let signature = Signature::giving_rows(R::SCALAR, []).rows(A::SCALAR, []).rows(B::SCALAR, []);
        // SAFETY: operands and result have these types.
        Function::of(signature, move |x, y| unsafe { f(shared(x[0]), shared(x[1]), exclusive(y)) }.outcome())
    }

    /// `f(x)`: gives as many values as there are in `x`; another number is an error.
    pub fn vec1<A: Element, R: Element>(f: impl Fn(&[A]) -> Vec<R> + Send + Sync + 'static) -> Function {
        Function::map1(move |x: &[A], y: &mut [R]| {
            let given = f(x);
            if given.len() != y.len() {
                return Err(format!("gave {} values for {} rows", given.len(), y.len()));
            }
            y.copy_from_slice(&given);
            Ok(())
        })
    }

    /// `f(x)`: a value for each tile, two of which `merge` makes one of. It must be associative.
    pub fn fold1<A: Element, R: Element>(
        f: impl Fn(&[A]) -> R + Send + Sync + 'static,
        merge: impl Fn(R, R) -> R + Send + Sync + 'static,
    ) -> Function {
        let signature = Signature::merging(R::SCALAR, []).rows(A::SCALAR, []);
        // SAFETY: operand and result have these types.
        let fold = move |x: &[Slice], y: Slice| unsafe {
            exclusive(y)[0] = f(shared(x[0]));
            Ok(())
        };
        Function::of(signature, fold).merged_by(move |all: &mut [R], part: &[R]| all[0] = merge(all[0], part[0]))
    }

    /// `f(a, b)`: as [`Function::fold1`], of two operands.
    pub fn fold2<A: Element, B: Element, R: Element>(
        f: impl Fn(&[A], &[B]) -> R + Send + Sync + 'static,
        merge: impl Fn(R, R) -> R + Send + Sync + 'static,
    ) -> Function {
        let signature = Signature::merging(R::SCALAR, []).rows(A::SCALAR, []).rows(B::SCALAR, []);
        // SAFETY: operands and result have these types.
        let fold = move |x: &[Slice], y: Slice| unsafe {
            exclusive(y)[0] = f(shared(x[0]), shared(x[1]));
            Ok(())
        };
        Function::of(signature, fold).merged_by(move |all: &mut [R], part: &[R]| all[0] = merge(all[0], part[0]))
    }

    fn of(
        signature: Signature,
        call: impl Fn(&[Slice], Slice) -> Result<(), String> + Send + Sync + 'static,
    ) -> Function {
        let bytes = |part: &Part| crate::data::Phys::of(part.scalar).map_or(8, crate::data::Phys::bytes);
        let form = |part: &Part| Form { bytes: bytes(part), by_row: part.by_row };
        let forms = signature.operands.iter().chain([&signature.result]).map(form).collect();
        let code = Foreign { name: String::new(), forms, call: Box::new(call), merge: None };
        Function { signature, code: Arc::new(code) }
    }

    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The same under a name, which messages use.
    ///
    /// # Errors
    /// Results are merged, but it is not said how.
    pub(crate) fn named(self, name: &str) -> Result<Function, crate::Error> {
        if !self.signature.result.by_row && self.code.merge.is_none() {
            let message =
                format!("function \"{name}\" gives {}, but it is not said how two are merged", self.signature.result);
            return Err(crate::Error::Setting(message));
        }
        let Function { signature, code } = self;
        let code = Arc::new(Foreign { name: name.to_owned(), ..own(code) });
        Ok(Function { signature, code })
    }

    /// Where generated code finds it, as long as the function lives.
    pub(crate) fn address(&self) -> *const Foreign {
        Arc::as_ptr(&self.code)
    }

    /// Calls it on whole tensors.
    ///
    /// # Errors
    /// Tensors that do not fit the signature; what the function says.
    pub fn apply(&self, operands: &[Tensor]) -> Result<Tensor, String> {
        let Signature { operands: parts, result } = &self.signature;
        if operands.len() != parts.len() {
            return Err(format!("takes {} operands, not {}", parts.len(), operands.len()));
        }
        let mut rows = None;
        for (operand, part) in operands.iter().zip(parts) {
            let inner = if part.by_row { operand.shape().get(1..) } else { Some(operand.shape()) };
            if operand.scalar() != part.scalar || inner != Some(&part.shape[..]) {
                return Err(format!("expected {part}, found {} {:?}", operand.scalar(), operand.shape()));
            }
            if part.by_row && *rows.get_or_insert(operand.shape()[0]) != operand.shape()[0] {
                return Err("its operands have different numbers of rows".to_owned());
            }
        }
        let rows = rows.unwrap_or(0);
        let leading = result.by_row.then_some(rows);
        let shape: Vec<u64> = leading.into_iter().chain(result.shape.iter().copied()).collect();
        let elements = shape.iter().product::<u64>();
        let bytes = self.code.forms.last().map_or(8, |form| form.bytes) * elements as usize;
        let mut memory = arrow::buffer::MutableBuffer::from_len_zeroed(bytes);
        let slice = |tensor: &Tensor| Slice { first: tensor.data().as_ptr().cast_mut(), len: tensor.len() as i64 };
        let mut slices: Vec<Slice> = operands.iter().map(slice).collect();
        slices.push(Slice { first: memory.as_mut_ptr(), len: elements as i64 });
        // SAFETY: checked above; operands are only read, and the memory is new.
        unsafe { self.code.run(None, &slices, rows as usize)? };
        Tensor::from_buffer(result.scalar, shape, memory.into()).map_err(|error| error.to_string())
    }
}
