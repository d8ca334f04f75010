//! Compiled programs as files: object code, and what the session has to know to run it.
//!
//! | file | what it holds |
//! |---|---|
//! | [`manifest`] | who made the program, for which machine, and how to run it |
//! | [`origin`] | the graph that a program was compiled from |
//! | [`container`] | the bytes of a file: a header, the manifest, the parts, each with its checksum |
//! | [`error`] | why a file is refused |
//!
//! A file belongs to one build of Quearn, one version of LLVM and one kind of processor; compiling again is cheap, and a
//! program that runs on what it was not made for is not. Checksums find damage. They are no protection from somebody who
//! means harm: whoever may write the file decides what runs, as with any program.

mod container;
pub mod error;
mod manifest;
mod origin;

pub use error::SavedError;
pub(crate) use origin::Origin;

use crate::data::{Catalog, Error as DataError};
use crate::error::Result;
use crate::executable::{Executable, Given, Tensors, given};
use crate::io::AtomicFile;
use crate::lower::Interface;
use crate::lower::relational::scan;
use manifest::Manifest;
use quearn_backends::{Function, ObjectCode, Target};
use quearn_stage::graph::Graph;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// A program that was read from a file, not loaded yet.
pub(crate) struct Saved {
    /// The graph that it was compiled from.
    pub origin: Origin,
    /// How to run it.
    pub interface: Interface,
    /// What runs.
    pub code: ObjectCode,
    /// Values of its parameters.
    pub parameters: Vec<Option<i128>>,
    /// Milliseconds that compiling it took.
    pub compile_ms: f64,
}

/// What is to be written to a file.
pub(crate) struct Source<'a> {
    pub origin: &'a Origin,
    pub executable: &'a Executable,
    pub parameters: &'a [Option<i128>],
    pub compile_ms: f64,
}

/// Name of the part with the text of the graph.
const GRAPH: &str = "graph";

impl Source<'_> {
    /// Writes the file, which appears whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let ObjectCode { target, functions, objects } = self.executable.code.object_code()?;
        let manifest = Manifest {
            quearn: manifest::QUEARN.to_owned(),
            sources: manifest::SOURCES.to_owned(),
            compiler: target.compiler,
            triple: target.triple,
            cpu: target.cpu,
            features: target.features,
            compile_us: (self.compile_ms * 1e3).round() as u64,
            parameters: self.parameters.to_vec(),
            functions: functions.into_iter().map(|f| (f.symbol, f.on_frame)).collect(),
            interface: self.executable.interface.clone(),
            parts: vec![],
        };
        let objects = objects.into_iter().enumerate().map(|(i, object)| (format!("object {i}"), object));
        let graph = (GRAPH.to_owned(), self.origin.text().into_owned().into_bytes());
        let bytes = container::pack(manifest, std::iter::once(graph).chain(objects).collect())?;
        let mut file = AtomicFile::create(path)?;
        file.write_all(&bytes).map_err(|source| DataError::File { path: path.to_path_buf(), source })?;
        Ok(file.commit()?)
    }
}

impl Saved {
    /// Reads a file and checks all that can be checked without the session.
    pub(crate) fn read(path: &Path) -> Result<Saved> {
        let io = |source| DataError::File { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        let bytes = container::read(file).map_err(io)?;
        Ok(Saved::from_bytes(&bytes).map_err(|error| error.at(path))?)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Saved, error::Kind> {
        let (manifest, parts) = container::unpack(bytes)?;
        let ill_formed = |message: String| error::Kind::IllFormed { message };
        let mut parts = parts.into_iter();
        let text = parts.next().filter(|(name, _)| *name == GRAPH).map(|(_, text)| text);
        let text = text.and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(|| ill_formed("no graph".into()))?;
        let functions = manifest.functions.into_iter().map(|(symbol, on_frame)| Function { symbol, on_frame });
        let code = ObjectCode {
            target: Target {
                compiler: manifest.compiler,
                triple: manifest.triple,
                cpu: manifest.cpu,
                features: manifest.features,
            },
            functions: functions.collect(),
            objects: parts.map(|(_, object)| object.to_vec()).collect(),
        };
        let interface = manifest.interface;
        if let Some(fault) = interface.fault().or_else(|| fault(&interface, &code)) {
            return Err(ill_formed(fault));
        }
        let origin = match interface.reads_tables() {
            true => Origin::Graph(origin::read(text)?),
            false => Origin::Text(text.to_owned()),
        };
        let (parameters, compile_ms) = (manifest.parameters, manifest.compile_us as f64 / 1e3);
        Ok(Saved { origin, interface, code, parameters, compile_ms })
    }

    /// Checks that the program was made for these tables, and for such weights where they are there already.
    pub(crate) fn check(&self, path: &Path, catalog: &Catalog, tensors: &Tensors) -> Result<()> {
        if let Origin::Graph(graph) = &self.origin {
            scan::check_all(graph, catalog)?;
        }
        if let Some(fact) = self.interface.facts.iter().find(|fact| !fact.holds(catalog)) {
            return Err(error::Kind::OtherTables { fact: fact.to_string() }.at(path).into());
        }
        let bound = self.interface.inputs.iter().filter(|i| i.weight && tensors.contains_key(&i.name));
        let tensors = Given { inputs: tensors, session: tensors };
        bound.map(|input| given(tensors, input)).try_for_each(|tensor| tensor.map(drop))
    }

    /// Checks that the program was compiled from this graph.
    pub(crate) fn check_graph(&self, path: &Path, graph: &Graph) -> Result<()> {
        match self.origin.text() == graph.to_string() {
            true => Ok(()),
            false => Err(error::Kind::OtherProgram.at(path).into()),
        }
    }
}

/// What does not fit between a program and its code.
fn fault(interface: &Interface, code: &ObjectCode) -> Option<String> {
    let on_frame = |func: &quearn_stage::low::FuncId| code.functions.get(func.index()).is_some_and(|f| f.on_frame);
    let entries = interface.prepare.iter().chain([&interface.main]);
    let fits = code.functions.len() == interface.functions.len() && entries.into_iter().all(on_frame);
    (!fits).then(|| "the functions of the code are not those of the program".to_owned())
}

#[cfg(test)]
#[cfg(any(feature = "llvm", feature = "llvm19"))]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::{BackendKind, Session};
    use error::Kind;
    use quearn_backends::BackendError;
    use quearn_stage::rep::{F32, Stage};

    fn session() -> Session {
        Session::builder().backend(BackendKind::Llvm).threads(1).build().unwrap()
    }

    /// What loading a program says when its manifest was changed and signed anew.
    fn refused(change: impl FnOnce(&mut Manifest)) -> Error {
        let s = Stage::new();
        let x = s.input::<F32>("x", [40]);
        s.output("y", x.exp() + x.sqrt());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        session().compile(&s.finish().unwrap()).unwrap().save(&path).unwrap();
        let file = std::fs::read(&path).unwrap();
        let (mut manifest, parts) = container::unpack(&file).unwrap();
        change(&mut manifest);
        let parts = parts.into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect();
        std::fs::write(&path, container::pack(manifest, parts).unwrap()).unwrap();
        session().load(&path).err().expect("the file is refused")
    }

    fn kind(error: Error) -> Kind {
        match error {
            Error::Saved(error) => error.kind,
            other => panic!("another error: {other}"),
        }
    }

    #[test]
    fn other_builds_are_refused() {
        let error = kind(refused(|m| m.quearn = "0.0.7".into()));
        assert!(error.to_string().starts_with("was saved by Quearn 0.0.7 (build "), "{error}");
        let error = kind(refused(|m| m.sources = "0".into()));
        assert!(matches!(&error, Kind::OtherVersion { made, .. } if made.ends_with("(build 0)")), "{error}");
    }

    #[test]
    fn other_machines_are_refused() {
        let backend = |error: Error| match error {
            Error::Backend(error) => error,
            other => panic!("another error: {other}"),
        };
        let error = backend(refused(|m| m.features.push("sve9".into())));
        assert!(matches!(&error, BackendError::MissingFeatures { missing, .. } if missing == &["sve9"]), "{error}");
        let error = backend(refused(|m| m.compiler = "LLVM 99.0.0".into()));
        assert!(error.to_string().starts_with("the code was compiled by LLVM 99.0.0, this is LLVM "), "{error}");
        let error = backend(refused(|m| m.triple = "s390x-ibm-linux".into()));
        assert!(matches!(error, BackendError::OtherMachine { .. }), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let ill_formed = |change: &dyn Fn(&mut Manifest)| match kind(refused(change)) {
            Kind::IllFormed { message } => message,
            other => panic!("another error: {other}"),
        };
        assert_eq!(ill_formed(&|m| m.interface.frame_bytes = 8), "a binding is wrong");
        assert_eq!(ill_formed(&|m| m.interface.frame_bytes = -64), "the size of the frame is wrong");
        assert_eq!(ill_formed(&|m| m.interface.main.0 = 1000), "an entry point is wrong");
        assert_eq!(ill_formed(&|m| m.interface.outputs.clear()), "a binding is wrong");
        let other = "the functions of the code are not those of the program";
        assert_eq!(ill_formed(&|m| m.functions.clear()), other);
        assert_eq!(ill_formed(&|m| m.functions.iter_mut().for_each(|f| f.1 = false)), other);
        let error = refused(|m| m.functions[0].0.push('x'));
        assert!(error.to_string().contains("Symbols not found"), "{error}");
    }
}
