//! The programs, compiled and run by each backend, give what PyTorch and DuckDB give.

use quearn::{BackendKind, Session};
use quearn_models::check::{self, Reference, TOLERANCE, check_tensor};
use quearn_models::pipelines::image_classes::{self, Counts, Set, image_classes};
use quearn_models::squeezenet::{CHANNELS, squeezenet1_1};
use quearn_models::weights::{self, Weights};
use quearn_stage::graph::Graph;
use quearn_stage::rep::{Marker, Rep, Stage};

/// The only result of the programs.
const RESULT: &str = "result";
/// A scale at which the pictures are few.
const SMALL: f64 = 0.01;

fn session(backend: BackendKind, threads: usize) -> Session {
    Session::builder().backend(backend).threads(threads).build().unwrap()
}

fn program<T: Marker>(write: impl for<'s> FnOnce(&'s Stage) -> Rep<'s, T>) -> Graph {
    let s = Stage::new();
    s.output(RESULT, write(&s));
    s.finish().unwrap()
}

fn bind(session: &mut Session, weights: Weights) {
    weights.into_iter().for_each(|(name, tensor)| session.bind(name, tensor));
}

/// Runs the network on the images of a reference and compares the logits.
fn squeezenet(backend: BackendKind, threads: usize, reference: Reference) {
    let size = reference.image.shape()[2];
    let graph = program(|s| squeezenet1_1(s, s.input("image", ("batch", CHANNELS as u64, size, size))));
    let mut session = session(backend, threads);
    bind(&mut session, weights::squeezenet1_1().unwrap());
    session.bind("image", reference.image);
    let outputs = session.run(&graph).unwrap();
    check_tensor(outputs.tensor(RESULT).unwrap(), &reference.logits, TOLERANCE).unwrap();
}

fn references(size: u64) -> impl Iterator<Item = Reference> {
    check::squeezenet1_1().unwrap().into_iter().filter(move |r| r.image.shape()[2] == size)
}

/// Runs the pipeline at the small scale and compares the counts.
fn classes(backend: BackendKind, threads: usize, set: Set) -> Counts {
    let data = image_classes::data(set, SMALL, &|_| ()).unwrap();
    let mut session = session(backend, threads);
    bind(&mut session, data.weights);
    session.bind("pixels", data.pixels);
    session.add_table(data.images);
    session.add_table(data.cameras);
    let outputs = session.run(&program(|s| image_classes(s, set, SMALL))).unwrap();
    let result = outputs.table(RESULT).unwrap();
    image_classes::check(set, SMALL, result).unwrap();
    image_classes::counts(set, result).unwrap()
}

#[cfg(any(feature = "llvm", feature = "llvm19"))]
mod llvm {
    use super::*;

    #[test]
    fn squeezenet_agrees_with_pytorch() {
        for threads in [1, 2] {
            references(64).chain(references(224)).for_each(|r| squeezenet(BackendKind::Llvm, threads, r));
        }
    }

    #[test]
    fn image_classes_agree_with_duckdb_and_pytorch() {
        for set in [Set::A, Set::B] {
            let [one, two] = [1, 2].map(|threads| classes(BackendKind::Llvm, threads, set));
            assert_eq!(one, two);
        }
    }
}

#[test]
fn squeezenet_agrees_with_pytorch_when_interpreted() {
    references(64).for_each(|r| squeezenet(BackendKind::Interp, 1, r));
}

#[test]
fn image_classes_agree_when_interpreted() {
    classes(BackendKind::Interp, 2, Set::A);
}
