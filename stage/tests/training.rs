//! Programs for training, and random numbers, as text.

use quearn_stage::graph::{Graph, parse};
use quearn_stage::rep::*;

/// The text of a graph, which reads back to the same.
fn text(graph: &Graph) -> String {
    let text = graph.to_string();
    assert_eq!(parse(&text).unwrap().to_string(), text);
    text
}

#[test]
fn random_numbers_have_a_text() {
    let s = Stage::new();
    let counter = s.input::<I64>("counter", [4]);
    s.output("u", s.random(1, 2).at::<F32>(counter));
    let text = text(&s.finish().unwrap());
    assert!(text.contains("[4] f32 = scalar.random v1, v2, v0 to f32"), "{text}");
}

#[test]
fn weights_are_state_in_training() {
    let write = |s: &Stage| {
        let w = s.weight::<F32>("w", [2]);
        // A weight that is asked for twice is one.
        s.output("y", w + s.weight::<F32>("w", [2]));
        (s.is_training(), s.weights::<F32>().len(), s.noise().is_some())
    };
    let s = Stage::new();
    assert_eq!(write(&s), (false, 0, false));
    assert!(text(&s.finish().unwrap()).contains("tensor.input \"w\" weight"));
    let s = Stage::for_training();
    assert_eq!(write(&s), (true, 1, true));
    assert!(!text(&s.finish().unwrap()).contains("weight"));
}

#[test]
fn updates_may_depend_on_a_condition() {
    let s = Stage::for_training();
    let (w, go_on) = (s.state::<F32>("w", [2]), s.input::<Bool>("go_on", Vec::<u64>::new()));
    s.update(w, w * 2.0);
    s.output("w2", w * 3.0);
    s.update_only_if(go_on);
    let graph = s.finish().unwrap();
    let names: Vec<&str> = graph.outputs().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["w", "w2"]);
    assert_eq!(text(&graph).matches("scalar.select").count(), 1);
}
