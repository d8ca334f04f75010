//! Every operation of the naive evaluator against values computed by hand.

mod eval_harness;

use eval_harness::*;
use quearn::eval::{Datum, Errors, EvalTable, EvalTensor, Inputs, Interval, evaluate, evaluate_with};
use quearn_stage::graph::*;
use quearn_stage::low::FailKind;

/// `op` of two constants.
fn on_constants(op: Op, operands: &[Literal]) -> Result<Datum, FailKind> {
    let mut p = Program::default();
    let nodes: Vec<Node> = operands.iter().map(|l| p.constant(l.clone())).collect();
    let node = p.add(op, &nodes);
    p.run(node).map(|v| v.tensor().get(0)).map_err(|e| e.kind().unwrap())
}

fn binary(op: BinaryOp, a: Literal, b: Literal) -> Result<Datum, FailKind> {
    on_constants(Op::Binary(op), &[a, b])
}

fn small(scalar: Scalar, value: i128) -> Literal {
    Literal::int(scalar, value).unwrap()
}

fn f64_literal(value: f64) -> Literal {
    Literal::float(Scalar::F64, value).unwrap()
}

#[test]
fn integer_arithmetic_is_exact_or_an_error() {
    let i64 = Literal::i64;
    assert_eq!(binary(BinaryOp::Add, i64(2), i64(3)), Ok(int(5)));
    assert_eq!(binary(BinaryOp::Add, i64(i64::MAX), i64(1)), Err(FailKind::Overflow));
    assert_eq!(binary(BinaryOp::Sub, small(Scalar::U8, 2), small(Scalar::U8, 3)), Err(FailKind::Overflow));
    assert_eq!(binary(BinaryOp::Mul, small(Scalar::I8, 100), small(Scalar::I8, 2)), Err(FailKind::Overflow));
    assert_eq!(binary(BinaryOp::Mul, small(Scalar::I8, 100), small(Scalar::I16, 2)), Ok(int(200)));
    assert_eq!(binary(BinaryOp::Div, i64(-7), i64(2)), Ok(int(-3)));
    assert_eq!(binary(BinaryOp::Rem, i64(-7), i64(2)), Ok(int(-1)));
    assert_eq!(binary(BinaryOp::Div, i64(1), i64(0)), Err(FailKind::DivisionByZero));
    assert_eq!(binary(BinaryOp::Rem, i64(1), i64(0)), Err(FailKind::DivisionByZero));
    assert_eq!(binary(BinaryOp::Div, i64(i64::MIN), i64(-1)), Err(FailKind::Overflow));
    assert_eq!(binary(BinaryOp::Min, i64(4), i64(-4)), Ok(int(-4)));
    assert_eq!(binary(BinaryOp::Max, i64(4), i64(-4)), Ok(int(4)));
    assert_eq!(on_constants(Op::Unary(UnaryOp::Neg), &[small(Scalar::I8, -128)]), Err(FailKind::Overflow));
    assert_eq!(on_constants(Op::Unary(UnaryOp::Abs), &[small(Scalar::I8, -127)]), Ok(int(127)));
    assert_eq!(on_constants(Op::Unary(UnaryOp::Relu), &[small(Scalar::I8, -127)]), Ok(int(0)));
}

#[test]
fn decimal_arithmetic_keeps_scales() {
    // 1.50 + 0.125 = 1.625; 1.50 * 0.125 = 0.18750.
    assert_eq!(binary(BinaryOp::Add, decimal("1.50"), decimal("0.125")), Ok(int(1625)));
    assert_eq!(binary(BinaryOp::Sub, decimal("1.50"), decimal("0.125")), Ok(int(1375)));
    assert_eq!(binary(BinaryOp::Mul, decimal("1.50"), decimal("0.125")), Ok(int(18750)));
    assert_eq!(binary(BinaryOp::Sub, Literal::i64(1), decimal("0.05")), Ok(int(95)));
    assert_eq!(binary(BinaryOp::Div, decimal("1.50"), decimal("0.5")), Ok(Datum::Float(3.0)));
    assert_eq!(binary(BinaryOp::Min, decimal("1.50"), decimal("1.495")), Ok(int(1495)));
    let huge = Literal::decimal(10i128.pow(38) - 1, 38, 0).unwrap();
    assert_eq!(binary(BinaryOp::Add, huge.clone(), decimal("1")), Err(FailKind::Overflow));
    assert_eq!(binary(BinaryOp::Mul, huge, decimal("11")), Err(FailKind::Overflow));
}

#[test]
fn float_arithmetic_rounds_to_its_type() {
    let f32 = |x| Literal::float(Scalar::F32, x).unwrap();
    assert_eq!(binary(BinaryOp::Add, f32(16_777_216.0), f32(1.0)), Ok(Datum::Float(16_777_216.0)));
    assert_eq!(binary(BinaryOp::Add, f32(1.0), small(Scalar::I64, 16_777_216)), Ok(Datum::Float(16_777_217.0)));
    assert_eq!(binary(BinaryOp::Div, f64_literal(1.0), f64_literal(0.0)), Ok(Datum::Float(f64::INFINITY)));
    assert_eq!(binary(BinaryOp::Rem, f64_literal(-5.5), f64_literal(2.0)), Ok(Datum::Float(-1.5)));
    assert_eq!(binary(BinaryOp::Pow, f64_literal(2.0), f64_literal(-1.0)), Ok(Datum::Float(0.5)));
    assert_eq!(binary(BinaryOp::Max, f64_literal(f64::NAN), f64_literal(1.0)), Ok(Datum::Float(1.0)));
    let rectified = on_constants(Op::Unary(UnaryOp::Relu), &[f64_literal(f64::NAN)]);
    assert!(matches!(rectified, Ok(Datum::Float(x)) if x.is_nan()), "{rectified:?}");
}

#[test]
fn float_functions() {
    let of = |op, x: f64| match on_constants(Op::Unary(op), &[f64_literal(x)]) {
        Ok(Datum::Float(y)) => y,
        other => panic!("{other:?}"),
    };
    let cases = [
        (UnaryOp::Neg, 1.5, -1.5),
        (UnaryOp::Abs, -1.5, 1.5),
        (UnaryOp::Exp, 1.0, std::f64::consts::E),
        (UnaryOp::Log, std::f64::consts::E, 1.0),
        (UnaryOp::Sqrt, 2.25, 1.5),
        (UnaryOp::Tanh, 0.5, 0.46211715726000973),
        (UnaryOp::Sigmoid, 0.0, 0.5),
        (UnaryOp::Relu, -2.0, 0.0),
        (UnaryOp::Erf, 0.5, 0.5204998778130465),
        (UnaryOp::Erf, -2.0, -0.9953222650189527),
        (UnaryOp::Erf, 7.0, 1.0),
        (UnaryOp::Sin, std::f64::consts::FRAC_PI_2, 1.0),
        (UnaryOp::Cos, 0.0, 1.0),
        (UnaryOp::Floor, -1.5, -2.0),
        (UnaryOp::Ceil, -1.5, -1.0),
        (UnaryOp::Round, 2.5, 2.0),
        (UnaryOp::Round, -3.5, -4.0),
        (UnaryOp::Atan, 1.0, std::f64::consts::FRAC_PI_4),
    ];
    for (op, x, expected) in cases {
        assert!((of(op, x) - expected).abs() < 1e-15, "{} of {x} is {}", op.name(), of(op, x));
    }
}

#[test]
fn three_valued_logic() {
    let values = [Some(true), Some(false), None];
    let literal = |v: Option<bool>| v.map_or(Literal::null(Scalar::Bool), Literal::bool);
    let datum = |v: Option<bool>| v.map_or(Datum::Null, Datum::Bool);
    for (a, b) in values.iter().flat_map(|a| values.iter().map(move |b| (*a, *b))) {
        let and = match (a, b) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        let or = match (a, b) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        };
        assert_eq!(binary(BinaryOp::And, literal(a), literal(b)), Ok(datum(and)), "{a:?} AND {b:?}");
        assert_eq!(binary(BinaryOp::Or, literal(a), literal(b)), Ok(datum(or)), "{a:?} OR {b:?}");
    }
    for a in values {
        assert_eq!(on_constants(Op::Unary(UnaryOp::Not), &[literal(a)]), Ok(datum(a.map(|a| !a))));
        assert_eq!(on_constants(Op::Unary(UnaryOp::IsNull), &[literal(a)]), Ok(Datum::Bool(a.is_none())));
    }
}

#[test]
fn nulls_spread_through_arithmetic_and_comparison() {
    let null = || Literal::null(Scalar::I64);
    assert_eq!(binary(BinaryOp::Add, null(), Literal::i64(1)), Ok(Datum::Null));
    assert_eq!(binary(BinaryOp::Div, null(), Literal::i64(0)), Ok(Datum::Null));
    assert_eq!(binary(BinaryOp::Coalesce, null(), Literal::i64(1)), Ok(int(1)));
    assert_eq!(binary(BinaryOp::Coalesce, Literal::i64(2), Literal::i64(1)), Ok(int(2)));
    assert_eq!(on_constants(Op::Compare(CompareOp::Eq), &[null(), null()]), Ok(Datum::Null));
    let select = |cond| on_constants(Op::Select, &[cond, Literal::i64(1), Literal::i64(2)]);
    assert_eq!(select(Literal::bool(true)), Ok(int(1)));
    assert_eq!(select(Literal::bool(false)), Ok(int(2)));
    assert_eq!(select(Literal::null(Scalar::Bool)), Ok(int(2)));
}

#[test]
fn comparisons() {
    let holds = |op, a: Literal, b: Literal| on_constants(Op::Compare(op), &[a, b]) == Ok(Datum::Bool(true));
    assert!(holds(CompareOp::Eq, decimal("1.5"), decimal("1.50")));
    assert!(holds(CompareOp::Lt, Literal::i64(1), decimal("1.01")));
    assert!(holds(CompareOp::Le, date("1994-01-01"), date("1994-01-01")));
    assert!(holds(CompareOp::Gt, Literal::string("b"), Literal::string("ab")));
    assert!(holds(CompareOp::Lt, Literal::string("Z"), Literal::string("é")));
    assert!(holds(CompareOp::Lt, Literal::bool(false), Literal::bool(true)));
    let nan = || f64_literal(f64::NAN);
    assert!(holds(CompareOp::Ne, nan(), nan()));
    for op in [CompareOp::Eq, CompareOp::Lt, CompareOp::Le, CompareOp::Gt, CompareOp::Ge] {
        assert!(!holds(op, nan(), f64_literal(0.0)));
    }
    // An i32 becomes an f32 beside one, and loses its last digit.
    let rounded = small(Scalar::I32, 16_777_217);
    assert!(holds(CompareOp::Eq, rounded, Literal::float(Scalar::F32, 16_777_216.0).unwrap()));
}

#[test]
fn casts() {
    let cast = |from: Literal, to| on_constants(Op::Cast(to), &[from]);
    assert_eq!(cast(Literal::i64(300), Scalar::U8), Err(FailKind::BadCast));
    assert_eq!(cast(Literal::i64(-1), Scalar::U8), Err(FailKind::BadCast));
    assert_eq!(cast(Literal::i64(255), Scalar::U8), Ok(int(255)));
    assert_eq!(cast(f64_literal(-2.9), Scalar::I32), Ok(int(-2)));
    assert_eq!(cast(f64_literal(f64::NAN), Scalar::I32), Err(FailKind::BadCast));
    assert_eq!(cast(f64_literal(3e9), Scalar::I32), Err(FailKind::BadCast));
    assert_eq!(cast(f64_literal(1e300), Scalar::decimal(38, 2)), Err(FailKind::BadCast));
    assert_eq!(cast(f64_literal(2.345), Scalar::decimal(5, 2)), Ok(int(235)));
    assert_eq!(cast(decimal("2.345"), Scalar::decimal(5, 2)), Ok(int(235)));
    assert_eq!(cast(decimal("-2.345"), Scalar::decimal(5, 2)), Ok(int(-235)));
    assert_eq!(cast(decimal("2.344"), Scalar::decimal(5, 2)), Ok(int(234)));
    assert_eq!(cast(decimal("99.95"), Scalar::decimal(3, 1)), Err(FailKind::BadCast));
    assert_eq!(cast(decimal("2.5"), Scalar::F64), Ok(Datum::Float(2.5)));
    assert_eq!(cast(Literal::bool(true), Scalar::decimal(3, 1)), Ok(int(10)));
    assert_eq!(cast(date("1970-01-02"), Scalar::Timestamp), Ok(int(86_400_000_000)));
    assert_eq!(cast(Literal::timestamp(-1), Scalar::Date), Ok(int(-1)));
    assert_eq!(cast(Literal::null(Scalar::I64), Scalar::U8), Ok(Datum::Null));
    assert_eq!(cast(f64_literal(0.1), Scalar::F32), Ok(Datum::Float(0.1f32.into())));
    assert_eq!(cast(f64_literal(1.001), Scalar::BF16), Ok(Datum::Float(1.0)));
}

#[test]
fn like_and_substring() {
    let like = |text: &str, pattern: &str| on_constants(Op::Like(pattern.into()), &[Literal::string(text)]);
    let cases = [
        ("PROMO BRUSHED", "PROMO%", true),
        ("SPROMO", "PROMO%", false),
        ("a special request", "%special%requests%", false),
        ("special requests", "%special%requests%", true),
        ("abc", "a_c", true),
        ("ac", "a_c", false),
        ("é", "_", true),
        ("", "%", true),
        ("", "_", false),
        ("aab", "%ab", true),
        ("100%", "100\\%", true),
        ("100x", "100\\%", false),
        ("a_b", "a\\_b", true),
        ("axb", "a\\_b", false),
        ("a\\b", "a\\\\b", true),
        ("mississippi", "%iss%ip%i", true),
        ("abc", "abc%%", true),
        ("abc", "ab", false),
    ];
    for (text, pattern, expected) in cases {
        assert_eq!(like(text, pattern), Ok(Datum::Bool(expected)), "{text:?} LIKE {pattern:?}");
    }
    let hash = |text: &str| on_constants(Op::Hash, &[Literal::string(text)]);
    assert_eq!(hash(""), Ok(Datum::Int(0x4bf2_9ce4_8422_2325)));
    assert_eq!(hash("foobar"), Ok(Datum::Int(0x0594_4171_f739_67e8)));
    let clean = |text: &str, how| on_constants(Op::Clean(how), &[Literal::string(text)]);
    let all = Clean { lower: true, punctuation: true, spaces: true };
    assert_eq!(clean(" A-b \t Ä! ", all), Ok(Datum::str("ab Ä")));
    assert_eq!(clean(" A-b", Clean::default()), Ok(Datum::str(" A-b")));
    let substring = |text: &str, start, len| on_constants(Op::Substring { start, len }, &[Literal::string(text)]);
    assert_eq!(substring("13-345", 1, 2), Ok(Datum::str("13")));
    assert_eq!(substring("abc", 3, 9), Ok(Datum::str("c")));
    assert_eq!(substring("abc", 4, 1), Ok(Datum::str("")));
    assert_eq!(substring("äöü", 2, 1), Ok(Datum::str("ö")));
    assert_eq!(on_constants(Op::Like("%".into()), &[Literal::null(Scalar::String)]), Ok(Datum::Null));
}

#[test]
fn dates_and_intervals() {
    let shifted = |op, day: &str, months, days| match binary(op, date(day), Literal::interval(months, days, 0)) {
        Ok(Datum::Int(days)) => Literal::date(days as i32).to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shifted(BinaryOp::Add, "1995-01-31", 1, 0), "1995-02-28:date");
    assert_eq!(shifted(BinaryOp::Add, "1996-01-31", 1, 0), "1996-02-29:date");
    assert_eq!(shifted(BinaryOp::Add, "1996-02-29", 12, 0), "1997-02-28:date");
    assert_eq!(shifted(BinaryOp::Add, "1996-01-31", 1, 1), "1996-03-01:date");
    assert_eq!(shifted(BinaryOp::Sub, "1996-03-31", 1, 0), "1996-02-29:date");
    assert_eq!(shifted(BinaryOp::Sub, "1996-01-15", 1, 0), "1995-12-15:date");
    assert_eq!(shifted(BinaryOp::Sub, "1998-12-01", 0, 90), "1998-09-02:date");
    assert_eq!(binary(BinaryOp::Sub, date("1996-03-01"), date("1996-02-01")), Ok(int(29)));
    let overflow = binary(BinaryOp::Add, Literal::date(i32::MAX), Literal::interval(0, 1, 0));
    assert_eq!(overflow, Err(FailKind::Overflow));
    // One month after 1970-01-31 23:00 is 02-28 23:00; two hours more are 03-01 01:00.
    let evening = Literal::timestamp((30 * 24 + 23) * 3_600_000_000);
    let hours = Literal::interval(1, 0, 2 * 3_600_000_000);
    assert_eq!(binary(BinaryOp::Add, evening, hours), Ok(int((59 * 24 + 1) * 3_600_000_000)));
    for (op, expected) in [(UnaryOp::Year, 1969), (UnaryOp::Month, 12), (UnaryOp::Day, 31)] {
        assert_eq!(on_constants(Op::Unary(op), &[Literal::timestamp(-1)]), Ok(int(expected)));
        assert_eq!(on_constants(Op::Unary(op), &[Literal::date(-1)]), Ok(int(expected)));
    }
    let constant = Literal::interval(1, 2, 3);
    let back = Datum::Interval(Interval { months: 1, days: 2, micros: 3 });
    assert_eq!(on_constants(Op::Cast(Scalar::Interval), &[constant]), Ok(back));
}

#[test]
fn filter_project_and_limit() {
    let mut p = Program::default();
    let t = p.scan("t", EvalTable::of(vec![("a", nullable_ints(&[Some(1), None, Some(3), Some(4)]))]));
    let a = p.column(t, "a");
    let two = p.int(2);
    let pred = p.compare(CompareOp::Gt, a, two);
    let f = p.add(Op::Filter, &[t, pred]);
    let fa = p.column(f, "a");
    let doubled = p.binary(BinaryOp::Mul, fa, two);
    let projected = p.project(f, &[("b", doubled), ("c", two)]);
    assert_eq!(p.rows(projected), [[int(6), int(2)], [int(8), int(2)]]);

    let mut p = Program::default();
    let t = p.scan("t", EvalTable::of(vec![("a", ints(&[1, 2, 3, 4]))]));
    let l = p.add(Op::Limit { offset: 1, count: 2 }, &[t]);
    assert_eq!(p.rows(l), [[int(2)], [int(3)]]);
}

#[test]
fn sort_orders_nulls_and_is_stable() {
    let sorted = |descending, nulls_first| {
        let mut p = Program::default();
        let key = nullable_ints(&[Some(2), None, Some(1), Some(2)]);
        let t = p.scan("t", EvalTable::of(vec![("k", key), ("i", ints(&[0, 1, 2, 3]))]));
        let k = p.column(t, "k");
        let s = p.add(Op::Sort(vec![SortKey { descending, nulls_first }]), &[t, k]);
        p.rows(s).into_iter().map(|row| row[1].clone()).collect::<Vec<_>>()
    };
    let of = |rows: [i128; 4]| rows.map(int).to_vec();
    assert_eq!(sorted(false, false), of([2, 0, 3, 1]));
    assert_eq!(sorted(false, true), of([1, 2, 0, 3]));
    assert_eq!(sorted(true, false), of([0, 3, 2, 1]));
    assert_eq!(sorted(true, true), of([1, 0, 3, 2]));
}

fn joined(kind: JoinKind, with_residual: bool) -> Vec<Vec<Datum>> {
    let mut p = Program::default();
    let left =
        EvalTable::of(vec![("k", nullable_ints(&[Some(1), Some(2), None, Some(3)])), ("a", ints(&[10, 20, 30, 40]))]);
    let right =
        EvalTable::of(vec![("j", nullable_ints(&[Some(1), Some(1), None, Some(3)])), ("b", ints(&[5, 15, 25, 99]))]);
    let (l, r) = (p.scan("l", left), p.scan("r", right));
    let (k, j) = (p.column(l, "k"), p.column(r, "j"));
    let mut inputs = vec![l, r, k, j];
    if with_residual {
        let product = p.add(Op::Product, &[l, r]);
        let (a, b) = (p.column(product, "a"), p.column(product, "b"));
        inputs.push(p.compare(CompareOp::Gt, a, b));
    }
    let join = p.add(Op::Join { kind, keys: 1 }, &inputs);
    p.rows(join)
}

#[test]
fn joins() {
    let row = |k, a, j, b| vec![int(k), int(a), int(j), int(b)];
    let lone = |k: Datum, a| vec![k, int(a), Datum::Null, Datum::Null];
    let [first, second, last] = [row(1, 10, 1, 5), row(1, 10, 1, 15), row(3, 40, 3, 99)];
    assert_eq!(joined(JoinKind::Inner, false), [first.clone(), second.clone(), last.clone()]);
    assert_eq!(joined(JoinKind::Inner, true), [row(1, 10, 1, 5)]);
    assert_eq!(joined(JoinKind::Left, false), [first.clone(), second, lone(int(2), 20), lone(Datum::Null, 30), last]);
    let lone_rows = [first, lone(int(2), 20), lone(Datum::Null, 30), lone(int(3), 40)];
    assert_eq!(joined(JoinKind::Left, true), lone_rows);
    assert_eq!(joined(JoinKind::Semi, false), [[int(1), int(10)], [int(3), int(40)]]);
    assert_eq!(joined(JoinKind::Semi, true), [[int(1), int(10)]]);
    assert_eq!(joined(JoinKind::Anti, false), [[int(2), int(20)], [Datum::Null, int(30)]]);
    assert_eq!(joined(JoinKind::Anti, true), [[int(2), int(20)], [Datum::Null, int(30)], [int(3), int(40)]]);
    let marks = |residual| joined(JoinKind::Mark("m".into()), residual).into_iter().map(|row| row[2].clone());
    assert!(marks(false).eq([true, false, false, true].map(Datum::Bool)));
    assert!(marks(true).eq([true, false, false, false].map(Datum::Bool)));
}

#[test]
fn product_pairs_every_row() {
    let mut p = Program::default();
    let l = p.scan("l", EvalTable::of(vec![("a", ints(&[1, 2]))]));
    let r = p.scan("r", EvalTable::of(vec![("b", ints(&[3, 4]))]));
    let product = p.add(Op::Product, &[l, r]);
    assert_eq!(p.rows(product), [[int(1), int(3)], [int(1), int(4)], [int(2), int(3)], [int(2), int(4)]]);
}

#[test]
fn aggregates_by_key() {
    let mut p = Program::default();
    let key = column(Scalar::String, vec![Datum::str("x"), Datum::Null, Datum::str("x"), Datum::Null, Datum::str("y")]);
    let value = nullable_ints(&[Some(1), Some(5), Some(2), None, None]);
    let t = p.scan("t", EvalTable::of(vec![("k", key), ("v", value)]));
    let (k, v) = (p.column(t, "k"), Some(p.column(t, "v")));
    use AggregateOp::*;
    let folds = [
        ("sum", Sum, v),
        ("min", Min, v),
        ("max", Max, v),
        ("avg", Avg, v),
        ("n", Count, v),
        ("rows", CountRows, None),
        ("different", CountDistinct, v),
    ];
    let result = p.aggregate(t, &[("k", k)], &folds);
    let none = || Datum::Null;
    assert_eq!(
        p.rows(result),
        [
            [Datum::str("x"), int(3), int(1), int(2), Datum::Float(1.5), int(2), int(2), int(2)],
            [none(), int(5), int(5), int(5), Datum::Float(5.0), int(1), int(2), int(1)],
            [Datum::str("y"), none(), none(), none(), none(), int(0), int(1), int(0)],
        ]
    );
}

#[test]
fn distinct_values_are_counted_once() {
    let mut p = Program::default();
    let floats = [Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), None, Some(1.5)];
    let floats = floats.map(|x| x.map_or(Datum::Null, Datum::Float));
    let t = p.scan("t", EvalTable::of(vec![("v", column(Scalar::F64, floats.to_vec()))]));
    let v = p.column(t, "v");
    let result = p.aggregate(t, &[], &[("n", AggregateOp::CountDistinct, Some(v))]);
    assert_eq!(p.rows(result), [[int(3)]]);
}

#[test]
fn aggregates_without_keys_have_one_row() {
    let mut p = Program::default();
    let t = p.scan("t", EvalTable::of(vec![("v", ints(&[]))]));
    let v = p.column(t, "v");
    let folds = [("sum", AggregateOp::Sum, Some(v)), ("rows", AggregateOp::CountRows, None)];
    let result = p.aggregate(t, &[], &folds);
    assert_eq!(p.rows(result), [[Datum::Null, int(0)]]);
}

#[test]
fn sums_overflow_at_the_end_only() {
    let sum = |values: &[i128]| {
        let mut p = Program::default();
        let t = p.scan("t", EvalTable::of(vec![("v", ints(values))]));
        let v = p.column(t, "v");
        let result = p.aggregate(t, &[], &[("sum", AggregateOp::Sum, Some(v))]);
        p.run(result).map(|v| v.table().columns()[0].get(0)).map_err(|e| e.kind().unwrap())
    };
    let max = i64::MAX.into();
    assert_eq!(sum(&[max, 1]), Err(FailKind::Overflow));
    assert_eq!(sum(&[max, 1, -1]), Ok(int(max)));
}

#[test]
fn decimal_average_and_single() {
    let mut p = Program::default();
    let money = EvalTensor::ints(Scalar::decimal(15, 2), &[3], [100, 250, 1]);
    let t = p.scan("t", EvalTable::of(vec![("v", money)]));
    let v = p.column(t, "v");
    let result = p.aggregate(t, &[], &[("avg", AggregateOp::Avg, Some(v))]);
    let avg = p.column(result, "avg");
    let single = p.add(Op::Single, &[avg]);
    assert_eq!(p.data(single), [Datum::Float(3.51 / 3.0)]);
}

/// `SUM(price * discount)` under Q6's conditions, and Q1's grouping, on five rows.
fn lineitem(p: &mut Program) -> Node {
    let money = |values: [i128; 5]| EvalTensor::ints(Scalar::decimal(15, 2), &[5], values);
    let days =
        ["1994-01-01", "1994-12-31", "1995-01-01", "1993-12-31", "1994-06-01"].map(|d| date(d).as_int().unwrap());
    let table = EvalTable::of(vec![
        ("flag", strings(&["A", "N", "A", "R", "N"])),
        ("quantity", money([1700, 2300, 1000, 1000, 2400])),
        ("price", money([10000, 20050, 30000, 40000, 50000])),
        ("discount", money([6, 7, 6, 6, 5])),
        ("shipdate", EvalTensor::ints(Scalar::Date, &[5], days)),
    ]);
    p.scan("lineitem", table)
}

#[test]
fn like_tpch_q6() {
    let mut p = Program::default();
    let t = lineitem(&mut p);
    let (date_column, discount, quantity) = (p.column(t, "shipdate"), p.column(t, "discount"), p.column(t, "quantity"));
    let conditions = [
        (date_column, CompareOp::Ge, date("1994-01-01")),
        (date_column, CompareOp::Lt, date("1995-01-01")),
        (discount, CompareOp::Ge, decimal("0.05")),
        (discount, CompareOp::Le, decimal("0.07")),
        (quantity, CompareOp::Lt, decimal("24")),
    ];
    let mut pred = p.constant(Literal::bool(true));
    for (column, op, literal) in conditions {
        let literal = p.constant(literal);
        let holds = p.compare(op, column, literal);
        pred = p.binary(BinaryOp::And, pred, holds);
    }
    let f = p.add(Op::Filter, &[t, pred]);
    let (price, discount) = (p.column(f, "price"), p.column(f, "discount"));
    let revenue = p.binary(BinaryOp::Mul, price, discount);
    let result = p.aggregate(f, &[], &[("revenue", AggregateOp::Sum, Some(revenue))]);
    // 100.00 * 0.06 + 200.50 * 0.07 = 20.0350, with four digits after the point.
    assert_eq!(p.rows(result), [[int(200_350)]]);
}

#[test]
fn like_tpch_q1() {
    let mut p = Program::default();
    let t = lineitem(&mut p);
    let (flag, price, discount) = (p.column(t, "flag"), p.column(t, "price"), p.column(t, "discount"));
    let one = p.constant(decimal("1"));
    let rest = p.binary(BinaryOp::Sub, one, discount);
    let net = p.binary(BinaryOp::Mul, price, rest);
    let folds = [("net", AggregateOp::Sum, Some(net)), ("n", AggregateOp::CountRows, None)];
    let grouped = p.aggregate(t, &[("flag", flag)], &folds);
    let key = p.column(grouped, "flag");
    let sorted = p.add(Op::Sort(vec![SortKey { descending: false, nulls_first: false }]), &[grouped, key]);
    // A: 100 * 0.94 + 300 * 0.94; N: 200.50 * 0.93 + 500 * 0.95; R: 400 * 0.94.
    let row = |flag: &str, net, n| vec![Datum::str(flag), int(net), int(n)];
    assert_eq!(p.rows(sorted), [row("A", 3_760_000, 2), row("N", 6_614_650, 2), row("R", 3_760_000, 1)]);
}

#[test]
fn an_arm_that_is_not_chosen_cannot_fail() {
    let quotient = |op: Op| {
        let mut p = Program::default();
        let t = p.scan("t", EvalTable::of(vec![("a", ints(&[6, 7, 8])), ("b", ints(&[2, 0, 4]))]));
        let (a, b, zero) = (p.column(t, "a"), p.column(t, "b"), p.int(0));
        let divisible = p.compare(CompareOp::Ne, b, zero);
        let quotient = p.binary(BinaryOp::Div, a, b);
        let guarded = p.add(op, &[divisible, quotient, zero]);
        p.run(guarded).map(|v| v.tensor().iter().collect::<Vec<_>>()).map_err(|e| e.kind().unwrap())
    };
    assert_eq!(quotient(Op::If), Ok(vec![int(3), int(0), int(2)]));
    assert_eq!(quotient(Op::Select), Err(FailKind::DivisionByZero));
}

#[test]
fn an_arm_that_fails_as_a_whole() {
    let with_condition = |cond: bool| {
        let mut p = Program::default();
        let t = p.scan("t", EvalTable::of(vec![("v", ints(&[i64::MAX.into(), 1]))]));
        let v = p.column(t, "v");
        let sum = p.aggregate(t, &[], &[("sum", AggregateOp::Sum, Some(v))]);
        let sum = p.column(sum, "sum");
        let sum = p.add(Op::Single, &[sum]);
        let (cond, zero) = (p.constant(Literal::bool(cond)), p.int(0));
        let guarded = p.add(Op::If, &[cond, sum, zero]);
        p.run(guarded).map(|v| v.tensor().get(0)).map_err(|e| e.kind().unwrap())
    };
    assert_eq!(with_condition(false), Ok(int(0)));
    assert_eq!(with_condition(true), Err(FailKind::Overflow));
}

#[test]
fn failures_that_nobody_needs() {
    let mut p = Program::default();
    let t = p.scan("t", EvalTable::of(vec![("a", ints(&[1, 0]))]));
    let (a, one) = (p.column(t, "a"), p.int(1));
    let inverse = p.binary(BinaryOp::Div, one, a);
    let projected = p.project(t, &[("a", a), ("inverse", inverse)]);
    let zero = p.int(0);
    let a = p.column(projected, "a");
    let pred = p.compare(CompareOp::Ne, a, zero);
    let f = p.add(Op::Filter, &[projected, pred]);
    p.graph.output("out", f);
    let strict = evaluate(&p.graph, &p.inputs).unwrap_err();
    assert_eq!(strict.kind(), Some(FailKind::DivisionByZero));
    assert_eq!(strict.to_string(), format!("scalar.div ({inverse}): division_by_zero"));
    let needed = evaluate_with(&p.graph, &p.inputs, Errors::Needed).unwrap();
    assert_eq!(needed[0].1.table().rows(), 1);
}

#[test]
fn missing_and_mistyped_inputs() {
    let field = Field::new("a", Scalar::I64);
    let message = |inputs: Inputs| {
        let mut graph = Graph::new();
        let t = graph.add(Op::Scan { table: "t".into(), fields: vec![field.clone()] }, &[]).unwrap();
        graph.output("out", t);
        evaluate(&graph, &inputs).unwrap_err().to_string()
    };
    assert_eq!(message(Inputs::new()), "table \"t\": not given");
    let misses = EvalTable::of(vec![("b", ints(&[]))]);
    assert_eq!(message(Inputs::new().table("t", misses)), "table \"t\": no column \"a\"");
    let other = EvalTable::of(vec![("a", strings(&[]))]);
    assert_eq!(message(Inputs::new().table("t", other)), "table \"t\": column \"a\": expected i64, found string");
}

#[test]
fn arrow_and_back() {
    use quearn::data::{Table, Tensor};
    let interval = Datum::Interval(Interval { months: 1, days: -2, micros: 3 });
    let table = EvalTable::of(vec![
        ("i", nullable_ints(&[Some(1), None])),
        ("d", EvalTensor::ints(Scalar::decimal(15, 2), &[2], [150, -1])),
        ("s", column(Scalar::String, vec![Datum::Null, Datum::str("x")])),
        ("b", column(Scalar::Bool, vec![Datum::Bool(true), Datum::Null])),
        ("f", EvalTensor::floats(Scalar::F16, &[2], vec![0.5, 2.0])),
        ("day", EvalTensor::ints(Scalar::Date, &[2], [0, -1])),
        ("v", column(Scalar::Interval, vec![interval, Datum::Null])),
    ]);
    let loaded = Table::from_batches("t", &[table.to_batch().unwrap()]).unwrap();
    assert_eq!(EvalTable::from(&loaded), table);

    let tensor = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(EvalTensor::from(&Tensor::try_from(&tensor).unwrap()), tensor);
}
