//! Random numbers: the same in the evaluator, the interpreter and compiled code, with any number of threads.

use super::{close, evaluated, everywhere, named, scalar};
use quearn::prelude::*;
use quearn_stage::graph::philox;

fn seeds(seed: i64, stream: i64) -> quearn::Tensors {
    named([("seed", scalar(seed)), ("stream", scalar(stream))])
}

/// A program with the random numbers of a seed and a stream that are given.
fn program(body: impl for<'s> FnOnce(&'s Stage, Random<'s>)) -> Graph {
    let s = Stage::new();
    let given = |name: &str| s.input::<I64>(name, Vec::<u64>::new());
    let random = s.random(given("seed"), given("stream"));
    body(&s, random);
    s.finish().unwrap()
}

#[test]
fn numbers_are_philox_of_their_places() {
    let graph = program(|s, random| {
        s.output("narrow", random.tensor::<F32>([3, 37]));
        s.output("wide", random.tensor::<F64>([111]));
        s.output("integers", random.at::<I64>(s.iota(111) - 50));
    });
    for (seed, stream) in [(0, 0), (42, 7), (-1, i64::MIN), (i64::MAX, 1 << 33)] {
        let inputs = seeds(seed, stream);
        let block = |counter| philox::block(seed, stream, counter);
        let narrow: Vec<f32> = (0..111).map(|i| philox::unit_f32(block(i))).collect();
        let wide: Vec<f64> = (0..111).map(|i| philox::unit_f64(block(i))).collect();
        let integers: Vec<i64> = (-50..61).map(|i| philox::integer(block(i))).collect();
        assert_eq!(everywhere::<f32>(&graph, &inputs, "narrow"), narrow);
        assert_eq!(everywhere::<f64>(&graph, &inputs, "wide"), wide);
        assert_eq!(everywhere::<i64>(&graph, &inputs, "integers"), integers);
        let values = evaluated(&graph, &inputs);
        close(values[1].1.as_floats(), &wide, 0.0);
    }
}

#[test]
fn permutations() {
    for count in [1, 2, 3, 10, 100, 257] {
        let graph = program(|s, random| s.output("order", random.permutation(count)));
        let order = |stream| everywhere::<i64>(&graph, &seeds(3, stream), "order");
        let (one, other) = (order(1), order(2));
        let mut sorted = one.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..count as i64), "{one:?}");
        assert!(count < 10 || one != other && one != sorted);
    }
}

/// Every element comes to every place about equally often: 24 orders of 4 elements, each expected 100 times of 2400; chi square
/// of 23 degrees of freedom is above 49.7 once in a thousand times.
#[test]
fn orders_are_equally_likely() {
    let s = Stage::new();
    let stream = s.input::<I64>("stream", Vec::<u64>::new());
    let orders: Vec<_> = (0..100i64).map(|i| s.random(5, stream * 100 + i).permutation(4).reshape([1, 4])).collect();
    s.output("orders", orders[0].concat(orders[1..].iter().copied(), 0));
    let graph = s.finish().unwrap();
    let session = Session::builder().threads(1).build().unwrap();
    let program = session.compile(&graph).unwrap();
    let mut seen = std::collections::BTreeMap::new();
    for stream in 0..24i64 {
        let outputs = program.run_with(&session, &named([("stream", scalar(stream))])).unwrap();
        for order in outputs.tensor("orders").unwrap().as_slice::<i64>().unwrap().chunks(4) {
            *seen.entry(order.to_vec()).or_insert(0) += 1;
        }
    }
    let chi: f64 =
        seen.values().map(|n| f64::from(*n - 100i32).powi(2) / 100.0).sum::<f64>() + 100.0 * (24 - seen.len()) as f64;
    assert!(chi < 49.7, "{chi}: {seen:?}");
}

#[test]
fn dropout_keeps_the_mean() {
    let graph = program(|s, random| {
        let x = s.number::<F32>(1.0).broadcast([100, 100]);
        s.output("y", x.dropout(0.3, random));
        s.output("same", x.dropout(0.0, random).sum([0, 1]));
    });
    let y = everywhere::<f32>(&graph, &seeds(1, 2), "y");
    let zeros = y.iter().filter(|x| **x == 0.0).count();
    // Three deviations of a binomial distribution: 3 sqrt(10000 * 0.3 * 0.7) is 137.
    assert!((2863..=3137).contains(&zeros), "{zeros}");
    assert!(y.iter().all(|x| *x == 0.0 || *x == (1.0f64 / 0.7) as f32));
    assert_eq!(everywhere::<f32>(&graph, &seeds(1, 2), "same"), [10_000.0]);
}

#[test]
fn mistakes_are_reported() {
    let fails = |body: fn(&Stage)| {
        let s = Stage::new();
        body(&s);
        s.finish().unwrap_err().error.to_string()
    };
    let rate = fails(|s| s.output("y", s.input::<F32>("x", [2]).dropout(1.0, s.random(1, 2))));
    assert!(rate.contains("a dropout rate of 1"), "{rate}");
    let open = fails(|s| s.output("y", s.random(1, 2).tensor::<F32>(["n"])));
    assert!(open.contains("must be known"), "{open}");
    let ty = fails(|s| s.output("y", s.random(1, 2).at::<I32>(3)));
    assert!(ty.contains("makes f32, f64 or i64, not i32"), "{ty}");
    let half = fails(|s| s.output("y", s.random(1, 2).permutation(1 << 60)));
    assert!(half.contains("a permutation of"), "{half}");
}
