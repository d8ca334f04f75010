//! Names that are visible at a place of a model.

use crate::value::Value;
use std::collections::HashMap;
use std::rc::Rc;

/// The names of a graph; behind them stand those of the graph around it.
#[derive(Default)]
pub struct Scope<'a> {
    own: HashMap<String, Rc<Value>>,
    around: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    /// The names of a graph inside another.
    pub fn inside(around: &'a Scope<'a>) -> Scope<'a> {
        Scope { own: HashMap::new(), around: Some(around) }
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Option<&Rc<Value>> {
        let own = self.own.get(name);
        own.or_else(|| self.around.and_then(|around| around.get(name)))
    }

    /// Gives a name its value; what it stood for in this graph, if it did.
    pub fn insert(&mut self, name: &str, value: Rc<Value>) -> Option<Rc<Value>> {
        self.own.insert(name.to_owned(), value)
    }
}
