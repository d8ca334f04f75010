//! What programs keep from run to run.

use crate::data::Tensor;
use crate::error::{Error, Result};
use crate::executable::{Given, Tensors, given};
use crate::lower::{Input, Interface, Update};
use crate::results::TensorMemory;
use std::collections::BTreeMap;

/// The state of a program: a tensor for each result that is the next value of an input of its name, such as the parameters of a
/// network that is trained. It lies in the memory that runs read and write; nothing is copied or allocated from run to run.
pub struct State {
    kept: BTreeMap<String, Kept>,
    /// Did a run end without having written all of it?
    broken: bool,
}

/// One tensor.
struct Kept {
    /// The present value.
    now: TensorMemory,
    /// Where the next value goes, if not in place of the present one; then they take turns.
    next: Option<TensorMemory>,
}

impl State {
    /// The state of a program before its first run.
    pub(crate) fn new(interface: &Interface, initial: &Tensors) -> Result<State> {
        let mut kept = BTreeMap::new();
        for Update { name, .. } in &interface.updates {
            let now = TensorMemory::from_tensor(given(
                Given { inputs: initial, session: initial },
                declared(interface, name)?,
            )?)?;
            kept.insert(name.clone(), Kept { now, next: None });
        }
        Ok(State { kept, broken: false })
    }

    /// The names of its tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kept.keys().map(String::as_str)
    }

    /// In how many places in memory a tensor is: in one where its next value is written over the present one, in two from the first
    /// run on where the present and the next value take turns. Nothing if there is none of that name.
    pub fn places(&self, name: &str) -> Option<usize> {
        self.kept.get(name).map(|kept| 1 + usize::from(kept.next.is_some()))
    }

    /// A copy of a tensor as it is now.
    ///
    /// # Errors
    /// There is none of that name, or the last run has failed.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.whole()?;
        match self.kept.get(name) {
            Some(kept) => kept.now.copy(),
            None => {
                let known: Vec<&str> = self.names().collect();
                Err(Error::NoResult { kind: "state", name: name.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// A copy of all of it.
    ///
    /// # Errors
    /// The last run has failed.
    pub fn tensors(&self) -> Result<Tensors> {
        self.whole()?;
        self.kept.iter().map(|(name, kept)| Ok((name.clone(), kept.now.copy()?))).collect()
    }

    fn whole(&self) -> Result<()> {
        match self.broken {
            true => Err(Error::Setting("the state is lost: a run that was to change it has failed".into())),
            false => Ok(()),
        }
    }

    /// Address of the present value.
    pub(crate) fn now(&self, name: &str) -> Option<*const u8> {
        Some(self.kept.get(name)?.now.as_ptr())
    }

    /// The present value of a scalar, by its bytes.
    pub(crate) fn scalar(&self, name: &str) -> Option<&[u8]> {
        Some(self.kept.get(name)?.now.as_slice())
    }

    /// Address of the next value.
    pub(crate) fn next(&mut self, update: &Update) -> Result<*mut u8> {
        let missing = || Error::Setting(format!("the state of another program: it has no \"{}\"", update.name));
        let kept = self.kept.get_mut(&update.name).ok_or_else(missing)?;
        if update.in_place {
            return Ok(kept.now.as_mut_ptr());
        }
        if kept.next.is_none() {
            kept.next = Some(kept.now.like()?);
        }
        Ok(kept.next.as_mut().map_or(std::ptr::null_mut(), TensorMemory::as_mut_ptr))
    }

    /// Is it the state of that program, and did the last run not fail?
    pub(crate) fn check(&self, interface: &Interface) -> Result<()> {
        self.whole()?;
        for Update { name, .. } in &interface.updates {
            let input = declared(interface, name)?;
            let fits = self.kept.get(name).is_some_and(|kept| kept.now.is(input));
            if !fits {
                let message = format!("the state of another program; expected {input}");
                return Err(Error::Input { name: name.clone(), message });
            }
        }
        Ok(())
    }

    /// A run that changes it begins.
    pub(crate) fn lend(&mut self) {
        self.broken = true;
    }

    /// A run that has changed it has ended.
    pub(crate) fn end(&mut self, interface: &Interface) {
        for Update { name, in_place, .. } in &interface.updates {
            if let (false, Some(Kept { now, next: Some(next) })) = (*in_place, self.kept.get_mut(name)) {
                std::mem::swap(now, next);
            }
        }
        self.broken = false;
    }
}

/// The input of that name.
fn declared<'i>(interface: &'i Interface, name: &str) -> Result<&'i Input> {
    let missing = || Error::Setting(format!("the program has no input \"{name}\""));
    interface.inputs.iter().find(|input| input.name == name).ok_or_else(missing)
}
