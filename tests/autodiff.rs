//! Derivatives of operators against central differences, once and (of smooth ones) twice, and as compiled code.

mod autodiff_harness;

use autodiff_harness::*;
use quearn::autodiff::gradients;
use quearn::eval::{EvalTensor, Inputs, evaluate};
use quearn::prelude::*;

#[test]
fn functions_of_one_operand() {
    let shape: &[&[u64]] = &[&[2, 3]];
    check("neg", shape).run(|_, x| -x[0] * x[0]);
    check("exp", shape).run(|_, x| x[0].exp());
    check("log", shape).range(0.3, 2.0).run(|_, x| x[0].log());
    check("sqrt", shape).range(0.3, 2.0).run(|_, x| x[0].sqrt());
    check("tanh", shape).run(|_, x| x[0].tanh());
    check("sigmoid", shape).run(|_, x| x[0].sigmoid());
    check("erf", shape).run(|_, x| x[0].erf());
    check("sin", shape).run(|_, x| x[0].sin());
    check("cos", shape).run(|_, x| x[0].cos());
    check("atan", shape).run(|_, x| x[0].atan());
    check("relu", shape).kinked().run(|_, x| x[0].relu());
    check("abs", shape).kinked().run(|_, x| x[0].abs());
    check("floor", shape).kinked().run(|_, x| x[0].floor() + x[0].ceil() + x[0]);
    check("detach", shape).kinked().run(|_, x| x[0] + x[0] - x[0]);
}

#[test]
fn functions_of_two_operands_broadcast() {
    let all: [&[&[u64]]; 5] =
        [&[&[2, 3], &[2, 3]], &[&[2, 3], &[3]], &[&[2, 1], &[1, 3]], &[&[], &[4]], &[&[2, 1, 2], &[3, 1]]];
    for shapes in all {
        check("add", shapes).run(|_, x| (x[0] + x[1]) * x[0]);
        check("sub", shapes).run(|_, x| (x[0] - x[1]) * x[1]);
        check("mul", shapes).run(|_, x| x[0] * x[1]);
        check("div", shapes).range(0.5, 2.0).run(|_, x| x[0] / x[1]);
        check("pow", shapes).range(0.5, 2.0).run(|_, x| x[0].pow(x[1]));
        check("rem", shapes).range(0.6, 3.0).kinked().run(|_, x| x[0] % x[1]);
        check("min", shapes).kinked().run(|_, x| x[0].minimum(x[1]));
        check("max", shapes).kinked().run(|_, x| x[0].maximum(x[1]));
        check("select", shapes).run(|s, x| {
            let positive = x[0].gt(0.1);
            let _ = s;
            positive.choose(x[0] * x[1], x[1] * x[1])
        });
    }
}

#[test]
fn powers_by_numbers() {
    for exponent in [0.0, 1.0, 2.0, 3.0, 0.5, -1.0] {
        check("pow", &[&[3]]).range(0.5, 2.0).run(move |_, x| x[0].pow(exponent));
    }
}

#[test]
fn places_of_elements() {
    check("reshape", &[&[2, 6]]).run(|_, x| x[0].reshape([3u64, 4]).exp());
    check("transpose", &[&[2, 3, 2]]).run(|_, x| x[0].permute([2, 0, 1]).exp());
    check("broadcast", &[&[3, 1]]).run(|_, x| x[0].broadcast([2u64, 3, 4]).exp());
    check("concat", &[&[2, 3], &[2, 1]]).run(|_, x| x[0].concat([x[1], x[0]], 1).exp());
    check("stack", &[&[2, 2], &[2, 2]]).run(|s, x| {
        let both: Rep<'_, Tensor<F64>> = s.extend("stack", &[x[0].dyn_(), x[1].dyn_()], 1, |g, n| {
            Ok(vec![g.add(quearn_stage::graph::Op::Stack, n)?])
        })[0];
        both.exp()
    });
}

#[test]
fn slices_with_any_step() {
    for (start, step, count) in
        [(0, 1, 3), (1, 1, 2), (0, 2, 3), (1, 2, 3), (6, -1, 7), (6, -2, 3), (5, -3, 2), (2, 5, 1), (1, 3, 2)]
    {
        check("slice of rows", &[&[7, 2]]).run(move |_, x| x[0].slice(0, start, step, count).exp());
        check("slice of columns", &[&[2, 7]]).run(move |_, x| x[0].slice(1, start, step, count).exp());
        check("slice of a sum", &[&[2, 7]]).run(move |_, x| x[0].slice(1, start, step, count));
    }
}

#[test]
fn reductions() {
    for axes in [vec![0], vec![1], vec![0, 2], vec![0, 1, 2]] {
        let shapes: &[&[u64]] = &[&[2, 3, 2]];
        let of = |axes: &Vec<usize>| axes.clone();
        check("sum", shapes).run(|_, x| x[0].sum(of(&axes)).exp());
        check("mean", shapes).run(|_, x| x[0].mean(of(&axes)).exp());
        check("max", shapes).kinked().run(|_, x| x[0].max(of(&axes)).exp());
        check("min", shapes).kinked().run(|_, x| x[0].min(of(&axes)).exp());
        check("product", shapes).range(0.5, 1.5).run(|_, x| x[0].product(of(&axes)));
    }
    // None, one, two and three elements that are exactly zero.
    for axes in [vec![0], vec![1], vec![0, 1]] {
        check("product with zeros", &[&[3, 3]]).range(0.0, 0.0).run(|s, x| {
            let more = (s.iota(9) % 4).minimum(2).cast::<F64>().reshape([3u64, 3]);
            (x[0] + more).product(axes.clone())
        });
        check("product of zeros", &[&[2, 1], &[2, 1]])
            .range(0.0, 0.0)
            .run(|_, x| (x[0].concat([x[1], x[0].exp()], 1)).product(axes.clone()).exp());
    }
    for axis in 0..3 {
        check("softmax", &[&[2, 3, 2]]).run(move |_, x| x[0].softmax(axis));
        check("log_softmax", &[&[2, 3, 2]]).run(move |_, x| x[0].log_softmax(axis));
        check("cum_sum", &[&[2, 3, 2]]).run(move |_, x| x[0].exp().cum_sum(axis));
    }
}

#[test]
fn matrix_products() {
    let all: [&[&[u64]]; 7] = [
        &[&[2, 3], &[3, 4]],
        &[&[5, 2, 3], &[3, 4]],
        &[&[5, 2, 3], &[5, 3, 4]],
        &[&[2, 3], &[5, 3, 4]],
        &[&[2, 1, 2, 3], &[3, 3, 2]],
        &[&[1, 3], &[3, 1]],
        &[&[1, 2, 3], &[4, 3, 1]],
    ];
    for shapes in all {
        check("matmul", shapes).run(|_, x| x[0].matmul(x[1]));
    }
}

#[test]
fn convolutions() {
    let conv = |stride, padding, dilation, groups| Conv2d { stride, padding, dilation, groups };
    let cases: [(&[&[u64]], Conv2d); 9] = [
        (&[&[2, 2, 4, 5], &[3, 2, 3, 3], &[3]], conv([1, 1], [0, 0], [1, 1], 1)),
        (&[&[1, 2, 4, 4], &[2, 2, 3, 3], &[2]], conv([1, 1], [1, 1], [1, 1], 1)),
        (&[&[1, 1, 5, 6], &[2, 1, 2, 3], &[2]], conv([2, 2], [0, 1], [1, 1], 1)),
        (&[&[2, 1, 6, 5], &[1, 1, 3, 2], &[1]], conv([2, 1], [1, 0], [1, 2], 1)),
        (&[&[1, 4, 4, 3], &[6, 2, 2, 2], &[6]], conv([1, 1], [0, 0], [1, 1], 2)),
        (&[&[2, 3, 4, 4], &[3, 1, 3, 3], &[3]], conv([1, 1], [1, 1], [1, 1], 3)),
        (&[&[1, 2, 5, 5], &[2, 1, 2, 2], &[2]], conv([3, 2], [0, 0], [1, 1], 2)),
        (&[&[1, 1, 3, 3], &[2, 1, 1, 1], &[2]], conv([1, 1], [2, 1], [1, 1], 1)),
        (&[&[1, 2, 3, 3], &[2, 2, 1, 1], &[2]], conv([2, 2], [0, 0], [1, 1], 1)),
    ];
    for (shapes, conv) in cases {
        let name = format!("conv2d {conv:?}");
        check(&name, shapes).run(move |_, x| x[0].conv2d(x[1], Some(x[2]), conv.clone()));
    }
}

#[test]
fn poolings() {
    let window = |kernel, stride, padding, ceil| Window { kernel, stride, padding, ceil };
    let cases = [
        window([2, 2], [2, 2], [0, 0], false),
        window([2, 2], [2, 2], [0, 0], true),
        window([3, 3], [2, 2], [0, 0], false),
        window([3, 3], [2, 2], [1, 1], true),
        window([2, 3], [1, 2], [1, 0], false),
        window([1, 2], [3, 2], [0, 0], false),
        window([2, 2], [2, 2], [1, 1], false),
    ];
    for window in cases {
        let name = format!("{window:?}");
        let shapes: &[&[u64]] = &[&[2, 2, 5, 6]];
        check(&name, shapes).kinked().run(move |_, x| x[0].max_pool2d(window).exp());
        check(&name, shapes).run(move |_, x| x[0].avg_pool2d(window).exp());
        check(&name, shapes).kinked().run(move |_, x| x[0].max_unpool2d(x[0].max_pool2d(window).exp(), window));
    }
}

#[test]
fn normalisations() {
    let shapes: &[&[u64]] = &[&[2, 3, 2, 2], &[3], &[3], &[3], &[3]];
    check("batch_norm", shapes).range(0.4, 1.5).run(|_, x| x[0].batch_norm(x[1], x[2], x[3], x[4], 1e-3));
    let shapes: &[&[u64]] = &[&[4, 3], &[3], &[3]];
    check("batch_norm of rows", shapes).run(|_, x| x[0].batch_norm_training(x[1], x[2], 1e-2)[0]);
    let shapes: &[&[u64]] = &[&[3, 2, 2, 2], &[2], &[2]];
    check("batch_norm in training", shapes).run(|_, x| x[0].batch_norm_training(x[1], x[2], 1e-2)[0]);
}

#[test]
fn losses() {
    let shapes: &[&[u64]] = &[&[4, 3]];
    let targets = |c: Check<'static>| c.ints("t", &[4], &[2, 0, 1, 1]);
    targets(check("cross_entropy", shapes))
        .range(-3.0, 3.0)
        .run(|s, x| x[0].cross_entropy(s.input::<I64>("t", [4u64])));
    targets(check("nll", shapes)).run(|s, x| x[0].log_softmax(1).nll(s.input::<I64>("t", [4u64])));
    let shapes: &[&[u64]] = &[&[4, 3], &[4, 3]];
    check("mse", shapes).run(|_, x| x[0].mse(x[1]));
    check("l1", shapes).kinked().run(|_, x| x[0].l1(x[1]));
    check("bce", shapes).range(0.1, 0.9).run(|_, x| (x[0] * 4.0 - 2.0).bce_with_logits(x[1]));
}

fn index(s: &Stage) -> Rep<'_, Tensor<I64>> {
    s.input("i", [2u64, 3])
}

#[test]
fn elements_at_places_known_later() {
    let places: &[i64] = &[4, 0, 4, 2, 4, 1];
    let with = |c: Check<'static>| c.ints("i", &[2, 3], places);
    with(check("gather of rows", &[&[5, 2]])).run(|s, x| x[0].exp().gather(index(s)).sin());
    with(check("gather of numbers", &[&[5]])).run(|s, x| x[0].gather(index(s)).exp());
    with(check("gather of matrices", &[&[5, 2, 9]])).run(|s, x| x[0].gather(index(s)).exp());
    with(check("scatter_add", &[&[5, 2], &[2, 3, 2]])).run(|s, x| x[0].exp().scatter_add(index(s), x[1].sin()).exp());
    with(check("scatter_add of numbers", &[&[70], &[2, 3]])).run(|s, x| x[0].scatter_add(index(s), x[1]).exp());
}

#[test]
fn a_scatter_outside_is_an_error() {
    for (place, fails) in [(3, false), (4, true), (-1, true)] {
        let graph = graph(|s| {
            let (x, i) = (s.input::<F64>("x", [4u64, 2]), s.input::<I64>("i", [1u64]));
            s.output("y", x.scatter_add(i, s.input::<F64>("v", [1u64, 2])));
        });
        let inputs = Inputs::new()
            .tensor("x", EvalTensor::floats(Scalar::F64, &[4, 2], vec![1.0; 8]))
            .tensor("i", EvalTensor::ints(Scalar::I64, &[1], [place]))
            .tensor("v", EvalTensor::floats(Scalar::F64, &[1, 2], vec![2.0; 2]));
        assert_eq!(evaluate(&graph, &inputs).is_err(), fails, "{place}");
        for backend in backends() {
            let mut session = Session::builder().backend(backend).build().unwrap();
            for (name, tensor) in &inputs.tensors {
                session.bind(name, StoredTensor::try_from(tensor).unwrap());
            }
            let found = session.run(&graph);
            assert_eq!(found.is_err(), fails, "{place}");
            if let Err(error) = found {
                assert!(error.to_string().contains("scatter_add"), "{error}");
            }
        }
    }
}

#[test]
fn back_through_time() {
    for back in [false, true] {
        let walk = move |axis| Walk { count: 3, axis, back };
        let shapes: &[&[u64]] = &[&[3, 2, 2], &[2, 3], &[2, 3], &[3, 3], &[3]];
        check("recurrent network", shapes).run(move |s, x| {
            let [xs, h, w, u, b] = x[..] else { panic!("five arguments") };
            let (last, all) = s.steps(walk(0), h, xs, |h, x| {
                let next = (x.matmul(w) + h.matmul(u) + b).tanh();
                (next, next)
            });
            last + all.sum([0])
        });
        check("no value of a step is read again", shapes).run(move |s, x| {
            let [xs, h, w, u, b] = x[..] else { panic!("five arguments") };
            s.steps(walk(0), h, xs, |h, x| (x.matmul(w) + h.matmul(u) + b, h)).0
        });
        check("a product that two others read, and left operands that are computed", shapes).kinked().run(
            move |s, x| {
                let [xs, h, w, u, b] = x[..] else { panic!("five arguments") };
                let (last, all) = s.steps(walk(0), h, xs, |h, x| {
                    let sum = (x * x).matmul(w) + b;
                    let next = sum.relu() * sum + (h * 0.5).matmul(u);
                    (next, sum)
                });
                last * all.mean([0])
            },
        );
        check("two values carried along axis 1", &[&[2, 3, 2], &[2, 2], &[2, 2]]).run(move |s, x| {
            let ((c, h), (cs, hs)) = s.steps(walk(1), (x[1], x[2]), x[0], |(c, h), x| {
                let gate = (x + h).sigmoid();
                let c = c * gate + x;
                ((c, c.tanh() * gate), (c, gate))
            });
            c * h + cs.sum([1]) * hs.mean([1])
        });
        check("only what is collected", &[&[3, 2], &[2]]).run(move |s, x| {
            let (_, all) = s.steps(walk(0), x[1], x[0], |h, x| (h * x, (h + x).exp()));
            all
        });
    }
}

#[test]
fn products_of_steps_are_not_taken_again_on_the_way_back() {
    let graph = graph(|s| {
        let [h, u] = [s.input::<F64>("h", [2u64, 3]), s.input::<F64>("u", [3u64, 3])];
        let xs = s.input::<F64>("xs", [4u64, 2, 3]);
        let walk = Walk { count: 4, axis: 0, back: false };
        let (last, _) = s.steps(walk, h, xs, |h, x| {
            let next = (h.matmul(u) + x).tanh();
            (next, next)
        });
        s.output("g", gradients(last.sum([0, 1]), &[u])[0]);
    });
    // In the steps taken once more, in the steps back for the state, and behind them for the matrix.
    assert_eq!(graph.to_string().matches("tensor.matmul").count(), 3, "{graph}");
}

#[test]
fn loops_of_known_length() {
    check("loop", &[&[2], &[2]]).run(|s, x| s.loop_(3, x[0], |_, v: Floats<'_>| (v * x[1]).sin()));
    check("loop with two values", &[&[2], &[2]]).run(|s, x| {
        let (a, b) = s.loop_(2, (x[0], x[1]), |_, (a, b): (Floats<'_>, Floats<'_>)| (a * b, a + b));
        a * b
    });
}

/// The message for a program that has no derivative.
fn mistake(write: impl for<'s> Fn(&'s Stage, Floats<'s>) -> Floats<'s>) -> String {
    let s = Stage::new();
    let x = s.input::<F64>("x", [2u64]);
    s.output("g", gradients(write(&s, x), &[x])[0]);
    s.finish().unwrap_err().error.to_string()
}

#[test]
fn what_has_no_derivative_is_named() {
    let trips =
        mistake(|s, x| s.loop_(s.input::<I64>("n", [0u64; 0]).as_column(), x, |_, x: Floats<'_>| x * x).sum([0]));
    assert_eq!(trips, "autodiff: no derivative of control.loop (v5): the number of rounds must be a positive constant");
    assert_eq!(mistake(|_, x| x.exp()), "autodiff: a loss must be a float scalar, found [2] f64");
    let s = Stage::new();
    let (x, i) = (s.input::<F64>("x", [2u64]), s.input::<I64>("i", [2u64]));
    gradients(x.sum([0]), &[i]);
    let found = s.finish().unwrap_err().error.to_string();
    assert_eq!(found, "autodiff: gradients are taken by tensors of floats, found v1 of type [2] i64");
}

#[test]
fn integers_stop_gradients() {
    let graph = graph(|s| {
        let x = s.input::<F64>("x", [3u64]);
        let best: Floats<'_> = x.arg_max(0).cast::<F64>();
        s.output("g", gradients(best + x.detach().sum([0]), &[x])[0]);
    });
    assert!(graph.to_string().contains("scalar.const 0.0"), "{graph}");
    assert!(!graph.to_string().contains("arg_max"), "{graph}");
}

#[test]
fn derived_graphs_are_small() {
    let graph = graph(|s| {
        let (x, t) = (s.input::<F32>("x", ("batch", 4u64)), s.input::<F32>("t", ("batch", 2u64)));
        let (w, b) = (s.weight::<F32>("w", [4u64, 2]), s.weight::<F32>("b", [2u64]));
        let loss = (x.matmul(w) + b).mse(t);
        let [dw, db] = gradients(loss, &[w, b])[..] else { panic!("two gradients") };
        s.output("dw", dw);
        s.output("db", db);
    });
    insta::assert_snapshot!(graph, @r#"
    v0: [batch, 4] f32 = tensor.input "x"
    v1: [batch, 2] f32 = tensor.input "t"
    v2: [4, 2] f32 = tensor.input "w" weight
    v3: [2] f32 = tensor.input "b" weight
    v4: [batch, 2] f32 = tensor.matmul v0, v2
    v5: [batch, 2] f32 = scalar.add v4, v3
    v6: [batch, 2] f32 = scalar.sub v5, v1
    v7: f32 = scalar.const 1.0:f32
    v8: [batch] f32 = tensor.broadcast v7 to [batch]
    v9: f32 = tensor.reduce_sum v8 axes [0]
    v10: f32 = scalar.const 2.0:f32
    v11: f32 = scalar.mul v9, v10
    v12: f32 = scalar.div v7, v11
    v13: [batch, 2] f32 = scalar.mul v12, v6
    v14: [batch, 2] f32 = scalar.add v13, v13
    v15: [2] f32 = tensor.reduce_sum v14 axes [0]
    v16: [4, batch] f32 = tensor.transpose v0 perm [1, 0]
    v17: [4, 2] f32 = tensor.matmul v16, v14
    return "dw" v17
    return "db" v15
    "#);
}

/// Minus the logarithm of the probability of all ways to spell a sequence, one by one.
fn spelled_ways(scores: &[Vec<f64>], target: &[usize]) -> f64 {
    let (steps, classes) = (scores.len(), scores[0].len());
    let mut total = 0.0;
    for mut way in 0..classes.pow(steps as u32) {
        let (mut path, mut log) = (vec![], 0.0);
        for score in scores {
            path.push(way % classes);
            log += score[way % classes];
            way /= classes;
        }
        path.dedup();
        path.retain(|class| *class != 0);
        if path == target {
            total += f64::exp(log);
        }
    }
    -total.ln()
}

fn sequences(s: &Stage, n: u64, labels: u64) -> Sequences<'_> {
    Sequences {
        targets: s.input("t", [n, labels]),
        target_lengths: s.input("tl", [n]),
        input_lengths: s.input("il", [n]),
        blank: 0,
    }
}

#[test]
fn sequences_of_classes() {
    let targets: [&[i64]; 4] = [&[1, 2], &[2, 2], &[1, 0], &[2, 1]];
    let (lengths, times) = ([2, 2, 1, 2], [4, 4, 4, 2]);
    let scores = Rng::new(5).floats(4 * 4 * 3);
    let graph = graph(|s| {
        let loss = s.input::<F64>("x", [4u64, 4, 3]).log_softmax(2).ctc(sequences(s, 4, 2));
        s.output("loss", loss);
    });
    let ints = |shape: &[usize], data: Vec<i64>| EvalTensor::ints(Scalar::I64, shape, data.into_iter().map(i128::from));
    let inputs = Inputs::new()
        .tensor("x", EvalTensor::floats(Scalar::F64, &[4, 4, 3], scores.clone()))
        .tensor("t", ints(&[4, 2], targets.concat()))
        .tensor("tl", ints(&[4], lengths.to_vec()))
        .tensor("il", ints(&[4], times.to_vec()));
    let found = evaluate(&graph, &inputs).unwrap()[0].1.tensor().as_floats()[0];
    let expected: f64 = (0..4)
        .map(|n| {
            let step = |t: usize| {
                let row = &scores[(t * 4 + n) * 3..][..3];
                let total: f64 = row.iter().map(|x| x.exp()).sum();
                row.iter().map(|x| x - total.ln()).collect()
            };
            let steps: Vec<Vec<f64>> = (0..times[n] as usize).map(step).collect();
            let target: Vec<usize> = targets[n][..lengths[n] as usize].iter().map(|t| *t as usize).collect();
            spelled_ways(&steps, &target) / lengths[n] as f64
        })
        .sum();
    assert!((found - expected / 4.0).abs() < 1e-9, "{found}, expected {}", expected / 4.0);
    check("ctc", &[&[4, 4, 3]])
        .ints("t", &[4, 2], &targets.concat())
        .ints("tl", &[4], &lengths)
        .ints("il", &[4], &times)
        .run(|s, x| x[0].log_softmax(2).ctc(sequences(s, 4, 2)));
}

#[test]
fn a_class_outside_is_an_error() {
    for (target, fails) in [(2, false), (3, true), (-1, true)] {
        let graph = graph(|s| {
            s.output("loss", s.input::<F64>("x", [2u64, 3]).cross_entropy(s.input::<I64>("t", [2u64])));
        });
        let inputs = Inputs::new()
            .tensor("x", EvalTensor::floats(Scalar::F64, &[2, 3], vec![0.5; 6]))
            .tensor("t", EvalTensor::ints(Scalar::I64, &[2], [0, target]));
        assert_eq!(evaluate(&graph, &inputs).is_err(), fails, "{target}");
        for backend in backends() {
            let mut session = Session::builder().backend(backend).build().unwrap();
            for (name, tensor) in &inputs.tensors {
                session.bind(name, StoredTensor::try_from(tensor).unwrap());
            }
            assert_eq!(session.run(&graph).is_err(), fails, "{target}");
        }
    }
}
