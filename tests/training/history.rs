//! Histories as tables and as a picture.

use quearn::training::History;
use quearn::training::history::{Scored, Stepped};

fn history(losses: &[f64]) -> History {
    let steps = losses.iter().zip(1..).map(|(&loss, step)| Stepped { step, loss, rate: 0.1 }).collect();
    History { steps, scores: vec![Scored { epoch: 1, step: 2, score: 0.5 }] }
}

#[test]
fn pictures() {
    let svg = history(&[4.0, 2.0, 1.0]).curve();
    let line = r##"<polyline points="56.0,20.0 336.0,170.0 616.0,245.0" fill="none" stroke="#9ecae1"/>"##;
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains(line), "{svg}");
    assert!(svg.contains(">4.000</text>") && svg.contains(">step 3</text>"), "{svg}");
    // Nothing to show is shown as nothing.
    assert!(history(&[]).curve().contains(r#"points="""#));
}

#[test]
fn tables() {
    let history = history(&[4.0, 2.0]);
    let steps = history.steps_batch().unwrap();
    let names: Vec<String> = steps.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!((names.join(" ").as_str(), steps.num_rows()), ("step loss rate", 2));
    let scores = history.scores_batch().unwrap();
    let names: Vec<String> = scores.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!((names.join(" ").as_str(), scores.num_rows()), ("epoch step score", 1));
}
