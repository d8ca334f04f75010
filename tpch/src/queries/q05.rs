//! Q5: local supplier volume.

use super::{nations_of, revenue, scan};
use crate::schema::{CUSTOMER, LINEITEM, ORDERS, SUPPLIER};
use quearn_stage::rep::{Rep, Stage, Table, date, desc, sum};

/// ```sql
/// select n_name, sum(l_extendedprice * (1 - l_discount)) as revenue
/// from customer, orders, lineitem, supplier, nation, region
/// where c_custkey = o_custkey and l_orderkey = o_orderkey
///   and l_suppkey = s_suppkey and c_nationkey = s_nationkey
///   and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'ASIA'
///   and o_orderdate >= date '1994-01-01' and o_orderdate < date '1994-01-01' + interval '1' year
/// group by n_name
/// order by revenue desc
/// ```
pub fn q05(s: &Stage) -> Rep<'_, Table> {
    let asia = nations_of(s, "ASIA");
    let customers = scan(s, CUSTOMER).join_semi(asia, [("c_nationkey", "n_nationkey")]);
    let suppliers = scan(s, SUPPLIER).join_inner(asia, [("s_nationkey", "n_nationkey")]);
    let orders = scan(s, ORDERS)
        .filter(|r| r.date("o_orderdate").within(date("1994-01-01")..date("1995-01-01")))
        .join_inner(customers, [("o_custkey", "c_custkey")]);
    scan(s, LINEITEM)
        .join_inner(orders, [("l_orderkey", "o_orderkey")])
        .join_inner(suppliers, [("l_suppkey", "s_suppkey")])
        .filter(|r| r.i32("c_nationkey").eq(r.i32("s_nationkey")))
        .group_by(["n_name"])
        .agg(|r| [sum("revenue", revenue(r))])
        .sort([desc("revenue")])
}
