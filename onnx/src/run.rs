//! A model in a session.

use crate::error::{Error, Result};
use crate::import::Model;
use quearn::Session;
use quearn::data::Tensor;
use std::collections::BTreeMap;

impl Model {
    /// Does the program give this output? It does not where it has no elements, or is texts.
    pub fn computes(&self, output: &str) -> bool {
        !self.empty.contains_key(output) && !self.texts.contains_key(output)
    }

    /// Binds the weights to a session.
    pub fn load(&self, session: &mut Session) {
        for (name, tensor) in &self.weights {
            session.bind(name.clone(), tensor.clone());
        }
    }

    /// The results of a run of the graph, with the shapes that the model gives them, but for texts.
    pub fn results(&self, outputs: &quearn::Outputs) -> Result<BTreeMap<String, Tensor>> {
        let mut results = self.empty.clone();
        for port in self.outputs.iter().filter(|port| self.computes(&port.name)) {
            let mut tensor = outputs.tensor(&port.name)?.clone();
            if port.shape.is_empty() {
                tensor = tensor.reshape(&[]).map_err(|e| Error::Port {
                    what: "output",
                    name: port.name.clone(),
                    message: e.to_string(),
                })?;
            }
            results.insert(port.name.clone(), tensor);
        }
        Ok(results)
    }
}
