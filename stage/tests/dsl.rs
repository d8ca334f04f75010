//! What the DSL writes into the graph, and what it says to mistakes.

use quearn_stage::graph::{Field, Graph, Scalar, parse, verify};
use quearn_stage::rep::*;

fn lineitem(s: &Stage) -> Rep<'_, Table> {
    let money = Scalar::decimal(12, 2);
    s.scan(
        "lineitem",
        [
            Field::new("l_quantity", money),
            Field::new("l_extendedprice", money),
            Field::new("l_discount", money),
            Field::new("l_shipdate", Scalar::Date),
        ],
    )
}

/// The program that `write` writes; checked, and the same after a trip through its text.
fn program(write: impl FnOnce(&Stage)) -> Graph {
    let s = Stage::new();
    write(&s);
    let graph = s.finish().unwrap();
    verify(&graph).unwrap();
    assert_eq!(parse(&graph.to_string()).unwrap().to_string(), graph.to_string());
    graph
}

/// The first mistake of a program.
fn mistake(write: impl FnOnce(&Stage)) -> String {
    let s = Stage::new();
    write(&s);
    s.finish().unwrap_err().error.to_string()
}

#[test]
fn tpch_query_6() {
    let graph = program(|s| {
        let revenue = lineitem(s)
            .filter(|r| {
                r.date("l_shipdate").within(date("1994-01-01")..date("1995-01-01"))
                    & r.decimal("l_discount").between(dec("0.05"), dec("0.07"))
                    & r.decimal("l_quantity").lt(24)
            })
            .sum(|r| r.decimal("l_extendedprice") * r.decimal("l_discount"));
        s.output("revenue", revenue);
    });
    insta::assert_snapshot!(graph, @r#"
    v0: {l_quantity: decimal(12,2), l_extendedprice: decimal(12,2), l_discount: decimal(12,2), l_shipdate: date} = rel.scan "lineitem"
    v1: [rows(v0)] date = bridge.column v0 "l_shipdate"
    v2: date = scalar.const 1994-01-01:date
    v3: [rows(v0)] bool = scalar.ge v1, v2
    v4: date = scalar.const 1995-01-01:date
    v5: [rows(v0)] bool = scalar.lt v1, v4
    v6: [rows(v0)] bool = scalar.and v3, v5
    v7: [rows(v0)] decimal(12,2) = bridge.column v0 "l_discount"
    v8: decimal(2,2) = scalar.const 0.05:decimal(2,2)
    v9: [rows(v0)] bool = scalar.ge v7, v8
    v10: decimal(2,2) = scalar.const 0.07:decimal(2,2)
    v11: [rows(v0)] bool = scalar.le v7, v10
    v12: [rows(v0)] bool = scalar.and v9, v11
    v13: [rows(v0)] bool = scalar.and v6, v12
    v14: [rows(v0)] decimal(12,2) = bridge.column v0 "l_quantity"
    v15: decimal(2,0) = scalar.const 24:decimal(2,0)
    v16: [rows(v0)] bool = scalar.lt v14, v15
    v17: [rows(v0)] bool = scalar.and v13, v16
    v18: {l_quantity: decimal(12,2), l_extendedprice: decimal(12,2), l_discount: decimal(12,2), l_shipdate: date} = rel.filter v0, v17
    v19: [rows(v18)] decimal(12,2) = bridge.column v18 "l_extendedprice"
    v20: [rows(v18)] decimal(12,2) = bridge.column v18 "l_discount"
    v21: [rows(v18)] decimal(24,4) = scalar.mul v19, v20
    v22: {value: decimal(38,4)?} over 1 = rel.aggregate v18, v21 keys [] compute ["value" sum]
    v23: [1] decimal(38,4)? = bridge.column v22 "value"
    v24: decimal(38,4)? = bridge.single v23
    return "revenue" v24
    "#);
}

#[test]
fn small_network() {
    let graph = program(|s| {
        let x = s.input::<F32>("x", ("batch", 3, 8, 8));
        let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
        let y = x
            .conv2d(s.weight("w", [4, 3, 3, 3]), Some(s.weight("b", [4])), conv)
            .relu()
            .max_pool2d(Window::square(3).stride(2).ceil());
        let logits = y.flatten_from(1).matmul(s.weight("fc", [64, 10])) + s.weight("bias", [10]);
        s.output("class", logits.softmax(1).arg_max(1));
    });
    insta::assert_snapshot!(graph, @r#"
    v0: [batch, 3, 8, 8] f32 = tensor.input "x"
    v1: [4, 3, 3, 3] f32 = tensor.input "w" weight
    v2: [4] f32 = tensor.input "b" weight
    v3: [batch, 4, 8, 8] f32 = tensor.conv2d v0, v1, v2 stride [1, 1] padding [1, 1] dilation [1, 1] groups 1
    v4: [batch, 4, 8, 8] f32 = scalar.relu v3
    v5: [batch, 4, 4, 4] f32 = tensor.pool2d_max v4 kernel [3, 3] stride [2, 2] padding [0, 0] ceil
    v6: [batch, 64] f32 = tensor.reshape v5 to [batch, 64]
    v7: [64, 10] f32 = tensor.input "fc" weight
    v8: [batch, 10] f32 = tensor.matmul v6, v7
    v9: [10] f32 = tensor.input "bias" weight
    v10: [batch, 10] f32 = scalar.add v8, v9
    v11: [batch, 10] f32 = tensor.softmax v10 axis 1
    v12: [batch] i64 = tensor.arg_max v11 axis 1
    return "class" v12
    "#);
}

#[test]
fn adjoints_of_images() {
    let graph = program(|s| {
        let (x, y) = (s.input::<F32>("x", ("batch", 3, 8, 8)), s.input::<F32>("y", ("batch", 3, 4, 4)));
        s.output("unpooled", x.max_unpool2d(y, Window::square(2).stride(2)));
        s.output("filters", x.conv2d_filters(y, [5, 5], Conv2d::default()));
    });
    insta::assert_snapshot!(graph, @r#"
    v0: [batch, 3, 8, 8] f32 = tensor.input "x"
    v1: [batch, 3, 4, 4] f32 = tensor.input "y"
    v2: [batch, 3, 8, 8] f32 = tensor.max_unpool2d v0, v1 kernel [2, 2] stride [2, 2] padding [0, 0]
    v3: [3, 3, 5, 5] f32 = tensor.conv2d_filters v0, v1 kernel [5, 5] stride [1, 1] padding [0, 0] dilation [1, 1] groups 1
    return "unpooled" v2
    return "filters" v3
    "#);
}

/// A Rust function over staged values is an inlined function, of columns and scalars alike.
fn discounted<'s>(price: Rep<'s, Decimal>, discount: Rep<'s, Decimal>) -> Rep<'s, Decimal> {
    price * (1 - discount)
}

#[test]
fn rust_functions_are_inlined() {
    let by_function = program(|s| {
        let t = lineitem(s).with("net", |r| discounted(r.decimal("l_extendedprice"), r.decimal("l_discount")));
        s.output("t", t);
    });
    let by_hand = program(|s| {
        let t = lineitem(s).with("net", |r| r.decimal("l_extendedprice") * (1 - r.decimal("l_discount")));
        s.output("t", t);
    });
    assert_eq!(by_function.to_string(), by_hand.to_string());
}

#[test]
fn joins_groups_and_orders() {
    let graph = program(|s| {
        let orders = s.scan("orders", [Field::new("key", Scalar::I64), Field::new("day", Scalar::Date)]);
        let items = s.scan("items", [Field::new("key", Scalar::I64), Field::nullable("price", Scalar::F64)]);
        let t = orders
            .join_left(items, [("key", "key")])
            .group_by_exprs(|r| [("year", r.date("day").year().dyn_())])
            .agg(|r| {
                [
                    sum("total", r.f64("price")),
                    count("n"),
                    count_of("priced", r.f64("price")),
                    count_distinct("prices", r.f64("price")),
                ]
            })
            .sort([desc("total").nulls_first(), asc("year")])
            .limit(10);
        s.output("t", t);
    });
    insta::assert_snapshot!(graph, @r#"
    v0: {key: i64, day: date} = rel.scan "orders"
    v1: {key: i64, price: f64?} = rel.scan "items"
    v2: [rows(v0)] i64 = bridge.column v0 "key"
    v3: [rows(v1)] i64 = bridge.column v1 "key"
    v4: {key: i64, day: date, price: f64?} = rel.join_left v0, v1, v2, v3 keys 1
    v5: [rows(v4)] date = bridge.column v4 "day"
    v6: [rows(v4)] i32 = scalar.year v5
    v7: [rows(v4)] f64? = bridge.column v4 "price"
    v8: {year: i32, total: f64?, n: i64, priced: i64, prices: i64} = rel.aggregate v4, v6, v7, v7, v7 keys ["year"] compute ["total" sum, "n" count_rows, "priced" count, "prices" count_distinct]
    v9: [rows(v8)] f64? = bridge.column v8 "total"
    v10: [rows(v8)] i32 = bridge.column v8 "year"
    v11: {year: i32, total: f64?, n: i64, priced: i64, prices: i64} = rel.sort v8, v9, v10 by [desc nulls_first, asc]
    v12: {year: i32, total: f64?, n: i64, priced: i64, prices: i64} = rel.limit v11 offset 0 count 10
    return "t" v12
    "#);
}

#[test]
fn a_join_may_have_a_condition_on_the_pair() {
    let graph = program(|s| {
        let a = s.scan("a", [Field::new("k", Scalar::I64), Field::new("x", Scalar::I32)]);
        let b = s.scan("b", [Field::new("j", Scalar::I64), Field::new("y", Scalar::I32)]);
        s.output("t", a.join_if(b, JoinKind::Anti, [("k", "j")], |r| r.i32("x").ne(r.i32("y"))));
    });
    insta::assert_snapshot!(graph, @r#"
    v0: {k: i64, x: i32} = rel.scan "a"
    v1: {j: i64, y: i32} = rel.scan "b"
    v2: [rows(v0)] i64 = bridge.column v0 "k"
    v3: [rows(v1)] i64 = bridge.column v1 "j"
    v4: {k: i64, x: i32, j: i64, y: i32} = rel.product v0, v1
    v5: [rows(v4)] i32 = bridge.column v4 "x"
    v6: [rows(v4)] i32 = bridge.column v4 "y"
    v7: [rows(v4)] bool = scalar.ne v5, v6
    v8: {k: i64, x: i32} = rel.join_anti v0, v1, v2, v3, v7 keys 1
    return "t" v8
    "#);
}

#[test]
fn a_mark_is_a_column() {
    let graph = program(|s| {
        let a = s.scan("a", [Field::new("k", Scalar::I64), Field::new("x", Scalar::I32)]);
        let b = s.scan("b", [Field::new("k", Scalar::I64)]);
        s.output("t", a.join_mark(b, [("k", "k")], "both sides").filter(|r| r.bool("both sides") | r.i32("x").eq(0)));
    });
    insta::assert_snapshot!(graph, @r#"
    v0: {k: i64, x: i32} = rel.scan "a"
    v1: {k: i64} = rel.scan "b"
    v2: [rows(v0)] i64 = bridge.column v0 "k"
    v3: [rows(v1)] i64 = bridge.column v1 "k"
    v4: {k: i64, x: i32, "both sides": bool} = rel.join_mark v0, v1, v2, v3 keys 1 as "both sides"
    v5: [rows(v4)] bool = bridge.column v4 "both sides"
    v6: [rows(v4)] i32 = bridge.column v4 "x"
    v7: i32 = scalar.const 0:i32
    v8: [rows(v4)] bool = scalar.eq v6, v7
    v9: [rows(v4)] bool = scalar.or v5, v8
    v10: {k: i64, x: i32, "both sides": bool} = rel.filter v4, v9
    return "t" v10
    "#);
}

#[test]
fn a_model_is_applied_to_every_row() {
    fn model<'s>(s: &'s Stage, x: Rep<'s, Tensor<F32>>) -> Rep<'s, Tensor<F32>> {
        (x.matmul(s.weight("w", [2, 3])) * 0.5).softmax(1)
    }
    let graph = program(|s| {
        let t = s.scan("points", [Field::new("a", Scalar::F64), Field::new("b", Scalar::I32)]);
        let scored = t.map_rows("class", |_| model(s, t.tensor(&["a", "b"])).arg_max(1));
        s.output("classes", scored.group_by(["class"]).agg(|_| [count("n")]));
    });
    insta::assert_snapshot!(graph, @r#"
    v0: {a: f64, b: i32} = rel.scan "points"
    v1: [rows(v0)] f64 = bridge.column v0 "a"
    v2: [rows(v0)] f32 = scalar.cast v1 to f32
    v3: [rows(v0)] i32 = bridge.column v0 "b"
    v4: [rows(v0)] f32 = scalar.cast v3 to f32
    v5: [rows(v0), 2] f32 = bridge.stack v2, v4
    v6: [2, 3] f32 = tensor.input "w" weight
    v7: [rows(v0), 3] f32 = tensor.matmul v5, v6
    v8: f32 = scalar.const 0.5:f32
    v9: [rows(v0), 3] f32 = scalar.mul v7, v8
    v10: [rows(v0), 3] f32 = tensor.softmax v9 axis 1
    v11: [rows(v0)] i64 = tensor.arg_max v10 axis 1
    v12: {a: f64, b: i32, class: i64} over rows(v0) = rel.project v0, v1, v3, v11 as ["a", "b", "class"]
    v13: [rows(v0)] i64 = bridge.column v12 "class"
    v14: {class: i64, n: i64} = rel.aggregate v12, v13 keys ["class"] compute ["n" count_rows]
    return "classes" v14
    "#);
}

#[test]
fn loops_have_regions() {
    let graph = program(|s| {
        let rate = s.constant(1.05);
        let (balance, _) =
            s.loop_(3, (s.constant(100.0), s.constant(0.0)), |round, (balance, paid): (Rep<F64>, Rep<F64>)| {
                let inner = s.loop_(2, balance, |_, b| b * rate);
                (inner + round.cast::<F64>(), paid + 1.0)
            });
        s.output("balance", balance);
    });
    insta::assert_snapshot!(graph, @r#"
    v0: f64 = scalar.const 1.05:f64
    v1: f64 = scalar.const 100.0:f64
    v2: f64 = scalar.const 0.0:f64
    v3: i64 = scalar.const 2:i64
    v4: f64 = scalar.const 1.0:f64
    v5: i64 = scalar.const 3:i64
    v6: (f64, f64) = control.loop v5, v1, v2 {
      v7: i64 = control.param region 0 index 0
      v8: f64 = control.param region 0 index 1
      v9: f64 = control.param region 0 index 2
      v10: f64 = control.loop v3, v8 {
        v11: i64 = control.param region 1 index 0
        v12: f64 = control.param region 1 index 1
        v13: f64 = scalar.mul v12, v0
        return v13
      }
      v14: f64 = scalar.cast v7 to f64
      v15: f64 = scalar.add v10, v14
      v16: f64 = scalar.add v9, v4
      return v15, v16
    }
    v17: f64 = control.item v6 at 0
    return "balance" v17
    "#);
}

#[test]
fn steps_have_regions() {
    let graph = program(|s| {
        let x = s.input::<F32>("x", [5, 3]);
        let begin = s.weight::<F32>("begin", [3]);
        let walk = Walk { count: 5, axis: 0, back: true };
        let (last, all) = s.steps(walk, begin, x, |sum, x| (sum + x, sum * 2.0));
        s.output("last", last);
        s.output("all", all);
    });
    insta::assert_snapshot!(graph, @r#"
    v0: [5, 3] f32 = tensor.input "x"
    v1: [3] f32 = tensor.input "begin" weight
    v2: f32 = scalar.const 2.0:f32
    v3: ([3] f32, [5, 3] f32) = control.steps v1, v0 count 5 carried 1 axis 0 back {
      v4: [3] f32 = control.param region 0 index 0
      v5: [3] f32 = control.param region 0 index 1
      v6: [3] f32 = scalar.add v4, v5
      v7: [3] f32 = scalar.mul v4, v2
      return v6, v7
    }
    v8: [3] f32 = control.item v3 at 0
    v9: [5, 3] f32 = control.item v3 at 1
    return "last" v8
    return "all" v9
    "#);
}

#[test]
fn steps_walk_along_an_axis_that_there_is() {
    let error = mistake(|s| {
        let (x, begin) = (s.input::<F32>("x", [5, 3]), s.weight::<F32>("begin", [5]));
        let walk = Walk { count: 4, axis: 1, back: false };
        let (last, _) = s.steps(walk, begin, x, |sum, x| (sum + x, x));
        s.output("last", last);
    });
    let message = "tensor \"x\" must be a tensor of extent 4 along axis 1, found [5, 3] f32";
    assert_eq!(error, format!("control.steps: {message}"));
}

#[test]
fn types_known_at_run_time() {
    let graph = program(|s| {
        let t = s.scan("t", [Field::new("a", Scalar::I64), Field::new("b", Scalar::F32)]);
        let numbers: Vec<String> = t.fields().into_iter().map(|f| f.name).collect();
        let total = t.project(|r| {
            let sum = numbers.iter().map(|name| r.col(name)).reduce(|a, b| a + b);
            [("total", sum.unwrap() * 2.0)]
        });
        s.output("total", total.filter_dyn(|r| r.col("total").gt(0)).row().f64("total").as_tensor());
    });
    insta::assert_snapshot!(graph, @r#"
    v0: {a: i64, b: f32} = rel.scan "t"
    v1: [rows(v0)] i64 = bridge.column v0 "a"
    v2: [rows(v0)] f32 = bridge.column v0 "b"
    v3: [rows(v0)] f64 = scalar.add v1, v2
    v4: f64 = scalar.const 2.0:f64
    v5: [rows(v0)] f64 = scalar.mul v3, v4
    v6: {total: f64} over rows(v0) = rel.project v0, v5 as ["total"]
    v7: [rows(v0)] f64 = bridge.column v6 "total"
    v8: i64 = scalar.const 0:i64
    v9: [rows(v0)] bool = scalar.gt v7, v8
    v10: {total: f64} = rel.filter v6, v9
    v11: [rows(v10)] f64 = bridge.column v10 "total"
    return "total" v11
    "#);
}

#[test]
fn scalars_and_text() {
    let graph = program(|s| {
        let t = s.scan("t", [Field::nullable("name", Scalar::String), Field::new("day", Scalar::Date)]);
        let t = t.project(|r| {
            let late = r.date("day") - interval_months(3);
            let known = r.str("name").substring(1, 2).is_in(["a", "b"]) | r.str("name").not_like("%x\\%%");
            let score = when(known).then(1.0).otherwise(0.0) - 2.0 * r.date("day").month().cast::<F64>();
            let age = r.date("day") - late;
            [("score", score.dyn_()), ("age", age.dyn_()), ("name", r.str("name").coalesce("?").dyn_())]
        });
        s.output("t", t.rename("age", "days"));
    });
    insta::assert_snapshot!(graph, @r#"
    v0: {name: string?, day: date} = rel.scan "t"
    v1: [rows(v0)] date = bridge.column v0 "day"
    v2: interval = scalar.const 3m0d0us:interval
    v3: [rows(v0)] date = scalar.sub v1, v2
    v4: [rows(v0)] string? = bridge.column v0 "name"
    v5: [rows(v0)] string? = scalar.substring v4 from 1 len 2
    v6: string = scalar.const "a":string
    v7: [rows(v0)] bool? = scalar.eq v5, v6
    v8: string = scalar.const "b":string
    v9: [rows(v0)] bool? = scalar.eq v5, v8
    v10: [rows(v0)] bool? = scalar.or v7, v9
    v11: [rows(v0)] bool? = scalar.like v4 "%x\\%%"
    v12: [rows(v0)] bool? = scalar.not v11
    v13: [rows(v0)] bool? = scalar.or v10, v12
    v14: f64 = scalar.const 1.0:f64
    v15: f64 = scalar.const 0.0:f64
    v16: [rows(v0)] f64 = scalar.select v13, v14, v15
    v17: [rows(v0)] i32 = scalar.month v1
    v18: [rows(v0)] f64 = scalar.cast v17 to f64
    v19: f64 = scalar.const 2.0:f64
    v20: [rows(v0)] f64 = scalar.mul v19, v18
    v21: [rows(v0)] f64 = scalar.sub v16, v20
    v22: [rows(v0)] i32 = scalar.sub v1, v3
    v23: string = scalar.const "?":string
    v24: [rows(v0)] string = scalar.coalesce v4, v23
    v25: {score: f64, age: i32, name: string} over rows(v0) = rel.project v0, v21, v22, v24 as ["score", "age", "name"]
    v26: [rows(v0)] i32 = bridge.column v25 "age"
    v27: [rows(v0)] f64 = bridge.column v25 "score"
    v28: [rows(v0)] string = bridge.column v25 "name"
    v29: {score: f64, days: i32, name: string} over rows(v0) = rel.project v25, v27, v26, v28 as ["score", "days", "name"]
    return "t" v29
    "#);
}

#[test]
fn only_the_chosen_arm_of_if_is_evaluated() {
    let graph = program(|s| {
        let t = s.scan("t", [Field::new("a", Scalar::I64)]);
        s.output("t", t.with("a", |r| if_(r.i64("a").eq(0), || r.i64("a"), || 1 / r.i64("a"))));
    });
    assert!(graph.to_string().contains("control.if"));
}

#[test]
fn the_first_mistake_is_reported_with_its_place() {
    let s = Stage::new();
    let t = lineitem(&s).filter(|r| r.decimal("l_quantty").lt(24));
    let line = line!() - 1;
    s.output("t", t.limit(3).with("more", |r| r.f64("nothing")));
    let error = s.finish().unwrap_err();
    assert_eq!((error.location.file(), error.location.line()), (file!(), line));
    let expected = "bridge.column: no column \"l_quantty\"; did you mean \"l_quantity\"? (columns: \"l_quantity\", \
                    \"l_extendedprice\", \"l_discount\", \"l_shipdate\")";
    assert_eq!(error.error.to_string(), expected);
}

#[test]
fn mistakes_name_the_column() {
    let wrong_type = mistake(|s| s.output("t", lineitem(s).sum(|r| r.f64("l_discount"))));
    assert_eq!(wrong_type, "bridge.column: column \"l_discount\" is [rows(v0)] decimal(12,2), expected f64");
    let other_table = mistake(|s| {
        let t = lineitem(s);
        let small = t.filter(|r| r.decimal("l_quantity").lt(24));
        s.output("t", small.filter(|r| r.decimal("l_quantity").lt(t.row().decimal("l_discount"))));
    });
    assert_eq!(
        other_table,
        "scalar.lt: operands are columns of different tables: rows(v4) of filter vs rows(v0) of scan \"lineitem\""
    );
    let no_day = mistake(|s| s.output("t", lineitem(s).filter(|r| r.date("l_shipdate").lt(date("1994-02-30")))));
    assert_eq!(no_day, "scalar.const: expected a date such as 1994-01-01, found \"1994-02-30\"");
    let twice = mistake(|s| {
        s.output("a", s.constant(1.0));
        s.output("a", s.constant(2.0));
    });
    assert_eq!(twice, "output: two outputs are named \"a\"");
}

#[test]
fn stages_do_not_mix() {
    let other = Stage::new();
    let foreign = other.constant(1.0);
    let s = Stage::new();
    s.output("x", s.constant(2.0) + foreign);
    assert_eq!(s.finish().unwrap_err().error.to_string(), "scalar.add: its operands belong to different stages");
}

#[test]
fn casts_of_handles_are_checked() {
    let typed = mistake(|s| s.output("x", s.constant(1.5).dyn_().typed::<I64>()));
    assert_eq!(typed, "typed: the value is f64, expected i64");
    let column = mistake(|s| s.output("x", s.input::<F32>("x", [2, 3]).as_column()));
    assert_eq!(column, "as_column: the tensor is [2, 3] f32, expected f32");
}

#[test]
fn a_loop_keeps_its_types() {
    let error = mistake(|s| {
        let grown = s.loop_(3, s.constant(dec("1.5")), |_, x| x * dec("1.1"));
        s.output("x", grown);
    });
    assert_eq!(error, "control.loop: carried value 0 becomes decimal(4,2), expected decimal(2,1)");
}

#[test]
fn losses_say_what_they_need() {
    let no_classes = mistake(|s| s.output("l", s.input::<F32>("x", [0u64; 0]).nll(s.input::<I64>("t", [0u64; 0]))));
    assert_eq!(no_classes, "nll: needs a dimension of classes");
    let unknown = mistake(|s| {
        let scores = s.input::<F32>("x", ("n", "classes"));
        s.output("l", scores.cross_entropy(s.input::<I64>("t", ("n",))));
    });
    assert_eq!(unknown, "loss: the number of classes must be known when the program is built");
    let fewer = mistake(|s| s.output("l", s.input::<F32>("x", [4u64, 3]).cross_entropy(s.input::<I64>("t", [3u64]))));
    assert_eq!(fewer, "scalar.select: shapes do not match: 3 vs 4");
    let open = mistake(|s| {
        let lengths = s.input::<I64>("n", [2u64]);
        let targets = s.input::<I64>("t", [2u64, 3]);
        let sequences = Sequences { targets, target_lengths: lengths, input_lengths: lengths, blank: 0 };
        s.output("l", s.input::<F32>("x", ("time", 2u64, 5u64)).ctc(sequences));
    });
    assert_eq!(open, "ctc: needs scores [t, n, classes] and targets [n, s] of known extents");
    let other_stage = mistake(|s| {
        let other = Stage::new();
        let x = s.input::<F32>("x", [2u64]);
        let y = other.input::<F32>("y", [2u64]);
        assert!(
            s.extend::<Tensor<F32>>("twice", &[x.dyn_(), y.dyn_()], 1, |_, nodes| Ok(nodes.to_vec()))[0]
                .node()
                .is_none()
        );
    });
    assert_eq!(other_stage, "twice: its operands belong to different stages");
    let too_many = mistake(|s| {
        let x = s.input::<F32>("x", [2u64]);
        s.extend::<Tensor<F32>>("twice", &[x.dyn_()], 1, |_, nodes| Ok([nodes, nodes].concat()));
    });
    assert_eq!(too_many, "twice: gives 2 values, expected 1");
}
