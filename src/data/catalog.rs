//! The tables that programs run on, by name.

use super::Table;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Named tables. Cheap to clone: tables are shared.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    tables: BTreeMap<String, Arc<Table>>,
    /// Another one after each change.
    stamp: Arc<Stamp>,
}

/// What tells catalogs apart: two that have the same stamp, by its address, hold the same tables.
#[derive(Debug, Default)]
pub struct Stamp(());

impl Catalog {
    /// No tables.
    pub fn new() -> Catalog {
        Catalog::default()
    }

    /// Adds a table under its own name; one of that name is replaced.
    pub fn add(&mut self, table: impl Into<Arc<Table>>) {
        let table = table.into();
        self.tables.insert(table.name().to_owned(), table);
        self.stamp = Arc::default();
    }

    /// Says that what programs were prepared for is not there any more.
    pub fn touch(&mut self) {
        self.stamp = Arc::default();
    }

    /// Stands for the tables as they are now.
    pub fn stamp(&self) -> &Arc<Stamp> {
        &self.stamp
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name).map(Arc::as_ref)
    }

    /// All tables, by name.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// The names, for messages.
    pub fn describe(&self) -> String {
        match self.tables.len() {
            0 => "no tables".to_owned(),
            _ => self.tables.keys().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", "),
        }
    }
}
