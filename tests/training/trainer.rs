//! The trainer: it learns, stops, resumes, and says what is wrong.

use super::{close, named, scalar, sessions, tensor};
use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use quearn::prelude::*;
use quearn::training::{
    Adam, AdamW, Clip, Draw, Fit, Last, Plan, Recipe, Schedule, Sgd, Trainer, batch_norm, norm::Running, steps_in_epoch,
};
use quearn::{Error, Tensors};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const ROWS: u64 = 50;
const BATCH: u64 = 8;

/// Rows [x, y] and the class of each: is x above y?
fn data() -> Tensors {
    let x: Vec<f32> = (0..2 * ROWS).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let class: Vec<i64> = x.chunks(2).map(|x| i64::from(x[0] > x[1])).collect();
    named([("x", tensor(&x, &[ROWS, 2])), ("class", tensor(&class, &[ROWS]))])
}

fn weights() -> Tensors {
    named([
        ("w1", tensor(&[0.3f32, -0.2, 0.1, 0.4, -0.5, 0.2, 0.3, -0.1], &[2, 4])),
        ("b1", tensor(&[0.1f32, 0.0, 0.1, 0.0], &[4])),
        ("w2", tensor(&[0.2f32, -0.3, 0.1, 0.2, 0.3, -0.4, -0.1, 0.2], &[4, 2])),
    ])
}

/// A small network on rows that it draws itself, with dropout.
fn loss(s: &Stage) -> Rep<'_, Tensor<F32>> {
    let draw = Draw::new(s, ROWS, BATCH);
    let (x, class) = (draw.rows(s.input::<F32>("x", [ROWS, 2])), draw.rows(s.input::<I64>("class", [ROWS])));
    let hidden = (x.matmul(s.weight("w1", [2, 4])) + s.weight("b1", [4])).relu();
    let hidden = s.noise().map_or(hidden, |noise| hidden.dropout(0.1, noise));
    let logits = hidden.matmul(s.weight("w2", [4, 2]));
    s.output("first", class.slice(0, 0, 1, 1));
    logits.cross_entropy(class)
}

fn recipe() -> Recipe {
    let schedule = Schedule::Cosine { steps: 350, least: 1e-3 };
    Recipe { schedule, clip: Some(Clip::Norm(5.0)), seed: 7, ..Recipe::new(Adam::default(), 0.05) }
}

fn started(session: &Session) -> Trainer<'_> {
    Plan::new(recipe(), loss).unwrap().start(session, &weights()).unwrap()
}

fn session() -> Session {
    Session::builder().threads(1).build().unwrap()
}

/// So many epochs.
fn fit(trainer: &mut Trainer<'_>, epochs: u64, checkpoint: Option<&Path>) {
    let checkpoint = checkpoint.map(Path::to_owned);
    trainer.fit(&data(), Fit { checkpoint, ..Fit::new(epochs, steps_in_epoch(ROWS, BATCH)) }).unwrap();
}

#[test]
fn the_plan_names_what_it_needs() {
    let plan = Plan::new(recipe(), loss).unwrap();
    let named: Vec<String> = plan.weights().map(|kept| format!("{} {:?}", kept.name, kept.shape)).collect();
    assert_eq!(named, ["b1 [4]", "w1 [2, 4]", "w2 [4, 2]"]);
    let session = session();
    let error = plan.start(&session, &Tensors::new()).err().unwrap().to_string();
    assert!(error.starts_with("input tensor ") && error.contains("not given; expected f32 ["), "{error}");
}

#[test]
fn learns_and_keeps_a_history() {
    let session = session();
    let mut trainer = started(&session);
    fit(&mut trainer, 50, None);
    assert_eq!(trainer.steps(), 350);
    let steps = &trainer.history.steps;
    let mean =
        |part: &[quearn::training::history::Stepped]| part.iter().map(|s| s.loss).sum::<f64>() / part.len() as f64;
    assert!(mean(&steps[..5]) > 0.4 && mean(&steps[280..]) < 0.2, "{:?}", steps.last());
    assert_eq!(steps[0].rate, 0.05);
    assert!(steps[349].rate < 2e-3);

    // The history is a table that programs query.
    let mut session = self::session();
    let table = StoredTable::from_batches("steps", &[trainer.history.steps_batch().unwrap()]).unwrap();
    let fields = table.fields();
    session.add_table(table);
    let s = Stage::new();
    s.output("late", s.scan("steps", fields).filter(|r| r.i64("step").gt(340)).group_by([]).agg(|_| [count("n")]));
    let outputs = session.run(&s.finish().unwrap()).unwrap();
    assert!(outputs.to_string().contains("10"), "{outputs}");
}

/// The steps of an epoch inside the program give what they give one by one, and what does not hold is reported alike.
#[test]
fn several_steps_in_a_run() {
    for session in sessions() {
        let mut single = started(&session);
        fit(&mut single, 3, None);
        let mut whole = Plan::new(recipe(), loss).unwrap().steps_in_run(7).start(&session, &weights()).unwrap();
        fit(&mut whole, 3, None);
        assert_eq!(whole.steps(), 21);
        for (name, tensor) in single.weights().unwrap() {
            let other = whole.weights().unwrap();
            let floats =
                |tensor: &StoredTensor| tensor.as_slice::<f32>().unwrap().iter().map(|x| f64::from(*x)).collect();
            let [found, expected]: [Vec<f64>; 2] = [floats(&other[&name]), floats(&tensor)];
            close(&found, &expected, 1e-4);
        }
        let odd = Fit::new(1, 5);
        assert!(whole.fit(&data(), odd).unwrap_err().to_string().contains("no whole number of runs of 7"));
    }
    let session = session();
    let plan = Plan::new(Recipe::new(Sgd::default(), 1.0), falling).unwrap().steps_in_run(4);
    let mut trainer = plan.start(&session, &named([("w", tensor(&[2.5f32], &[1]))])).unwrap();
    match trainer.step(&Tensors::new()).unwrap_err() {
        Error::Diverged { step: 3, origin, .. } => assert!(origin.contains("scalar.log"), "{origin}"),
        other => panic!("{other}"),
    }
    assert_eq!(trainer.history.steps.len(), 2);
    assert_eq!(trainer.weights().unwrap()["w"].as_slice::<f32>().unwrap(), [-0.5]);
}

/// The logarithm of something that falls by 1.5 in each step, without a gradient through it.
fn falling(s: &Stage) -> Rep<'_, Tensor<F32>> {
    let w = s.weight::<F32>("w", [1]);
    (w * 1.5 + w.detach().log() * 0.0).sum([0])
}

/// Every session takes the same rows in the same order; an epoch takes no row twice.
#[test]
fn orders_follow_from_the_seed() {
    let firsts = |session: &Session| {
        let mut trainer = started(session);
        let mut firsts = vec![];
        for _ in 0..5 {
            let step = trainer.step(&data()).unwrap();
            firsts.push(step.outputs.tensor("first").unwrap().as_slice::<i64>().unwrap()[0]);
        }
        let losses: Vec<f64> = trainer.history.steps.iter().map(|s| s.loss).collect();
        (firsts, losses)
    };
    let all: Vec<_> = sessions().iter().map(firsts).collect();
    for (firsts, losses) in &all[1..] {
        assert_eq!(*firsts, all[0].0);
        close(losses, &all[0].1, 1e-4);
    }
}

/// The rows of ten that a number of steps draw, on all sessions.
fn drawn(batch: u64, last: Last, steps: usize) -> quearn::Result<Vec<i64>> {
    let s = Stage::for_training();
    let step = s.state::<I64>(STEP, Vec::<u64>::new());
    s.update(step, step + 1);
    s.output("rows", Draw::with(&s, 10, batch, last).rows(s.iota(10)));
    let graph = s.finish()?;
    let mut all = vec![];
    for session in sessions() {
        let program = session.compile(&graph)?;
        let mut state = program.state(&named([(STEP, scalar(0i64))]))?;
        let mut rows = vec![];
        for _ in 0..steps {
            let outputs = program.advance(&session, &mut state, &named([(SEED, scalar(1i64))]))?;
            rows.extend(outputs.tensor("rows")?.as_slice::<i64>()?);
        }
        all.push(rows);
    }
    assert!(all.iter().all(|rows| *rows == all[0]), "{all:?}");
    Ok(all.remove(0))
}

/// Each part has `size` of ten rows, none twice, and is in another order than the others.
fn orders(rows: &[i64], size: usize) {
    for (i, part) in rows.chunks(size).enumerate() {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert!(sorted.len() == size && sorted.iter().all(|row| (0..10).contains(row)), "epoch {i}: {part:?}");
        assert!(rows.chunks(size).skip(i + 1).all(|other| other != part), "epoch {i}: {rows:?}");
    }
}

#[test]
fn rows_that_are_left_wait_for_the_next_epoch_or_are_dropped() {
    orders(&drawn(3, Last::Drop, 9).unwrap(), 9);
    for (batch, steps) in [(3, 10), (4, 5), (7, 10), (10, 3), (5, 6)] {
        let carried = drawn(batch, Last::Carry, steps).unwrap();
        orders(&carried, 10);
        if 10 % batch == 0 {
            assert_eq!(carried, drawn(batch, Last::Drop, steps).unwrap());
        }
    }
    assert_eq!([Last::Carry, Last::Drop].map(|last| last.steps(10, 3)), [4, 3]);
    assert_eq!([steps_in_epoch(10, 5), steps_in_epoch(10, 0), steps_in_epoch(0, 3)], [2, 0, 0]);
    let error = drawn(11, Last::Carry, 1).unwrap_err().to_string();
    assert!(error.contains("out of range"), "{error}");
}

#[test]
fn resumed_training_ends_in_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let session = session();
    let mut whole = started(&session);
    fit(&mut whole, 6, None);

    let mut first = started(&session);
    fit(&mut first, 2, Some(folder.path()));
    fit(&mut first, 3, Some(folder.path()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let mut second = started(&session);
    second.resume(folder.path()).unwrap();
    assert_eq!(second.steps(), 21);
    fit(&mut second, 6, None);
    assert_eq!(second.weights().unwrap(), whole.weights().unwrap());
    assert_eq!(second.history, whole.history);
}

#[test]
fn bad_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let session = session();
    let mut trainer = started(&session);
    let fails = |trainer: &mut Trainer<'_>| match trainer.resume(folder.path()) {
        Err(error @ Error::Checkpoint { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(()) => panic!("resumed"),
    };
    let none = fails(&mut trainer);
    assert!(none.contains("checkpoint.json: No such file"), "{none}");
    fit(&mut trainer, 1, Some(folder.path()));
    let before = trainer.weights().unwrap();

    // Of another network, of another recipe.
    let mut other = Plan::new(recipe(), square).unwrap().start(&session, &named([("w", scalar(1.0f32))])).unwrap();
    let network = fails(&mut other);
    assert!(network.contains("of another network or optimiser: it has \"b1\" f32[4], expected"), "{network}");
    let adam_w = Recipe::new(AdamW::default(), 0.05);
    let mut other = Plan::new(adam_w, loss).unwrap().start(&session, &weights()).unwrap();
    let recipe = fails(&mut other);
    assert!(recipe.contains("it is of another recipe") && recipe.contains("adam_w"), "{recipe}");

    // Damaged: one bit of the tensors, half of them, half of the text, another version.
    let file = |end: &str| {
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap()
    };
    let (tensors, text) = (file(".safetensors"), file(".json"));
    let (good, good_text) = (std::fs::read(&tensors).unwrap(), std::fs::read_to_string(&text).unwrap());
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    for bytes in [&bad[..], &good[..good.len() / 2], &[]] {
        std::fs::write(&tensors, bytes).unwrap();
        assert!(fails(&mut trainer).contains("its checksum is another"));
    }
    std::fs::write(&tensors, &good).unwrap();
    std::fs::write(&text, &good_text[..good_text.len() / 2]).unwrap();
    assert!(fails(&mut trainer).contains("it is damaged"));
    std::fs::write(&text, good_text.replace("\"version\":1", "\"version\":2")).unwrap();
    assert!(fails(&mut trainer).contains("it has version 2, expected 1"));
    std::fs::write(&text, good_text.replace("\"step\":7", "\"step\":5")).unwrap();
    assert!(fails(&mut trainer).contains("it is not of step 5"));

    assert_eq!(trainer.weights().unwrap(), before);
    std::fs::write(&text, &good_text).unwrap();
    trainer.resume(folder.path()).unwrap();
}

/// Another network: one weight.
fn square(s: &Stage) -> Rep<'_, Tensor<F32>> {
    let w = s.weight::<F32>("w", Vec::<u64>::new());
    w * w
}

#[test]
fn stops_early() {
    let session = session();
    let mut trainer = started(&session);
    let mut scores = [0.5, 0.6, 0.55, 0.6, 0.9].into_iter();
    let mut score = |_: &Tensors| Ok(scores.next().unwrap_or(0.0));
    let fit = Fit { score: Some(&mut score), patience: Some(2), ..Fit::new(10, 6) };
    trainer.fit(&data(), fit).unwrap();
    assert_eq!(trainer.history.scores.iter().map(|s| s.score).collect::<Vec<_>>(), [0.5, 0.6, 0.55, 0.6]);

    let mut steps = 0;
    let mut watch = |_: &_| {
        steps += 1;
        if steps == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let fit = Fit { watch: Some(&mut watch), ..Fit::new(10, 6) };
    let before = trainer.steps();
    trainer.fit(&data(), fit).unwrap();
    assert_eq!(trainer.steps(), before + 3);
}

/// The logarithm of what falls to 0 in the third step; the weights stay those of the second.
#[test]
fn a_loss_that_is_not_finite_names_its_operator() {
    for session in sessions() {
        let plan = Plan::new(Recipe::new(Sgd::default(), 1.0), logarithm).unwrap();
        let mut trainer = plan.start(&session, &named([("w", tensor(&[2.0f32, 9.0], &[2]))])).unwrap();
        let x = |value: f32| named([("x", tensor(&[value, 1.0], &[2]))]);
        trainer.step(&x(1.0)).unwrap();
        let before = trainer.weights().unwrap();
        match trainer.step(&x(f32::INFINITY)).unwrap_err() {
            Error::Diverged { step: 2, loss, origin } => {
                assert!(!loss.is_finite());
                assert_eq!(origin, "\"x\", which is not finite itself");
            }
            other => panic!("{other}"),
        }
        let error = trainer.step(&x(-1.0)).unwrap_err().to_string();
        assert!(
            error.starts_with("the loss of step 2 is NaN; the first value that is not finite is made by scalar.log"),
            "{error}"
        );
        assert_eq!(trainer.weights().unwrap(), before);
        trainer.step(&x(1.0)).unwrap();
    }
}

/// What the session holds is there when the cause is looked for, as it was in the step.
#[test]
fn a_loss_that_is_not_finite_over_what_the_session_holds() {
    let column = |values: [Option<f32>; 3]| Arc::new(Float32Array::from_iter(values)) as ArrayRef;
    let columns = [("a", column([Some(2.0), Some(-1.0), Some(3.0)])), ("b", column([Some(1.0), None, Some(2.0)]))];
    let batch = &RecordBatch::try_from_iter(columns).unwrap();
    let origin = |loss: for<'s> fn(&'s Stage) -> Rep<'s, Tensor<F32>>| {
        sessions().into_iter().map(move |mut session| {
            session.add_table(StoredTable::from_batches("t", std::slice::from_ref(batch)).unwrap());
            session.bind("x", tensor(&[-1.0f32, 1.0], &[2]));
            let plan = Plan::new(Recipe::new(Sgd::default(), 1.0), loss).unwrap();
            let mut trainer = plan.start(&session, &named([("w", tensor(&[2.0f32, 9.0], &[2]))])).unwrap();
            match trainer.step(&Tensors::new()).unwrap_err() {
                Error::Diverged { origin, .. } => origin,
                other => panic!("{other}"),
            }
        })
    };
    for origin in origin(logarithm) {
        assert!(origin.starts_with("scalar.log"), "{origin}");
    }
    let over_rows: for<'s> fn(&'s Stage) -> Rep<'s, Tensor<F32>> = |s| {
        let rows = s.scan("t", [Field::new("a", Scalar::F32), Field::nullable("b", Scalar::F32)]);
        let x = rows.filter(|r| r.f32("b").gt(0.0f32)).tensor::<F32>(&["a", "a"]);
        let x = (x - 2.0).log();
        x.matmul(s.weight::<F32>("w", [2]).reshape([2u64, 1])).sum([0, 1])
    };
    for origin in origin(over_rows) {
        assert!(origin.starts_with("scalar.log"), "{origin}");
    }
}

/// A result with the name of an input, but of another type, is no next value of it.
#[test]
fn a_result_may_have_the_name_of_an_input() {
    let loss: for<'s> fn(&'s Stage) -> Rep<'s, Tensor<F32>> = |s| {
        let x = s.input::<F32>("x", [2]);
        s.output("x", x.cast::<F64>());
        (s.weight::<F32>("w", [2]) * x).sum([0])
    };
    for in_run in [1, 3] {
        let session = Session::builder().backend(BackendKind::Interp).threads(1).build().unwrap();
        let plan = Plan::new(Recipe::new(Sgd::default(), 1.0), loss).unwrap().steps_in_run(in_run);
        let mut trainer = plan.start(&session, &named([("w", tensor(&[2.0f32, 9.0], &[2]))])).unwrap();
        trainer.step(&named([("x", tensor(&[1.0f32, 2.0], &[2]))])).unwrap();
        let n = in_run as f32;
        assert_eq!(trainer.weights().unwrap(), named([("w", tensor(&[2.0 - n, 9.0 - 2.0 * n], &[2]))]));
    }
}

fn logarithm(s: &Stage) -> Rep<'_, Tensor<F32>> {
    let (w, x) = (s.weight::<F32>("w", [2]), s.input::<F32>("x", [2]));
    (x.log() + w * 0.5).sum([0])
}

/// `nn.BatchNorm2d(2)` of PyTorch in training mode on x = arange(16).reshape(2, 2, 2, 2) ** 1.5 / 10, weight [1.5, 0.5], bias
/// [0.1, -0.2]: y[0, :, 0, 0], y[1, :, 1, 1], and the running values after one batch.
#[test]
fn batch_norm_moves_running_values() {
    let s = Stage::for_training();
    let x = s.input::<F64>("x", [2, 2, 2, 2]);
    let running = Running { mean: s.state::<F64>("mean", [2]), variance: s.state::<F64>("variance", [2]) };
    let scale_bias = [s.input::<F64>("scale", [2]), s.input::<F64>("bias", [2])];
    s.output("y", batch_norm(x, scale_bias, running, 0.1, 1e-5));
    let graph = s.finish().unwrap();
    let x: Vec<f64> = (0..16).map(|i| f64::from(i).powf(1.5) / 10.0).collect();
    let inputs = named([
        ("x", tensor(&x, &[2, 2, 2, 2])),
        ("scale", tensor(&[1.5, 0.5], &[2])),
        ("bias", tensor(&[0.1, -0.2], &[2])),
    ]);
    for session in sessions() {
        let program = session.compile(&graph).unwrap();
        let initial = named([("mean", tensor(&[0.0, 0.0], &[2])), ("variance", tensor(&[1.0, 1.0], &[2]))]);
        let mut state = program.state(&initial).unwrap();
        let outputs = program.advance(&session, &mut state, &inputs).unwrap();
        let y = outputs.tensor("y").unwrap().as_slice::<f64>().unwrap().to_vec();
        close(&[y[0], y[4], y[11], y[15]], &BATCH_NORM[..4], 1e-9);
        close(state.tensor("mean").unwrap().as_slice::<f64>().unwrap(), &BATCH_NORM[4..6], 1e-12);
        close(state.tensor("variance").unwrap().as_slice::<f64>().unwrap(), &BATCH_NORM[6..], 1e-12);
    }
}

const BATCH_NORM: [f64; 8] = [
    -1.5808104927403663,
    -0.8152175140829491,
    2.2893021034588337,
    0.5010191501543775,
    0.1584470573012694,
    0.31414609636535196,
    1.1285089146579228,
    1.3138540587246978,
];
