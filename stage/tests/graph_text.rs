//! The text form: random graphs come back from their text, and text that is no graph is refused without a panic.

use proptest::prelude::*;
use quearn_stage::graph::*;

fn scalar() -> impl Strategy<Value = Scalar> {
    let decimal = (0u8..40, 0u8..40).prop_map(|(p, s)| Scalar::decimal(p, s));
    let simple = prop::sample::select(vec![
        Scalar::Bool,
        Scalar::I8,
        Scalar::U8,
        Scalar::I16,
        Scalar::I32,
        Scalar::I64,
        Scalar::F16,
        Scalar::BF16,
        Scalar::F32,
        Scalar::F64,
        Scalar::Date,
        Scalar::Timestamp,
        Scalar::Interval,
        Scalar::String,
    ]);
    prop_oneof![4 => simple, 1 => decimal]
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        scalar().prop_map(Literal::null),
        any::<bool>().prop_map(Literal::bool),
        any::<i64>().prop_map(Literal::i64),
        any::<f64>().prop_map(|v| Literal::float(Scalar::F64, v).unwrap()),
        any::<f32>().prop_map(|v| Literal::float(Scalar::BF16, v.into()).unwrap()),
        (any::<i64>(), 19u8..=38, 0u8..19).prop_map(|(v, p, s)| Literal::decimal(v.into(), p, s).unwrap()),
        any::<i32>().prop_map(Literal::date),
        any::<i64>().prop_map(Literal::timestamp),
        any::<(i32, i32, i64)>().prop_map(|(m, d, u)| Literal::interval(m, d, u)),
        any::<String>().prop_map(Literal::string),
    ]
}

/// Few names, so that they meet; some that need quotes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned), 1 => any::<String>()]
}

fn elem() -> impl Strategy<Value = Elem> {
    (scalar(), any::<bool>()).prop_map(|(scalar, nullable)| Elem { scalar, nullable })
}

fn dim() -> impl Strategy<Value = Dim> {
    prop_oneof![
        6 => (0u64..5).prop_map(Dim::Const),
        1 => name().prop_map(Dim::Named),
        1 => (0u32..8).prop_map(|n| Dim::Rows(Node(n))),
    ]
}

fn ty() -> impl Strategy<Value = Ty> {
    let tensor = (elem(), prop::collection::vec(dim(), 0..5)).prop_map(|(elem, shape)| Ty::Tensor { elem, shape });
    let table = (prop::collection::vec(field(), 0..3), dim()).prop_map(|(fields, rows)| Ty::Table { fields, rows });
    prop_oneof![6 => tensor, 1 => table, 1 => Just(Ty::Tuple(vec![]))]
}

fn field() -> impl Strategy<Value = Field> {
    (name(), elem(), prop::collection::vec(0u64..4, 0..3)).prop_map(|(name, elem, shape)| Field { name, elem, shape })
}

fn kinds<K: Copy + std::fmt::Debug + 'static>(all: &'static [K]) -> impl Strategy<Value = K> {
    prop::sample::select(all)
}

fn join_kind() -> impl Strategy<Value = JoinKind> {
    prop_oneof![4 => prop::sample::select(JoinKind::UNNAMED), 1 => name().prop_map(JoinKind::Mark)]
}

fn table_op() -> impl Strategy<Value = Op> {
    let names = || prop::collection::vec(name(), 0..3);
    let aggregate = (name(), kinds(AggregateOp::ALL)).prop_map(|(name, op)| Aggregate { name, op });
    let key = any::<(bool, bool)>().prop_map(|(descending, nulls_first)| SortKey { descending, nulls_first });
    prop_oneof![
        (name(), prop::collection::vec(field(), 0..4)).prop_map(|(table, fields)| Op::Scan { table, fields }),
        Just(Op::Filter),
        names().prop_map(|names| Op::Project { names }),
        Just(Op::Product),
        names().prop_map(|names| Op::Union { names }),
        (join_kind(), 0usize..3).prop_map(|(kind, keys)| Op::Join { kind, keys }),
        (names(), prop::collection::vec(aggregate, 0..3))
            .prop_map(|(keys, aggregates)| Op::Aggregate { keys, aggregates }),
        prop::collection::vec(key, 0..3).prop_map(Op::Sort),
        any::<(u64, u64)>().prop_map(|(offset, count)| Op::Limit { offset, count }),
        name().prop_map(Op::Column),
        Just(Op::Single),
    ]
}

fn scalar_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        literal().prop_map(Op::Const),
        kinds(UnaryOp::ALL).prop_map(Op::Unary),
        kinds(BinaryOp::ALL).prop_map(Op::Binary),
        kinds(CompareOp::ALL).prop_map(Op::Compare),
        Just(Op::Select),
        Just(Op::If),
        scalar().prop_map(Op::Cast),
        name().prop_map(Op::Like),
        any::<(u32, u32)>().prop_map(|(start, len)| Op::Substring { start, len }),
        any::<[bool; 3]>().prop_map(|[lower, punctuation, spaces]| Op::Clean(Clean { lower, punctuation, spaces })),
        Just(Op::Hash),
    ]
}

fn tensor_op() -> impl Strategy<Value = Op> {
    let two = || [0u64..4, 0u64..4];
    let axes = || prop::collection::vec(0usize..4, 0..4);
    prop_oneof![
        (name(), ty(), any::<bool>()).prop_map(|(name, ty, weight)| Op::Input { name, ty, weight }),
        any::<u64>().prop_map(Op::Iota),
        Just(Op::MatMul),
        (two(), two(), two(), 0u64..3).prop_map(|(stride, padding, dilation, groups)| {
            Op::Conv2d(Conv2d { stride, padding, dilation, groups })
        }),
        (two(), two(), two(), two(), 0u64..3).prop_map(|(kernel, stride, padding, dilation, groups)| {
            Op::Conv2dFilters { conv: Conv2d { stride, padding, dilation, groups }, kernel }
        }),
        (two(), two(), two(), any::<bool>()).prop_map(|(kernel, stride, padding, ceil)| {
            Op::MaxUnpool2d(Pool2d { kind: PoolKind::Max, kernel, stride, padding, ceil })
        }),
        (kinds(PoolKind::ALL), two(), two(), two(), any::<bool>()).prop_map(|(kind, kernel, stride, padding, ceil)| {
            Op::Pool2d(Pool2d { kind, kernel, stride, padding, ceil })
        }),
        any::<f64>().prop_map(|eps| Op::BatchNorm { eps: eps.to_bits() }),
        (0usize..5).prop_map(|axis| Op::Softmax { axis }),
        (0usize..5).prop_map(|axis| Op::Concat { axis }),
        (0usize..5).prop_map(|axis| Op::ArgMax { axis }),
        (kinds(ReduceOp::ALL), axes(), any::<bool>()).prop_map(|(op, axes, keep)| Op::Reduce { op, axes, keep }),
        prop::collection::vec(dim(), 0..4).prop_map(Op::Reshape),
        axes().prop_map(Op::Transpose),
        (0usize..4, 0u64..4, -2i64..3, 0u64..4).prop_map(|(axis, start, step, count)| Op::Slice {
            axis,
            start,
            step,
            count
        }),
        prop::collection::vec(dim(), 0..4).prop_map(Op::Broadcast),
        (0usize..5).prop_map(|axis| Op::CumSum { axis }),
        forest().prop_map(|forest| Op::TreeEnsemble(forest.into())),
        Just(Op::Gather),
        Just(Op::ScatterAdd),
        Just(Op::RowNumber),
        Just(Op::Stack),
    ]
}

/// Trees over up to four features, of which some do not exist.
fn forest() -> impl Strategy<Value = Forest> {
    let steps = prop::collection::vec((0u32..5, any::<f32>(), any::<bool>()), 0..6);
    let trees = prop::collection::vec((0u32..3, steps), 0..4);
    (0u32..5, prop::collection::vec(any::<f32>(), 0..3), trees).prop_map(|(features, base, trees)| {
        let tree = |(output, splits): (u32, Vec<(u32, f32, bool)>)| {
            let leaf = forest::Step::Leaf(output as f32 - 0.25);
            let steps = splits.into_iter().flat_map(|(feature, limit, nan_left)| {
                let split = forest::Step::Split(Split { nan_left, ..Split::new(feature, limit) });
                if nan_left { vec![split, leaf] } else { vec![split] }
            });
            let mut writer = TreeWriter::default();
            steps.for_each(|step| writer.push(step));
            while !writer.is_complete() {
                writer.push(leaf);
            }
            writer.finish(output)
        };
        trees.into_iter().filter_map(tree).fold(Forest::new(features, base), Forest::with)
    })
}

fn control_op() -> impl Strategy<Value = Op> {
    let nodes = || prop::collection::vec((0u32..60).prop_map(Node), 0..4);
    prop_oneof![
        (nodes(), nodes()).prop_map(|(params, results)| Op::Loop(Region { params, results })),
        (nodes(), nodes(), 0u64..4, 0usize..3, 0usize..3, any::<bool>()).prop_map(
            |(params, results, count, carried, axis, back)| {
                Op::Steps(Steps { region: Region { params, results }, count, carried, axis, back })
            }
        ),
        (0u32..2, 0u32..3, ty()).prop_map(|(region, index, ty)| Op::Param { region, index, ty }),
        (0usize..3).prop_map(Op::Item),
    ]
}

/// An operation, and which of the nodes there are at that point it takes.
type Step = (Op, Vec<prop::sample::Index>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = prop_oneof![3 => scalar_op(), 3 => table_op(), 3 => tensor_op(), 1 => control_op()];
    prop::collection::vec((op, prop::collection::vec(any::<prop::sample::Index>(), 0..4)), 0..200)
}

/// A small program that the random steps go on from.
fn start() -> Graph {
    parse(
        "v0: {a: i64, b: string?, c: f32[3]} = rel.scan \"t\"
         v1: [rows(v0)] i64 = bridge.column v0 \"a\"
         v2: [rows(v0), 3] f32 = bridge.column v0 \"c\"
         v3: [rows(v0)] bool = scalar.lt v1, v1
         v4: [2, 4, 8, 8] f32 = tensor.input \"x\"
         v5: [3, 3] f32 = tensor.input \"w\" weight
         v6: i64 = scalar.const 3:i64
         v7: i64 = control.loop v6, v6 {
           v8: i64 = control.param region 0 index 0
           v9: i64 = control.param region 0 index 1
           v10: i64 = scalar.add v8, v9
           return v10
         }
         v11: [2, 8, 8] f32 = tensor.input \"begin\"
         v12: ([2, 8, 8] f32, [2, 4, 8, 8] f32) = control.steps v11, v4 count 4 carried 1 axis 1 back {
           v13: [2, 8, 8] f32 = control.param region 1 index 0
           v14: [2, 8, 8] f32 = control.param region 1 index 1
           v15: [2, 8, 8] f32 = scalar.add v13, v14
           return v15, v14
         }
         return \"r\" v7",
    )
    .unwrap()
}

/// The graph of the steps that the type rules allow.
fn build(steps: Vec<Step>) -> Graph {
    let mut graph = start();
    for (op, inputs) in steps {
        let inputs: Vec<Node> = inputs.iter().map(|i| Node(i.index(graph.len()) as u32)).collect();
        // Refused steps are part of the test: no input makes the rules panic.
        let _ = graph.add(op, &inputs);
    }
    let last = Node(graph.len() as u32 - 1);
    graph.output("last \"one\"\n", last);
    graph
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn graphs_come_back_from_their_text(steps in steps()) {
        let graph = build(steps);
        for text in [graph.to_string(), format!("{graph:#}")] {
            let again = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            prop_assert_eq!(format!("{again:#}"), text);
        }
    }

    #[test]
    fn well_typed_graphs_verify(steps in steps()) {
        let graph = build(steps);
        // Only a parameter outside its region is wrong with a graph that `add` built.
        if let Err(error) = verify(&graph) {
            prop_assert!(error.message.contains("depends on a parameter"), "{}", error);
        }
    }

    #[test]
    fn garbage_is_refused_without_a_panic(text in "[v0-9:{}()\\[\\],\"a-z._= \\\\\\n;?é]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn damaged_text_is_refused_without_a_panic(
        steps in steps(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0usize..4), 1..4),
    ) {
        let mut text: Vec<char> = format!("{:#}", build(steps)).chars().collect();
        for (at, with, kind) in cuts {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = with,
                1 => text.insert(at, with),
                2 => text.truncate(at + 1),
                _ => drop(text.remove(at)),
            }
            if text.is_empty() {
                break;
            }
        }
        let _ = parse(&text.into_iter().collect::<String>());
    }
}

#[test]
fn errors_name_the_line_and_what_was_expected() {
    let cases = [
        ("v0 = rel.scan", "line 1: expected `:`, found `= rel.scan`"),
        ("\n; a comment\nv0: wat = rel.scan", "line 3: expected a type such as f64, found `wat = rel.scan`"),
        ("v0: f64 = scalar.neg v1", "line 1: v1 is not defined above"),
        ("v0: f64 = scalar.nag", "line 1: expected an operation, found `scalar.nag`"),
        ("v0: f64 = scalar.const 1:f64 2", "line 1: expected the end of the line, found `2`"),
        ("v0: f64 = scalar.const x:f64", "line 1: expected a value of the type f64, found `x`"),
        ("v0: f32 = scalar.const 1:f64", "line 1: expected the type f64, found f32"),
        ("v0: i64 = scalar.const 1:i64\nv0: i64 = scalar.const 2:i64", "line 2: v0 is defined twice"),
        ("v0: {a: i64} = rel.scan \"t", "line 1: expected a closing quote, found `\"t`"),
        ("}", "line 1: expected a node or `return`, found `}`"),
        ("v0: i64 = control.loop {", "line 1: expected `}` before the end"),
        ("return \"a\" v0", "line 1: v0 is not defined above"),
    ];
    for (text, message) in cases {
        assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
    }
    let deep = format!("v0: {}f64 = x", "(".repeat(100_000));
    assert_eq!(parse(&deep).unwrap_err().message, "expected at most 32 tuples in one another");
}

#[test]
fn only_what_the_outputs_need_is_shown() {
    let text = "v0: i64 = scalar.const 1:i64\nv1: i64 = scalar.const 2:i64\nreturn \"b\" v1\n";
    let graph = parse(text).unwrap();
    assert_eq!(graph.to_string(), "v0: i64 = scalar.const 2:i64\nreturn \"b\" v0\n");
    assert_eq!(format!("{graph:#}"), text);
}
