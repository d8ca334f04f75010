//! Gradients through tables, by parameters and by columns, against central differences and as compiled programs.

mod autodiff_harness;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use autodiff_harness::{Rng, backends, graph, near};
use quearn::autodiff::gradients;
use quearn::eval::{Datum, EvalTable, EvalTensor, Inputs, evaluate};
use quearn::prelude::*;
use quearn_stage::rep::Table as TableRep;
use std::collections::HashMap;
use std::sync::Arc;

type Value<'s> = Rep<'s, F64>;
type Table<'s> = Rep<'s, TableRep>;

/// Orders with a price, of customers with a factor; a `tag` may be NULL.
struct Data {
    orders: Vec<(i64, f64, f64)>,
    tags: Vec<Option<i64>>,
    customers: Vec<(i64, f64)>,
    parameters: Vec<f64>,
}

impl Data {
    fn new(seed: u64, orders: usize) -> Data {
        let mut random = Rng::new(seed);
        let order = |random: &mut Rng| (random.int(0, 5) as i64, random.float() + 1.5, random.float());
        Data {
            orders: (0..orders).map(|_| order(&mut random)).collect(),
            tags: (0..orders).map(|_| Some(random.int(0, 2) as i64).filter(|tag| *tag < 2)).collect(),
            customers: (0..5).map(|key| (key, random.float() + 2.0)).collect(),
            parameters: vec![0.7, -0.4],
        }
    }

    fn inputs(&self) -> Inputs {
        let floats = |data: Vec<f64>| EvalTensor::floats(Scalar::F64, &[data.len()], data);
        let ints = |data: Vec<i64>| EvalTensor::ints(Scalar::I64, &[data.len()], data.into_iter().map(i128::from));
        let tags = self.tags.iter().map(|tag| tag.map_or(Datum::Null, |tag| Datum::Int(tag.into())));
        let orders = EvalTable::of(vec![
            ("customer", ints(self.orders.iter().map(|o| o.0).collect())),
            ("price", floats(self.orders.iter().map(|o| o.1).collect())),
            ("discount", floats(self.orders.iter().map(|o| o.2).collect())),
            ("tag", EvalTensor::new(Scalar::I64.nullable(), &[self.orders.len()], tags)),
        ]);
        let customers = EvalTable::of(vec![
            ("id", ints(self.customers.iter().map(|c| c.0).collect())),
            ("factor", floats(self.customers.iter().map(|c| c.1).collect())),
        ]);
        let number = |x: f64| EvalTensor::floats(Scalar::F64, &[], vec![x]);
        Inputs::new()
            .table("orders", orders)
            .table("customers", customers)
            .tensor("w", number(self.parameters[0]))
            .tensor("b", number(self.parameters[1]))
    }

    fn session(&self, backend: BackendKind) -> Session {
        let mut session = Session::builder().backend(backend).threads(2).build().unwrap();
        let floats = |data: Vec<f64>| Arc::new(Float64Array::from(data)) as ArrayRef;
        let ints = |data: Vec<i64>| Arc::new(Int64Array::from(data)) as ArrayRef;
        let orders = RecordBatch::try_from_iter_with_nullable([
            ("customer", ints(self.orders.iter().map(|o| o.0).collect()), false),
            ("price", floats(self.orders.iter().map(|o| o.1).collect()), false),
            ("discount", floats(self.orders.iter().map(|o| o.2).collect()), false),
            ("tag", Arc::new(Int64Array::from(self.tags.clone())) as ArrayRef, true),
        ]);
        let customers = RecordBatch::try_from_iter([
            ("id", ints(self.customers.iter().map(|c| c.0).collect())),
            ("factor", floats(self.customers.iter().map(|c| c.1).collect())),
        ]);
        session.add_table(StoredTable::from_batches("orders", &[orders.unwrap()]).unwrap());
        session.add_table(StoredTable::from_batches("customers", &[customers.unwrap()]).unwrap());
        for (name, value) in ["w", "b"].into_iter().zip(&self.parameters) {
            session.bind(name, StoredTensor::from_vec(vec![*value], &[]).unwrap());
        }
        session
    }

    /// Every number that a loss may depend on.
    fn numbers(&mut self, column: &str) -> Vec<&mut f64> {
        match column {
            "w" => self.parameters[..1].iter_mut().collect(),
            "b" => self.parameters[1..].iter_mut().collect(),
            "price" => self.orders.iter_mut().map(|o| &mut o.1).collect(),
            "discount" => self.orders.iter_mut().map(|o| &mut o.2).collect(),
            "factor" => self.customers.iter_mut().map(|c| &mut c.1).collect(),
            other => panic!("no column {other}"),
        }
    }
}

fn orders(s: &Stage) -> Table<'_> {
    let fields = [Field::new("customer", Scalar::I64), Field::new("price", Scalar::F64)];
    let more = [Field::new("discount", Scalar::F64), Field::nullable("tag", Scalar::I64)];
    s.scan("orders", fields.into_iter().chain(more))
}

fn customers(s: &Stage) -> Table<'_> {
    s.scan("customers", [Field::new("id", Scalar::I64), Field::new("factor", Scalar::F64)])
}

fn parameter<'s>(s: &'s Stage, name: &str) -> Value<'s> {
    s.input::<F64>(name, [0u64; 0]).as_column()
}

/// A number by which gradients are taken, by its name.
fn target<'s>(s: &'s Stage, name: &str) -> Value<'s> {
    match name {
        "w" | "b" => parameter(s, name),
        "factor" => customers(s).row().f64(name),
        _ => orders(s).row().f64(name),
    }
}

const ALL: [&str; 5] = ["w", "b", "price", "discount", "factor"];
const PARAMETERS: [&str; 2] = ["w", "b"];

/// Holds the gradients of a loss against central differences, and compiled programs against the evaluator.
fn check(name: &str, wrt: &[&str], loss: impl for<'s> Fn(&'s Stage) -> Value<'s>) {
    for (what, data, graph) in evaluated(name, wrt, loss) {
        compiled_agrees(&what, &data, &graph);
    }
}

/// Holds the gradients of a loss against central differences; gives the programs with their data.
fn evaluated(name: &str, wrt: &[&str], loss: impl for<'s> Fn(&'s Stage) -> Value<'s>) -> Vec<(String, Data, Graph)> {
    let mut programs = vec![];
    for (seed, rows) in [(1, 12), (2, 1), (3, 30)] {
        let mut data = Data::new(seed, rows);
        let what = format!("{name}, {rows} rows");
        let derived = |names: &[&str]| {
            graph(|s| {
                let of: Vec<Value<'_>> = names.iter().map(|name| target(s, name)).collect();
                for (name, g) in names.iter().zip(gradients(loss(s), &of)) {
                    s.output(*name, g);
                }
            })
        };
        let (all, plain) = (derived(wrt), graph(|s| s.output("loss", loss(s))));
        let found = evaluate(&all, &data.inputs()).unwrap_or_else(|e| panic!("{what}: {e}\n{all}"));
        let at = |data: &Data| match evaluate(&plain, &data.inputs()).unwrap()[0].1.tensor().get(0) {
            Datum::Float(x) => x,
            Datum::Null => 0.0,
            other => panic!("{what}: the loss is {other:?}"),
        };
        for (i, name) in wrt.iter().enumerate() {
            for j in 0..data.numbers(name).len() {
                let mut moved = |by: f64| {
                    *data.numbers(name)[j] += by;
                    let loss = at(&data);
                    *data.numbers(name)[j] -= by;
                    loss
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let found = found[i].1.tensor().as_floats()[j];
                let near = (found - expected).abs() <= 1e-6 * (1.0 + expected.abs());
                assert!(near, "{what}: by {name} {j} it is {found}, expected {expected}\n{all}");
            }
        }
        programs.push((what, data, all));
    }
    programs
}

/// Every backend gives what the evaluator gives: numbers, and columns with a gradient for each row.
fn compiled_agrees(what: &str, data: &Data, graph: &Graph) {
    let expected = evaluate(graph, &data.inputs()).unwrap();
    for backend in backends() {
        let outputs = data.session(backend).run(graph);
        let outputs = outputs.unwrap_or_else(|e| panic!("{what}, {backend:?}: {e}\n{graph}"));
        for (name, want) in &expected {
            let found = match want.tensor().shape() {
                [] => number(&outputs, name),
                _ => column(&outputs, name),
            };
            near(&format!("{what}, {backend:?}, {name}"), &found, want.tensor());
        }
    }
}

/// A result with a number for each row of a stored table.
fn column(outputs: &Outputs, name: &str) -> EvalTensor {
    let batch = outputs.table(name).unwrap();
    let column = batch.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
    EvalTensor::floats(Scalar::F64, &[column.len()], column.values().to_vec())
}

/// A scalar result, which comes as a tensor, or from tables as a table of one row.
fn number(outputs: &Outputs, name: &str) -> EvalTensor {
    match outputs.tensor(name) {
        Ok(tensor) => EvalTensor::from(tensor),
        Err(_) => {
            let batch = outputs.table(name).unwrap();
            let column = batch.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
            EvalTensor::floats(Scalar::F64, &[], vec![column.value(0)])
        }
    }
}

/// How far a line is off.
fn off<'s>(s: &'s Stage, x: Value<'s>, y: Value<'s>) -> Value<'s> {
    let away = parameter(s, "w") * x + parameter(s, "b") - y;
    away * away
}

#[test]
fn sums_of_stored_rows() {
    check("sum", &ALL[..4], |s| orders(s).sum(|r| off(s, r.f64("price"), r.f64("discount"))));
    check("avg", &ALL[..4], |s| orders(s).avg(|r| off(s, r.f64("price"), r.f64("discount"))));
    check("max", &ALL[..4], |s| orders(s).max(|r| off(s, r.f64("price"), r.f64("discount"))));
}

#[test]
fn filters_and_projections() {
    check("filter", &ALL[..4], |s| {
        let some = orders(s).filter(|r| r.i64("customer").lt(3));
        some.with("off", |r| off(s, r.f64("price"), r.f64("discount"))).sum(|r| r.f64("off") * r.f64("price"))
    });
    check("filter of what is computed", &PARAMETERS, |s| {
        let all = orders(s).with("line", |r| parameter(s, "w") * r.f64("price")).select(["line", "customer"]);
        all.filter(|r| r.i64("customer").gt(1)).sum(|r| r.f64("line") * parameter(s, "b"))
    });
    check("sort and limit", &ALL[..4], |s| {
        let first = orders(s).sort([asc("price"), desc("discount")]).limit(3);
        first.sum(|r| off(s, r.f64("price"), r.f64("discount")))
    });
}

#[test]
fn joins() {
    check("inner join", &ALL, |s| {
        let both = orders(s).join_inner(customers(s), [("customer", "id")]);
        both.sum(|r| off(s, r.f64("price") * r.f64("factor"), r.f64("discount")))
    });
    check("join of what is computed", &PARAMETERS, |s| {
        let scaled = customers(s).with("factor", |r| r.f64("factor") * parameter(s, "w")).rename("id", "customer");
        let both = orders(s).filter(|r| r.f64("price").gt(1.0)).join_inner(scaled, [("customer", "customer")]);
        both.sum(|r| (r.f64("price") * r.f64("factor") + parameter(s, "b")).sin())
    });
    check("left join", &ALL, |s| {
        let scaled = customers(s).with("scaled", |r| r.f64("factor") * parameter(s, "w"));
        let both = orders(s).join_left(scaled, [("customer", "id")]);
        both.sum(|r| r.f64("scaled").coalesce(0.5) * r.f64("price") + parameter(s, "b"))
    });
    check("left join, rows without partners dropped", &ALL, |s| {
        let some = customers(s).filter(|r| r.i64("id").gt(1));
        let both = orders(s).join_left(some, [("customer", "id")]).filter(|r| r.f64("price").gt(0.9));
        both.sum(|r| (r.f64("factor").coalesce(0.5) * r.f64("discount") * parameter(s, "w")).sin())
    });
    check("semi join", &ALL[..4], |s| {
        let known = customers(s).filter(|r| r.i64("id").ne(2));
        orders(s).join_semi(known, [("customer", "id")]).sum(|r| off(s, r.f64("price"), r.f64("discount")))
    });
    check("a table joined with itself", &ALL[..4], |s| {
        let cheap = orders(s).filter(|r| r.f64("price").lt(1.8));
        let other = cheap.project(|r| [("c", r.col("customer")), ("p", r.col("price"))]);
        let pairs = orders(s).join_inner(other, [("customer", "c")]);
        pairs.sum(|r| off(s, r.f64("price"), r.f64("p")))
    });
}

#[test]
fn groups() {
    check("sums of groups", &ALL[..4], |s| {
        let groups = orders(s).group_by(["customer"]).agg(|r| [sum("s", off(s, r.f64("price"), r.f64("discount")))]);
        groups.sum(|r| r.f64("s") * r.f64("s"))
    });
    check("means and counts of groups", &ALL[..4], |s| {
        let groups = orders(s)
            .filter(|r| r.f64("price").gt(0.8))
            .group_by(["customer"])
            .agg(|r| [avg("m", off(s, r.f64("price"), r.f64("discount"))), count("n")]);
        groups.sum(|r| r.f64("m").exp() * r.i64("n").cast::<F64>())
    });
    check("extremes of groups", &ALL[..4], |s| {
        let groups = orders(s).group_by(["customer"]).agg(|r| {
            let off = off(s, r.f64("price"), r.f64("discount"));
            [max("most", off), min("least", off)]
        });
        groups.sum(|r| r.f64("most") * r.f64("least"))
    });
    check("groups by a key that may be NULL", &ALL[..4], |s| {
        let groups = orders(s).group_by(["tag"]).agg(|r| [sum("s", off(s, r.f64("price"), r.f64("discount")))]);
        groups.sum(|r| r.f64("s").sin())
    });
    check("groups joined", &ALL, |s| {
        let groups = orders(s).group_by(["customer"]).agg(|r| [sum("s", off(s, r.f64("price"), r.f64("discount")))]);
        let both = customers(s).join_inner(groups, [("id", "customer")]);
        both.sum(|r| r.f64("s") * r.f64("factor") * parameter(s, "w"))
    });
    check("groups of groups", &ALL[..4], |s| {
        let groups =
            orders(s).group_by(["customer", "tag"]).agg(|r| [sum("s", off(s, r.f64("price"), r.f64("discount")))]);
        let again = groups.group_by(["customer"]).agg(|r| [avg("m", r.f64("s") * r.f64("s") * parameter(s, "b"))]);
        again.sum(|r| r.f64("m").sin())
    });
}

/// There are no loops for products of tables yet.
#[test]
fn products_of_tables() {
    evaluated("product", &ALL, |s| {
        let pairs = orders(s).product(customers(s)).filter(|r| r.i64("customer").lt(r.i64("id")));
        pairs.sum(|r| off(s, r.f64("price") * r.f64("factor"), r.f64("discount")).sin())
    });
    evaluated("product of groups", &ALL, |s| {
        let mean = orders(s).aggregate(|r| [avg("mean", r.f64("price") * parameter(s, "w"))]);
        let pairs = customers(s).product(mean);
        pairs.sum(|r| r.f64("factor") * r.f64("mean").coalesce(0.0) + parameter(s, "b") * r.f64("factor"))
    });
}

#[test]
fn joins_under_a_condition() {
    check("inner join", &ALL, |s| {
        let both = orders(s)
            .join_if(customers(s), JoinKind::Inner, [("customer", "id")], |r| r.f64("price").lt(r.f64("factor")));
        both.sum(|r| off(s, r.f64("price") * r.f64("factor"), r.f64("discount")))
    });
    check("left join", &ALL, |s| {
        let both = orders(s).join_if(customers(s), JoinKind::Left, [("customer", "id")], |r| {
            r.f64("discount").gt(0.0) & r.i64("id").ne(1)
        });
        both.sum(|r| r.f64("factor").coalesce(0.5) * r.f64("price") * parameter(s, "w") + parameter(s, "b"))
    });
    check("semi and anti join", &ALL[..4], |s| {
        let by =
            |kind| orders(s).join_if(customers(s), kind, [("customer", "id")], |r| r.f64("price").lt(r.f64("factor")));
        let there = by(JoinKind::Semi).sum(|r| off(s, r.f64("price"), r.f64("discount")));
        there.coalesce(0.0) - by(JoinKind::Anti).sum(|r| off(s, r.f64("price"), r.f64("discount"))).coalesce(0.0)
    });
}

#[test]
fn mark_joins() {
    check("mark", &ALL[..4], |s| {
        let some = customers(s).filter(|r| r.f64("factor").gt(1.9));
        let marked = orders(s).join_mark(some, [("customer", "id")], "known");
        marked.sum(|r| {
            when(r.bool("known"))
                .then(off(s, r.f64("price"), r.f64("discount")))
                .otherwise(r.f64("price") * parameter(s, "b"))
        })
    });
    check("mark in groups", &ALL[..4], |s| {
        let some = customers(s).filter(|r| r.i64("id").lt(3));
        let marked = orders(s).join_mark(some, [("customer", "id")], "known");
        let groups = marked.group_by(["known"]).agg(|r| [avg("m", off(s, r.f64("price"), r.f64("discount")))]);
        groups.sum(|r| r.f64("m") * r.f64("m"))
    });
}

#[test]
fn planted_values_are_learned_in_a_filtered_joined_grouped_loss() {
    // The mean discount of a customer's orders is 1.5 times its factor, less 0.3.
    let mut data = Data::new(7, 40);
    let factors: HashMap<i64, f64> = data.customers.iter().copied().collect();
    for (i, order) in data.orders.iter_mut().enumerate() {
        order.0 %= 5;
        order.2 = 1.5 * factors[&order.0] - 0.3 + if i % 2 == 0 { 9.0 } else { 0.0 };
        order.1 = if i % 2 == 0 { 0.2 } else { 2.0 };
    }
    let program = graph(|s| {
        let some = orders(s).filter(|r| r.f64("price").gt(1.0)).join_inner(customers(s), [("customer", "id")]);
        let groups = some.group_by(["customer"]).agg(|r| {
            let line = parameter(s, "w") * r.f64("factor") + parameter(s, "b");
            [avg("away", line - r.f64("discount"))]
        });
        let loss = groups.avg(|r| r.f64("away") * r.f64("away"));
        let g = gradients(loss, &[parameter(s, "w"), parameter(s, "b")]);
        s.output("loss", loss);
        s.output("w", g[0]);
        s.output("b", g[1]);
    });
    for backend in backends() {
        let mut session = data.session(backend);
        let compiled = session.compile(&program).unwrap();
        let (mut at, mut speed) = ([0.0, 0.0], [0.0, 0.0]);
        for _ in 0..3000 {
            for (name, value) in ["w", "b"].into_iter().zip(at) {
                session.bind(name, StoredTensor::from_vec(vec![value], &[]).unwrap());
            }
            let outputs = compiled.run(&session).unwrap();
            for i in 0..2 {
                let slope = number(&outputs, ["w", "b"][i]).as_floats()[0];
                speed[i] = 0.9 * speed[i] - 0.05 * slope;
                at[i] += speed[i];
            }
        }
        assert!((at[0] - 1.5).abs() < 1e-6 && (at[1] + 0.3).abs() < 1e-6, "{backend:?}: {at:?}");
    }
}

#[test]
fn second_derivatives() {
    check("of a sum", &ALL[..4], |s| {
        let some = orders(s).filter(|r| r.f64("price").gt(0.8));
        let loss = some.sum(|r| off(s, r.f64("price"), r.f64("discount")).sin());
        let g = gradients(loss, &[parameter(s, "w"), parameter(s, "b")]);
        g[0] * g[1]
    });
    check("of groups", &PARAMETERS, |s| {
        let groups = orders(s).group_by(["customer"]).agg(|r| [sum("s", off(s, r.f64("price"), r.f64("discount")))]);
        let g = gradients(groups.sum(|r| r.f64("s").sin()), &[parameter(s, "w"), parameter(s, "b")]);
        g[0] * g[1]
    });
}

#[test]
fn models_over_rows() {
    check("a linear model by a product", &PARAMETERS, |s| {
        let some = orders(s).filter(|r| r.i64("customer").lt(4));
        let x = some.tensor::<F64>(&["price", "discount"]);
        let w = parameter(s, "w").stack([parameter(s, "b")]).reshape([2u64, 1]);
        let y = x.matmul(w).tanh();
        (y * y).sum([0, 1]).as_column()
    });
}

#[test]
fn gradients_by_columns_are_compiled_where_only_filters_lie_between() {
    let data = Data::new(4, 50);
    let program = graph(|s| {
        let some = orders(s).filter(|r| r.i64("customer").lt(3)).filter(|r| r.f64("price").gt(1.0));
        let loss = some.sum(|r| off(s, r.f64("price"), r.f64("discount")));
        let [price, discount] = gradients(loss, &[target(s, "price"), target(s, "discount")])[..] else {
            panic!("two gradients")
        };
        s.output("price", price);
        s.output("discount", discount);
    });
    compiled_agrees("below filters", &data, &program);
}

#[test]
fn gradients_by_columns_of_many_rows_keep_their_order() {
    let program = graph(|s| {
        let both = orders(s).filter(|r| r.f64("price").gt(1.0)).join_inner(customers(s), [("customer", "id")]);
        let groups = both.group_by(["tag"]).agg(|r| [avg("m", r.f64("price") * r.f64("factor") * r.f64("discount"))]);
        let loss = groups.sum(|r| r.f64("m").sin());
        let names = ["price", "discount", "factor"];
        for (name, g) in names.iter().zip(gradients(loss, &names.map(|name| target(s, name)))) {
            s.output(*name, g);
        }
    });
    compiled_agrees("many rows", &Data::new(11, 40_000), &program);
}

/// They are columns as any other: selected, filtered by, summed up, joined.
#[test]
fn gradients_by_columns_in_further_queries() {
    let program = graph(|s| {
        let both = orders(s).join_inner(customers(s), [("customer", "id")]);
        let loss = both.sum(|r| off(s, r.f64("price") * r.f64("factor"), r.f64("discount")));
        let g = gradients(loss, &[target(s, "price"), target(s, "discount"), target(s, "factor")]);
        s.output("norm", orders(s).sum(|_| g[0] * g[0] + g[1] * g[1]));
        let stepped = customers(s).with("factor", |r| r.f64("factor") - g[2] * 0.1);
        let ahead =
            orders(s).with("up", |_| g[0]).filter(|r| r.f64("up").gt(0.0)).join_inner(stepped, [("customer", "id")]);
        s.output("ahead", ahead.sum(|r| r.f64("up") * r.f64("factor")).coalesce(0.0));
    });
    for (seed, rows) in [(1, 12), (2, 1), (3, 200)] {
        compiled_agrees(&format!("{rows} rows"), &Data::new(seed, rows), &program);
    }
}

#[test]
fn sums_by_row_become_joins() {
    let program = graph(|s| {
        let both = orders(s).join_inner(customers(s), [("customer", "id")]);
        let loss = both.sum(|r| r.f64("price") * r.f64("factor"));
        s.output("factor", gradients(loss, &[target(s, "factor")])[0]);
    });
    let (rewritten, report) = quearn::rewrite::rewrite(&program, &Default::default()).unwrap();
    assert_eq!(report.fired("scatter_rows"), 1, "{report}");
    insta::assert_snapshot!(rewritten, @r#"
    v0: {id: i64, factor: f64} = rel.scan "customers"
    v1: {customer: i64, price: f64} = rel.scan "orders"
    v2: [rows(v1)] i64 = bridge.column v1 "customer"
    v3: [rows(v0)] i64 = bridge.column v0 "id"
    v4: [rows(v0)] f64 = bridge.column v0 "factor"
    v5: [rows(v1)] f64 = bridge.column v1 "price"
    v6: [rows(v0)] i64 = bridge.row_number v0
    v7: {"0.customer": i64, "0.price": f64} over rows(v1) = rel.project v1, v2, v5 as ["0.customer", "0.price"]
    v8: [rows(v1)] i64 = bridge.column v7 "0.customer"
    v9: {"1.id": i64, "1.": i64} over rows(v0) = rel.project v0, v3, v6 as ["1.id", "1."]
    v10: [rows(v0)] i64 = bridge.column v9 "1.id"
    v11: {"0.customer": i64, "0.price": f64, "1.id": i64, "1.": i64} = rel.join_inner v7, v9, v8, v10 keys 1
    v12: [rows(v11)] f64 = bridge.column v11 "0.price"
    v13: [rows(v11)] i64 = bridge.column v11 "1."
    v14: f64 = scalar.const 0.0:f64
    v15: {"scattered 0 by": i64, "scattered 0": f64} = rel.aggregate v11, v13, v12 keys ["scattered 0 by"] compute ["scattered 0" sum]
    v16: {factor: f64, row: i64} over rows(v0) = rel.project v0, v4, v6 as ["factor", "row"]
    v17: [rows(v0)] i64 = bridge.column v16 "row"
    v18: [rows(v15)] i64 = bridge.column v15 "scattered 0 by"
    v19: {factor: f64, row: i64, "scattered 0 by": i64?, "scattered 0": f64?} = rel.join_left v16, v15, v17, v18 keys 1
    v20: [rows(v19)] f64 = bridge.column v19 "factor"
    v21: [rows(v19)] bool = scalar.is_null v20
    v22: [rows(v19)] f64 = scalar.select v21, v14, v14
    v23: [rows(v19)] f64? = bridge.column v19 "scattered 0"
    v24: [rows(v19)] f64 = scalar.coalesce v23, v14
    v25: [rows(v19)] f64 = scalar.add v22, v24
    v26: [rows(v19)] i64 = bridge.column v19 "row"
    v27: {value: f64, row: i64} over rows(v19) = rel.project v19, v25, v26 as ["value", "row"]
    v28: [rows(v19)] i64 = bridge.column v27 "row"
    v29: {value: f64, row: i64} = rel.sort v27, v28 by [asc]
    v30: [rows(v29)] f64 = bridge.column v29 "value"
    v31: {value: f64} over rows(v29) = rel.project v29, v30 as ["value"]
    v32: [rows(v29)] f64 = bridge.column v31 "value"
    return "factor" v32
    "#);
}

#[test]
fn what_has_no_derivative_is_named() {
    let s = Stage::new();
    let some = orders(&s).filter(|r| r.i64("customer").lt(3));
    gradients(some.sum(|r| r.f64("price")), &[some.row().f64("price")]);
    let found = s.finish().unwrap_err().error.to_string();
    assert!(found.contains("bridge.column") && found.contains("stored tables"), "{found}");
}

/// Its operands have no rows in common that an adjoint could be handed to: an error, not a gradient of 0.
#[test]
fn a_union_has_no_derivative() {
    for name in ["w", "price"] {
        let s = Stage::new();
        let of = target(&s, name);
        let worth = orders(&s).project(|r| [("x", (r.f64("price") * parameter(&s, "w")).dyn_())]);
        let others = customers(&s).project(|r| [("x", r.f64("factor").dyn_())]);
        gradients(worth.union([others]).sum(|r| r.f64("x")), &[of]);
        let found = s.finish().map(|graph| graph.to_string()).unwrap_err().error.to_string();
        assert!(found.contains("no derivative of rel.union"), "{found}");
    }
    // Of another table than the one that is asked for, it is data as any other.
    let graph = graph(|s| {
        let others = customers(s).project(|r| [("x", r.f64("factor").dyn_())]);
        let loss = others.union([others]).sum(|r| r.f64("x")).coalesce(0.0) * parameter(s, "w");
        s.output("w", gradients(loss, &[parameter(s, "w")])[0]);
    });
    let data = Data::new(1, 3);
    let sum: f64 = data.customers.iter().map(|c| 2.0 * c.1).sum();
    let found = evaluate(&graph, &data.inputs()).unwrap()[0].1.tensor().as_floats()[0];
    assert!((found - sum).abs() < 1e-9, "{found}, expected {sum}");
}
