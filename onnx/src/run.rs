//! A model in a session.

use crate::error::{Error, Result};
use crate::import::Model;
use quearn::Session;
use quearn::data::Tensor;
use std::collections::BTreeMap;

impl Model {
    /// Binds the weights to a session.
    pub fn load(&self, session: &mut Session) {
        for (name, tensor) in &self.weights {
            session.bind(name.clone(), tensor.clone());
        }
    }

    /// The results of a run of the graph, with the shapes that the model gives them.
    pub fn results(&self, outputs: &quearn::Outputs) -> Result<BTreeMap<String, Tensor>> {
        let mut results = BTreeMap::new();
        for port in &self.outputs {
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
